"""Every scenario that has a name."""

from tests.simulation.scenarios.news import news
from tests.simulation.scenarios.partition import partition
from tests.simulation.scenarios.scenario import Scenario

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("news", news, 1000),
        Scenario("partition", partition, 50),
    )
}
