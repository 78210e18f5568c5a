"""Where the time of one replication goes, by phase, against ``git clone --bare git://`` with ``transfer.fsckObjects``.

    python -m tests.benchmarks.git_replication [--objects N] [--runs N] [--repository PATH]

Runs of both alternate. The pack comes from ``BareRepository.pack`` through this process into the quarantine; the
network between two nodes is left out: ``replication`` measures the whole. Nothing stays behind.
"""

import argparse
import asyncio
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from guts.git.quarantine import Quarantine
from guts.git.repository import BareRepository
from guts.ids import ObjectId
from tests.benchmarks.figure import ratios
from tests.benchmarks.replication import clone, daemon
from tests.support.repositories import git, make_repository

PHASES = ("index", "check", "migrate", "project", "metadata")


def processor_seconds() -> float:
    """Return what this process and its ended children have used; steadier than the clock on a shared machine."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


async def replicate(source: BareRepository, tips: dict[str, ObjectId], target: Path) -> dict[str, float]:
    """Return the seconds of each phase of our replication."""
    repository = await BareRepository.create(target)
    before = processor_seconds()
    marks = [time.perf_counter()]
    async with source.pack(set(tips.values())) as chunks, repository.quarantine() as quarantine:
        await quarantine.index(chunks)
        marks.append(time.perf_counter())
        await quarantine.check(set(tips.values()))
        marks.append(time.perf_counter())
        await quarantine.migrate()
        marks.append(time.perf_counter())
    await repository.project(tips, "refs/heads/main")
    marks.append(time.perf_counter())
    used = processor_seconds() - before
    count = 0
    async for _ in repository.objects():
        count += 1
    marks.append(time.perf_counter())
    phases = {name: end - start for name, start, end in zip(PHASES, marks, marks[1:], strict=False)}
    return phases | {"total": marks[-2] - marks[0], "objects": float(count), "processor": used}


async def halves(repository: BareRepository, tips: dict[str, ObjectId]) -> dict[str, float]:
    """Return the seconds of scan and link check, each alone, over a repository that is already here."""
    with tempfile.TemporaryDirectory(dir=repository.path / "objects") as scratch:
        empty = await BareRepository.create(Path(scratch) / "empty.git")
        async with Quarantine(empty.path, empty.git) as quarantine:
            async with repository.pack(set(tips.values())) as chunks:
                await quarantine.index(chunks)
            inspection = quarantine.inspection()
            start = time.perf_counter()
            await inspection.links(set(tips.values()), holds_any=False)
            middle = time.perf_counter()
            with tempfile.TemporaryFile() as ids, tempfile.TemporaryFile() as others:
                await inspection.scan(None, ids, others, keep_ids=False)
            return {"links": middle - start, "scan": time.perf_counter() - middle}


async def measure(objects: int, runs: int, path: Path | None) -> None:
    """Print a table of medians."""
    with tempfile.TemporaryDirectory(prefix="guts-bench-") as name:
        base = Path(name)
        if path is None:
            make_repository(base / "made", objects, seed=1)
            path = base / "made"
        source = await BareRepository.create(base / "source.git")
        git(base, "--git-dir", str(source.path), "fetch", "-q", str(path.absolute()), "+refs/*:refs/*")
        git(base, "--git-dir", str(source.path), "pack-refs", "--all")
        git(base, "--git-dir", str(source.path), "repack", "-adq")
        listing = git(base, "--git-dir", str(source.path), "for-each-ref", "--format=%(objectname) %(refname)")
        tips = {line[41:]: ObjectId(bytes.fromhex(line[:40])) for line in listing.splitlines()}
        size = source.size()
        clones: list[tuple[float, float]] = []
        ours: list[dict[str, float]] = []
        with daemon(base, "source.git") as (url, _):
            for _ in range(runs):
                clones.append(clone(url))
                ours.append(await replicate(source, tips, base / "replica.git"))
                shutil.rmtree(base / "replica.git")
        apart = await halves(source, tips)
        print(f"{ours[0]['objects']:.0f} objects, {size / 1e6:.0f} MB, {runs} alternating runs, medians in seconds")
        print(f"  git clone --bare       {statistics.median(seconds for seconds, _ in clones):6.2f}")
        for phase in (*PHASES, "total"):
            print(f"  {phase:22} {statistics.median(run[phase] for run in ours):6.2f}")
        for phase, seconds in apart.items():
            print(f"  {phase + ' alone':22} {seconds:6.2f}")
        print(f"  processor time         {statistics.median(run['processor'] for run in ours):6.2f}")
        print(f"  of git clone, without its server {statistics.median(used for _, used in clones):6.2f}")
        ratio = statistics.median(ratios([run["total"] for run in ours], [seconds for seconds, _ in clones]))
        print(f"  ratio (metadata aside) {ratio:6.2f}")
        print(f"  peak RSS of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=120_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--repository", type=Path)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.objects, arguments.runs, arguments.repository))


if __name__ == "__main__":
    main()
