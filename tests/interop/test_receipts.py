"""What a push leaves behind: receipts that anybody can check, without a network and without a node."""

import base64
import json
import re
from pathlib import Path

import pytest

from guts.errors import ExitStatus
from tests.e2e.conftest import Guts, commit
from tests.interop.conftest import REPLICAS, USER, Published
from tests.support.repositories import git

pytestmark = pytest.mark.interop


def test_receipts_of_a_push_are_checked_with_no_node_and_a_forged_one_is_named(mine: Published, tmp_path: Path) -> None:
    commit(mine.work, "one more")
    told = mine.author.ok(mine.work, "push", "guts", "main").err
    said = re.search(r"success: ([1-3])/\1 replicas hold", told)
    assert said, told
    nobody = Guts(tmp_path / "nobody")
    ran = nobody("receipts", "--verify", cwd=mine.work)
    assert ran.status == 0, ran.err
    lines = ran.out.splitlines()[1:]
    assert len(lines) == int(said[1])
    assert all(line.endswith("  ok") for line in lines)
    # From a second home without a node, the author's first node is a replica as the others are.
    ids = [str(mine.network.home(at).guts("node", "status", "--json").json["id"]) for at in (*REPLICAS, USER)]
    replicas = {f"{id[:12]}…" for id in ids}
    assert {word for line in lines for word in line.split() if word.startswith("node1")} <= replicas

    (file,) = (mine.work / ".git" / "guts" / "receipts").iterdir()
    value = json.loads(file.read_text())
    receipt = bytearray(base64.b64decode(value["receipts"][0]))
    receipt[-1] ^= 1
    value["receipts"][0] = base64.b64encode(receipt).decode()
    file.write_text(json.dumps(value))
    forged = nobody("receipts", "--verify", cwd=mine.work)
    assert forged.status == ExitStatus.INTEGRITY
    assert forged.out.count("FORGED: ") == 1
    assert git(mine.work, "status", "--porcelain") == ""
