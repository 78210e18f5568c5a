"""Maintainers and replicas on a bad network agree in the end. ``make model`` runs thousands of these schedules."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.trust_model import Model, run

SCHEDULES = 60
SEED = 20_261_122


def test_replicas_of_several_maintainers_agree_in_the_end() -> None:
    print(f"seed {SEED}")
    happened = run(SCHEDULES, SEED)
    for what in (
        "pushes",
        "resyncs",
        "restores",
        "remove",
        "reaffirm",
        "return",
        "signed after removal",
        "second histories",
    ):
        assert happened.get(what), f"no schedule had {what}"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**63))
def test_any_schedule_ends_with_the_same_refs_everywhere(seed: int) -> None:
    Model.seeded(seed).run()


def test_a_schedule_can_be_run_again() -> None:
    models = [Model.seeded(SEED), Model.seeded(SEED)]
    for model in models:
        model.run()
    assert models[0].counts == models[1].counts
    assert models[0].replicas == models[1].replicas
