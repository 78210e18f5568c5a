"""Every scenario that has a name."""

from tests.simulation.scenarios.churn import churn, leave
from tests.simulation.scenarios.cost import cost
from tests.simulation.scenarios.honest import honest
from tests.simulation.scenarios.news import news
from tests.simulation.scenarios.partition import partition
from tests.simulation.scenarios.scenario import Scenario

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("news", news, 1000),
        Scenario("leave", leave, 1000),
        Scenario("churn", churn, 300),
        Scenario("cost", cost, 3000),
        Scenario("honest", honest, 1000),
        Scenario("partition", partition, 50),
    )
}
