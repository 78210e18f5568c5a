"""Links begin eager, are pruned and grafted, for one repository at a time."""

from guts.events import ConnectionId
from guts.gossip.trees import Trees
from tests.support.peers import repository

R, S = repository(1), repository(2)
C1, C2, C3 = ConnectionId(1), ConnectionId(2), ConnectionId(3)
LINKS = [C1, C2, C3]


def test_every_link_begins_eager() -> None:
    assert Trees().eager(R, LINKS) == LINKS


def test_link_is_pruned_for_one_repository_and_grafted_again() -> None:
    trees = Trees()
    trees.prune(R, C2)
    trees.prune(R, C2)
    assert trees.is_lazy(R, C2)
    assert trees.eager(R, LINKS) == [C1, C3]
    assert trees.eager(S, LINKS) == LINKS
    trees.graft(R, C2)
    trees.graft(R, C2)
    trees.graft(S, C1)
    assert trees.eager(R, LINKS) == LINKS


def test_links_and_topics_that_are_gone_leave_nothing() -> None:
    trees = Trees()
    for link in LINKS:
        trees.prune(R, link)
        trees.prune(S, link)
    trees.drop_link(C1)
    trees.drop_link(C1)
    assert trees.eager(R, LINKS) == [C1]
    trees.drop_topic(R)
    assert trees.eager(R, LINKS) == LINKS
    assert trees.eager(S, LINKS) == [C1]
    trees.drop_topic(S)
    assert vars(trees) == {"_lazy": {}}
