"""Every scenario that has a name."""

from tests.simulation.scenarios.churn import churn, leave
from tests.simulation.scenarios.cost import cost
from tests.simulation.scenarios.honest import honest
from tests.simulation.scenarios.news import news
from tests.simulation.scenarios.partition import partition
from tests.simulation.scenarios.scenario import Scenario

MOST = 1_000_000

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("news", news, 1000, 4, {"pushes": (1, MOST), "degree": (2, MOST), "loss": (0, 0.5)}),
        Scenario("leave", leave, 1000, 10, {"share": (0, 0.5), "minutes": (1, MOST)}),
        Scenario("churn", churn, 300, 10, {"share": (0, 0.5), "minutes": (1, MOST)}),
        Scenario("cost", cost, 3000, 300, {"minutes": (1, MOST), "sizes": (1, 4)}),
        Scenario("honest", honest, 1000, 21, {"hours": (0.01, MOST), "connections": (4, MOST)}),
        Scenario("partition", partition, 50, 10, {"parts": (2, 5), "pushes": (1, MOST), "seconds": (0.01, MOST)}),
    )
}
