"""Links begin eager, are pruned and grafted, for one author of one repository at a time."""

import pytest

from guts.events import ConnectionId
from guts.gossip import trees as module
from guts.gossip.trees import Trees
from tests.support.peers import author, repository

R, S = repository(1), repository(2)
A, B, OTHER = (R, author(1)), (R, author(2)), (S, author(1))
C1, C2, C3 = ConnectionId(1), ConnectionId(2), ConnectionId(3)
LINKS = [C1, C2, C3]


def test_every_link_begins_eager() -> None:
    assert Trees().eager(A, LINKS) == LINKS


def test_link_is_pruned_in_one_tree_and_grafted_again() -> None:
    trees = Trees()
    trees.prune(A, C2)
    trees.prune(A, C2)
    assert trees.is_lazy(A, C2)
    assert trees.eager(A, LINKS) == [C1, C3]
    assert trees.eager(B, LINKS) == trees.eager(OTHER, LINKS) == LINKS
    trees.graft(A, C2)
    trees.graft(A, C2)
    trees.graft(OTHER, C1)
    assert trees.eager(A, LINKS) == LINKS


def test_links_and_topics_that_are_gone_leave_nothing() -> None:
    trees = Trees()
    for link in LINKS:
        for tree in (A, B, OTHER):
            trees.prune(tree, link)
    trees.drop_link(C1)
    trees.drop_link(C1)
    assert trees.eager(A, LINKS) == [C1]
    trees.drop_topic(R)
    assert trees.eager(A, LINKS) == trees.eager(B, LINKS) == LINKS
    assert trees.eager(OTHER, LINKS) == [C1]
    trees.drop_topic(S)
    assert vars(trees) == {"_lazy": {}}


def test_link_is_lazy_in_so_many_trees_and_then_eager_again_in_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.MAX_LAZY == 16_384
    monkeypatch.setattr(module, "MAX_LAZY", 2)
    trees = Trees()
    trees.prune(A, C1)
    trees.prune(B, C1)
    assert trees.is_lazy(A, C1)
    trees.prune(OTHER, C1)
    assert [trees.is_lazy(tree, C1) for tree in (A, B, OTHER)] == [False, True, True]
