"""A node that says that nothing had to change, though something was to."""

import pytest

from guts.cli.signing import NotAsked
from guts.ids import ObjectId
from guts.remote_helper.push import _check_unchanged
from guts.trust.updates import RefUpdate, Updates

ONE, TWO = ObjectId(b"\1" * 20), ObjectId(b"\2" * 20)


@pytest.mark.parametrize("update", [RefUpdate(ONE, TWO), RefUpdate(ONE, None), RefUpdate(None, ONE)])
def test_unchanged_is_no_success_of_a_push_that_changes(update: RefUpdate) -> None:
    with pytest.raises(NotAsked):
        _check_unchanged(Updates({"refs/heads/main": update}))


@pytest.mark.parametrize(
    "refs", [{}, {"refs/heads/main": RefUpdate(ONE, ONE)}, {"refs/heads/main": RefUpdate(None, None)}]
)
def test_unchanged_is_true_of_what_is_there_already(refs: dict[str, RefUpdate]) -> None:
    _check_unchanged(Updates(refs))
