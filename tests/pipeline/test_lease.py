"""One writer at a time."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline import lease
from pipeline.failures import Held

HOLD = """
import sys
from pathlib import Path
from pipeline import lease
with lease.hold(Path(sys.argv[1]), "rebuild"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(root: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def refused(root: Path, words: str) -> None:
    with pytest.raises(Held, match=words), lease.hold(root, "rebuild"):
        pytest.fail("two writers")


def test_the_second_is_told_who_holds_it(tmp_path: Path):
    other = holder(tmp_path)
    refused(tmp_path, rf"webtext rebuild` \(process {other.pid} on .*\) for \d+ s")
    other.communicate("")


def test_a_killed_holder_holds_nothing(tmp_path: Path):
    other = holder(tmp_path)
    other.kill()
    other.wait()
    with lease.hold(tmp_path, "rebuild"):
        assert str(os.getpid()) in (tmp_path / "lease.json").read_text()


def test_one_after_the_other(tmp_path: Path):
    for _ in range(2):
        with lease.hold(tmp_path / "new", "train"):
            pass


def test_a_lease_of_days_is_told_in_seconds(tmp_path: Path):
    other = holder(tmp_path)
    owner = json.loads((tmp_path / "lease.json").read_text())
    owner["since"] = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    (tmp_path / "lease.json").write_text(json.dumps(owner))
    refused(tmp_path, r"for 2592\d\d s")
    other.communicate("")


def test_who_was_killed_is_not_named_any_more(tmp_path: Path):
    dead = holder(tmp_path)
    dead.kill()
    dead.communicate()
    other = holder(tmp_path)
    refused(tmp_path, rf"process {other.pid} on")
    other.communicate("")
