"""A rank that hangs ends with its stacks; one that goes on is left alone."""

import faulthandler
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training import watchdog

ROOT = Path(__file__).parents[2]
MINUTES = 300


def child(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that has `folder` to watch over."""
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=MINUTES,
        check=False,
    )


HEAD = """
import ctypes, sys, threading, time
from pathlib import Path
from training import watchdog
folder = Path(sys.argv[1])
"""

IN_PYTHON = """
def stuck_here():
    time.sleep(3600)
"""

IN_C_WITH_THE_LOCK = """
def stuck_here():
    ctypes.PyDLL(None).sleep(3600)
"""

FOR_A_LOCK = """
def stuck_here():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
"""

HANGS = """
def beside():
    threading.Event().wait(3600)

threading.Thread(target=beside, daemon=True).start()
with watchdog.watched(folder, 7, 1.0) as alive:
    alive()
    stuck_here()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [IN_PYTHON, IN_C_WITH_THE_LOCK, FOR_A_LOCK])
def test_a_rank_that_hangs_ends_and_says_where(tmp_path: Path, how: str) -> None:
    """Also where it holds Python's own lock, so that nothing in Python could look."""
    done = child(HEAD + how + HANGS, tmp_path)
    assert done.returncode == 1, done.stderr
    assert watchdog.hung(tmp_path, 0.0) == [tmp_path / "hung-00007.txt"]
    told = (tmp_path / "hung-00007.txt").read_text()
    assert "stuck_here" in told and "beside" in told
    child(HEAD + how + HANGS, tmp_path)
    assert (tmp_path / "hung-00007.txt").read_text().count("in stuck_here") == 2


@pytest.mark.slow
def test_a_rank_that_never_says_that_it_lives_ends(tmp_path: Path) -> None:
    """The first step is watched too."""
    done = child(HEAD + IN_PYTHON + HANGS.replace("    alive()\n", ""), tmp_path)
    assert done.returncode == 1
    assert "stuck_here" in (tmp_path / "hung-00007.txt").read_text()


@pytest.mark.slow
def test_a_rank_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    """For longer than the limit in all, and afterwards; the limit is no matter of a slow machine's
    hiccup."""
    code = """
began, steps = time.monotonic(), 0
with watchdog.watched(folder, 0, 4.0) as alive:
    while time.monotonic() - began < 5:
        time.sleep(0.1)
        alive()
        steps += 1
time.sleep(5)
print(steps > 1, [path.name for path in folder.iterdir()])
"""
    done = child(HEAD + code, tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "True []"), done.stderr


def test_what_says_that_it_lives_begins_the_time_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[float] = []
    later, cancel = faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later

    def record(timeout: float, **rest: object) -> None:
        timers.append(timeout)
        later(timeout, **rest)  # type: ignore[arg-type]

    def forget() -> None:
        timers.append(0.0)
        cancel()

    monkeypatch.setattr(faulthandler, "dump_traceback_later", record)
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", forget)
    with watchdog.watched(tmp_path, 0, 600.0) as alive:
        assert timers == [600.0]
        alive()
        alive()
        assert timers == [600.0] * 3
    assert timers == [600.0] * 3 + [0.0]


def test_no_file_stays_of_a_rank_that_ended(tmp_path: Path) -> None:
    with watchdog.watched(tmp_path, 3, 600.0) as alive:
        alive()
        assert watchdog.path(tmp_path, 3).exists() and watchdog.hung(tmp_path, 0.0) == []
    assert [*tmp_path.iterdir()] == []


def test_no_file_stays_of_a_rank_that_failed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), watchdog.watched(tmp_path, 3, 600.0):
        raise KeyError
    assert [*tmp_path.iterdir()] == []


def test_stacks_of_an_attempt_before_stay_and_are_told_from_new_ones(tmp_path: Path) -> None:
    path = watchdog.path(tmp_path, 3)
    path.write_text("stack")
    os.utime(path, (1000.0, 1000.0))
    with watchdog.watched(tmp_path, 3, 600.0):
        assert path.read_text() == "stack"
    assert watchdog.hung(tmp_path, 1000.0) == [path]
    assert watchdog.hung(tmp_path, 1001.0) == []


def test_zero_seconds_watch_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a timer was set")

    monkeypatch.setattr(faulthandler, "dump_traceback_later", never)
    with watchdog.watched(tmp_path, 0, 0.0) as alive:
        alive()
        assert [*tmp_path.iterdir()] == []


def test_the_longest_time_that_settings_allow_is_one_that_can_be_waited(tmp_path: Path) -> None:
    with watchdog.watched(tmp_path, 0, 1e9) as alive:
        alive()


def test_all_that_hung_is_found_in_the_order_of_ranks(tmp_path: Path) -> None:
    for rank, told in ((11, "stack"), (2, "stack"), (3, "")):
        watchdog.path(tmp_path, rank).write_text(told)
    (tmp_path / "metrics.jsonl").write_text("{}")
    assert watchdog.hung(tmp_path, 0.0) == [watchdog.path(tmp_path, rank) for rank in (2, 11)]
