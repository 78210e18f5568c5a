"""Run a scenario: ``python -m tests.simulation news --nodes 1000 --seed 7``; see docs/simulation.md."""

import argparse
import sys

from tests.simulation.scenarios.listed import SCENARIOS
from tests.simulation.scenarios.scenario import BadRun, Missed


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("scenario", nargs="?", default="news", choices=sorted(SCENARIOS))
    parser.add_argument("--nodes", type=int, help="how many; the scenario has a number of its own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="tell what there is")
    parser.add_argument("options", nargs="*", metavar="NAME=NUMBER", help="what else the scenario knows (--list)")
    arguments = parser.parse_intermixed_args()
    if arguments.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name} ({scenario.nodes} nodes)\n    {scenario.about}\n")
        return 0
    scenario = SCENARIOS[arguments.scenario]
    try:
        options = dict(map(_option, arguments.options))
        scenario.check(arguments.nodes, options)
    except BadRun as error:
        parser.error(str(error))
    try:
        scenario.run(arguments.nodes, arguments.seed, **options)
    except Missed as missed:
        print(f"\n{missed}", file=sys.stderr)
        return 1
    return 0


def _option(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise BadRun(f"{text!r} is not NAME=NUMBER") from None


if __name__ == "__main__":
    sys.exit(main())
