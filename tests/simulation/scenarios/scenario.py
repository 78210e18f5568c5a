"""``Scenario``: something to simulate that has a name, and ``Figures``: what came of it, against what must be."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.support.simulator.world import World


class Missed(AssertionError):
    """Something is not as it must be. The text says what, and with which command it is seen again."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, and where it must be."""

    name: str
    value: float
    at_least: float = -math.inf
    at_most: float = math.inf

    @property
    def met(self) -> bool:
        """Tell whether it is where it must be."""
        return self.at_least <= self.value <= self.at_most

    def __str__(self) -> str:
        bounds = [f">= {self.at_least:g}"] if self.at_least > -math.inf else []
        bounds += [f"<= {self.at_most:g}"] if self.at_most < math.inf else []
        wanted = f"   ({' and '.join(bounds)}{'' if self.met else ': MISSED'})" if bounds else ""
        return f"{self.name}: {self.value:.6g}{wanted}"


class BadRun(ValueError):
    """A scenario is asked for what it can't be played with; nothing was played."""


@dataclass(slots=True)
class Run:
    """One run of a scenario.

    Attributes:
        options: numbers that the scenario may be given beside nodes and seed; its docstring tells them.
        seconds: of real time.
    """

    nodes: int
    seed: int
    options: dict[str, float] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    events: int = 0
    virtual: float = 0.0

    def option(self, name: str, default: float) -> float:
        """Return what ``name`` was set to."""
        return self.options.get(name, default)

    def add(self, name: str, value: float, *, at_least: float = -math.inf, at_most: float = math.inf) -> None:
        """Note a figure."""
        self.figures.append(Figure(name, float(value), at_least, at_most))

    def done_with(self, world: World) -> None:
        """Note what a world has cost, and its digest."""
        self.events += world.engine.happened
        self.virtual += world.now
        self.digests.append(world.digest())

    def __getitem__(self, name: str) -> float:
        """Return the figure ``name``."""
        return next(figure.value for figure in self.figures if figure.name == name)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something to simulate.

    Attributes:
        play: does it, and adds figures.
        nodes: unless told.
        least: nodes that it needs.
        options: by name, the least and the most that each may be.
    """

    name: str
    play: Callable[[Run], None]
    nodes: int
    least: int = 1
    options: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """What it is, in one line and more."""
        return (self.play.__doc__ or "").strip()

    def command(self, run: Run) -> str:
        """Return the command that does it again."""
        options = " ".join(f"{name}={value:g}" for name, value in run.options.items())
        return f"make sim NODES={run.nodes} SEED={run.seed} SCENARIO={self.name}" + (
            f" OPTIONS='{options}'" if options else ""
        )

    def run(self, nodes: int | None = None, seed: int = 1, **options: float) -> Run:
        """Play it, print what came of it, and return that.

        Raises:
            BadRun: as ``check``.
            Missed: a figure is not where it must be.
        """
        run = self.measure(nodes, seed, **options)
        missed = [str(figure) for figure in run.figures if not figure.met]
        if missed:
            raise Missed("\n".join([*missed, f"replay it: {self.command(run)}"]))
        return run

    def check(self, nodes: int | None, options: Mapping[str, float]) -> None:
        """Raises: ``BadRun``: too few nodes, or an option that it does not know or that is out of range."""
        if nodes is not None and nodes < self.least:
            raise BadRun(f"{self.name} needs at least {self.least} nodes, not {nodes}")
        for name, value in options.items():
            if name not in self.options:
                raise BadRun(f"{self.name} knows no option {name!r}: it has {', '.join(self.options) or 'none'}")
            lowest, highest = self.options[name]
            if not lowest <= value <= highest:
                raise BadRun(f"{name}={value:g} is out of range: {lowest:g} to {highest:g}")

    def measure(self, nodes: int | None = None, seed: int = 1, **options: float) -> Run:
        """Play it, print what came of it, and return that, wherever the figures are."""
        self.check(nodes, options)
        run = Run(self.nodes if nodes is None else nodes, seed, options)
        print(f"{self.name}: {run.nodes} nodes, seed {seed}", flush=True)
        begun = time.perf_counter()
        try:
            self.play(run)
        except Exception as error:
            error.add_note(f"replay it: {self.command(run)}")
            raise
        seconds = time.perf_counter() - begun
        for figure in run.figures:
            print(f"  {figure}")
        rate = run.events / seconds
        print(f"  {run.events} events, {run.virtual:.0f} virtual seconds in {seconds:.1f} s ({rate:.0f} events/s)")
        print(f"  digest {' '.join(digest[:16] for digest in run.digests)}", flush=True)
        return run
