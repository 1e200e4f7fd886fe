"""Ranks on this machine without Ray: a rank that fails is told by its status."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline import torchrun

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("torch") is None, reason="torch is an extra"),
]
ROOT = Path(__file__).parents[2]
GANG = """
from pathlib import Path
from pipeline import torchrun
print("status", torchrun.run("a_rank", Path("settings"), 2, {}, ask=print))
"""
LEAVES = """
import fcntl, os, pathlib, time
with open("lock", "w") as lock:
    while os.environ["RANK"] == "0" and not pathlib.Path("held").exists():
        time.sleep(0.01)
    fcntl.flock(lock, fcntl.LOCK_EX)  # of the first rank: once the second is gone
    pathlib.Path("held").touch()
    os._exit(77 if os.environ["RANK"] == "1" else 1)
"""
RANK = """
import os, sys
os.write(1, " ".join([os.environ["RANK"], *sys.argv[1:]]).encode() + b"\\n")  # whole, or they mix
sys.exit(3 if os.environ["RANK"] == "1" and FAILS else 0)
"""


@pytest.mark.parametrize("fails", [True, False])
def test_ranks_are_started_and_the_status_is_that_of_the_failed(tmp_path: Path, fails: bool):
    (tmp_path / "a_rank.py").write_text(RANK.replace("FAILS", str(fails)))
    done = subprocess.run(
        [sys.executable, "-c", GANG], capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": "/usr/bin:/bin"}, timeout=120, check=False,
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert said[-1] == f"status {3 if fails else 0}"
    assert "1 settings" in said and (fails or "0 settings" in said)
    # torch warns where no name server answers; its ranks know each other by address.
    assert [line for line in done.stderr.splitlines() if "[c10d]" not in line] == []


def test_a_rank_that_left_with_a_status_of_its_own_says_more_than_one_it_took_with_it(
    tmp_path: Path,
):
    (tmp_path / "a_rank.py").write_text(LEAVES)
    done = subprocess.run(
        [sys.executable, "-c", GANG], capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": "/usr/bin:/bin"}, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "status 77"


ASKED_AT_ONCE = """
import os, signal
from pathlib import Path
from pipeline import torchrun
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    torchrun.run("a_rank", Path("settings"), 2, {}, ask=Path("asked").touch)
except KeyboardInterrupt:
    print("interrupted")
"""
WAITS = """
import pathlib, time
while not pathlib.Path("asked").exists():
    time.sleep(0.01)
"""


def test_what_asks_to_end_while_the_ranks_are_forked_is_heard(tmp_path: Path):
    (tmp_path / "a_rank.py").write_text(WAITS)
    done = subprocess.run(
        [sys.executable, "-c", ASKED_AT_ONCE], capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": "/usr/bin:/bin"}, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["interrupted"], done.stderr
    assert "ignored" not in done.stderr


@pytest.mark.parametrize(
    ("failures", "code"),
    [
        ([(7, 3)], 3),
        ([(7, 1), (7, 76)], 76),  # it left, and so the other lost it
        ([(7, 1), (7, -9)], -9),  # it was killed, and so the other lost it
        ([(7, 1), (7, -15)], 1),  # ended by the launcher, as the first had failed
        ([(7, 1), (37, -9)], 1),
        ([(7, -11), (7, -15), (38, -9)], -11),
        ([(7, -15), (8, -15)], -15),  # somebody else ended them
        ([(7, 1), (8, 1)], 1),
        ([(9, 1), (8, 2), (7, -9)], 2),
    ],
)
def test_of_several_that_failed_the_cause_is_told(failures: list[tuple[int, int]], code: int):
    assert torchrun.telling(failures) == code
