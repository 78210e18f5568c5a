"""``Quotas``: how much this node seeds, and how full its disk may get.

They are judged twice: by what a holder claims, before anything is fetched, and by the bytes that come. Nothing that is
here goes to make room: the newcomer is refused.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

from guts.errors import ExitStatus, StorageFault
from guts.sizes import compared_sizes, size_text
from guts.sync.policy import NotTaken

MIN_FREE_BYTES: Final = 1 << 30
MIN_FREE_SHARE: Final = 0.05
"""Of a file system: what stays free where the operator says nothing, whichever is more. Databases, logs and other
programs share the disk, and file systems grow slow when they are nearly full."""

_MIB: Final = 1 << 20
_RESTART: Final = "guts node stop && guts node start"


class QuotaExceeded(NotTaken):
    """There is room for no more, by the operator's own limits.

    Attributes:
        limit: the setting.
        value: what it is.
        claimed: nothing has come yet; a holder says how much it would be.
    """

    code: ClassVar[str] = "QUOTA"
    exit_status: ClassVar[ExitStatus] = ExitStatus.QUOTA

    def __init__(self, limit: str, value: int, needed: int, *, claimed: bool = False, total: int = 0) -> None:
        """Args: ``needed``: bytes of the repository; ``total``: of all that is here, where ``limit`` is for that."""
        said = ", as its holder says" if claimed else ""
        if total:
            all_of_them, allowed = compared_sizes(total, value)
            takes = f"all repositories together take {all_of_them}"
            takes += f", and it takes {size_text(needed)}{said}" if claimed else ""
        else:
            size, allowed = compared_sizes(needed, value)
            takes = f"it takes {size}{said}"
        hint = f"change min_free under [seeding] in config.toml, then {_RESTART}"
        if limit != "seeding.min_free":
            hint = _raise(limit, total + needed if claimed or not total else total)
        verb = "keeps free" if limit == "seeding.min_free" else "allows"
        super().__init__(f"{takes}, where {limit} {verb} {allowed}", hint=hint)
        self.limit, self.value, self.claimed = limit, value, claimed


def _raise(limit: str, needed: int) -> str:
    """Return what makes room for ``needed`` bytes under the setting ``limit``."""
    section, _, key = limit.partition(".")
    return f'{key} = "{-(-needed // _MIB)}MiB" or more under [{section}] in config.toml, then {_RESTART}'


class DiskLow(StorageFault):
    """Too little space is left on the disk for anything to be fetched."""

    code: ClassVar[str] = "DISK_LOW"
    exit_status: ClassVar[ExitStatus] = ExitStatus.QUOTA

    def __init__(self, free: int, floor: int) -> None:
        """Args: ``free``, ``floor``: bytes."""
        left, kept = compared_sizes(free, floor)
        super().__init__(
            f"{left} are free on the disk, and {kept} are to stay free: "
            "nothing is fetched or published until there is more",
            hint="guts unseed REPOSITORY --now; guts ls shows what each takes. Or lower seeding.min_free in the config",
        )


@dataclass(frozen=True, slots=True)
class Space:
    """A file system, in bytes."""

    free: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What is on the disk, in bytes.

    Attributes:
        repository: of the repository in question.
        total: of all, with what is coming in.
        space: of the file system.
    """

    repository: int
    total: int
    space: Space


@dataclass(frozen=True, slots=True)
class Passed:
    """A limit that what is here is past, with what follows from it.

    Attributes:
        limit: the setting.
        message: how far, and what this node does no more.
        hint: what helps.
    """

    limit: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Quotas:
    """The operator's limits; sizes in bytes. See ``SeedingConfig``.

    Attributes:
        min_free: ``None``: by the size of the file system.
    """

    repo_max: int
    disk: int
    min_free: int | None = None

    def floor(self, space: Space) -> int:
        """Return how many bytes of ``space`` are to stay free."""
        return self.min_free if self.min_free is not None else max(MIN_FREE_BYTES, int(space.capacity * MIN_FREE_SHARE))

    def check(self, usage: Usage, more: int, *, claimed: bool = False) -> None:
        """Check that ``more`` bytes of the repository may come.

        Args:
            claimed: they have not come yet: a holder says that they would.

        Raises:
            QuotaExceeded: they may not.
            DiskLow: nothing may.
        """
        floor = self.floor(usage.space)
        if usage.space.free - (more if claimed else 0) < floor:
            if usage.space.free < floor:
                raise DiskLow(usage.space.free, floor)
            raise QuotaExceeded("seeding.min_free", floor, more, claimed=claimed)
        if usage.repository + more > self.repo_max:
            raise QuotaExceeded("seeding.repo_max", self.repo_max, usage.repository + more, claimed=claimed)
        if usage.total + more > self.disk:
            size = usage.repository + more
            raise QuotaExceeded("seeding.disk", self.disk, size, claimed=claimed, total=usage.total)

    def passed(self, usage: Usage) -> tuple[Passed, ...]:
        """Return the limits that a publication has led past: they refuse nobody's own work, and all that others have.

        They follow from the same comparisons as in ``check``, so that what is told here is what is refused there.
        """
        passed = []
        if usage.repository > self.repo_max:
            size, allowed = compared_sizes(usage.repository, self.repo_max)
            text = (
                f"it takes {size} on this node, where seeding.repo_max allows {allowed}: "
                "it is published, and what others publish of it is not taken here"
            )
            passed.append(Passed("seeding.repo_max", text, _raise("seeding.repo_max", usage.repository)))
        if usage.total > self.disk:
            size, allowed = compared_sizes(usage.total, self.disk)
            text = (
                f"all repositories together take {size} on this node, where seeding.disk allows {allowed}: "
                "this one is published, and nothing is taken from others"
            )
            passed.append(Passed("seeding.disk", text, _raise("seeding.disk", usage.total)))
        floor = self.floor(usage.space)
        if usage.space.free < floor:
            low = DiskLow(usage.space.free, floor)
            passed.append(Passed("seeding.min_free", str(low), low.hint or ""))
        return tuple(passed)
