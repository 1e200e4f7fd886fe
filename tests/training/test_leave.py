"""How a rank hears that it is to leave."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from training import leave

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def heard() -> Iterator[list[int]]:
    """A handler of someone else's, to which SIGTERM goes where no block hears it."""
    numbers: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


def test_nobody_has_asked_at_first(tmp_path: Path) -> None:
    for rank in (0, 1):
        with leave.asked(tmp_path, rank) as asked:
            assert not asked()


@pytest.mark.parametrize("rank", [0, 1])
def test_any_rank_hears_sigterm_and_does_not_forget_it(
    tmp_path: Path, rank: int, heard: list[int]
) -> None:
    with leave.asked(tmp_path, rank) as asked:
        signal.raise_signal(signal.SIGTERM)
        assert asked() and asked()
        signal.raise_signal(signal.SIGTERM)  # impatience does not kill while it saves
        assert asked()
    assert heard == []


def test_a_signal_of_one_block_is_not_the_next_ones(tmp_path: Path) -> None:
    with leave.asked(tmp_path, 0):
        signal.raise_signal(signal.SIGTERM)
    with leave.asked(tmp_path, 0) as asked:
        assert not asked()


@pytest.mark.parametrize("error", [None, KeyError("mine")])
def test_the_former_handler_comes_back(
    tmp_path: Path, heard: list[int], error: Exception | None
) -> None:
    try:
        with leave.asked(tmp_path, 0):
            if error:
                raise error
    except KeyError as met:
        assert met is error
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


@pytest.mark.parametrize("former", [signal.SIG_DFL, signal.SIG_IGN])
def test_so_do_the_systems_own(tmp_path: Path, former: signal.Handlers) -> None:
    signal.signal(signal.SIGTERM, former)
    with leave.asked(tmp_path, 0):
        pass
    assert signal.getsignal(signal.SIGTERM) == former


def test_only_rank_0_sees_the_file(tmp_path: Path) -> None:
    """The others hear it from rank 0, all of them after the same step."""
    with leave.asked(tmp_path, 0) as first, leave.asked(tmp_path, 1) as second:
        leave.ask(tmp_path)
        assert first() and not second()


def test_a_run_that_has_not_begun_can_be_asked(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    leave.ask(folder)
    leave.ask(folder)
    with leave.asked(folder, 0) as asked:
        assert asked()


def test_what_was_asked_is_forgotten_when_cleared(tmp_path: Path) -> None:
    leave.clear(tmp_path)
    leave.ask(tmp_path)
    leave.clear(tmp_path)
    with leave.asked(tmp_path, 0) as asked:
        assert not asked() and [*tmp_path.iterdir()] == []
    leave.clear(tmp_path / "nowhere")


def test_another_thread_hears_no_signal_but_sees_the_file(tmp_path: Path, heard: list[int]) -> None:
    def work() -> None:
        with leave.asked(tmp_path, 0) as asked:
            os.kill(os.getpid(), signal.SIGTERM)
            assert not asked()
            leave.ask(tmp_path)
            assert asked()

    handler = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
    assert heard == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is handler


def test_the_statuses_are_no_others() -> None:
    """0, 1 and 2 have their meanings, from 128 on are signals."""
    assert leave.SAVED == os.EX_TEMPFAIL
    assert leave.AGAIN not in {0, 1, 2, leave.SAVED} and leave.AGAIN < 128


@pytest.mark.slow
def test_a_process_that_is_told_to_end_gets_to_its_end(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from training import leave
with leave.asked(Path(sys.argv[1]), 1) as asked:
    print("here", flush=True)
    while not asked():
        time.sleep(0.05)
sys.exit(leave.SAVED)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        child.terminate()
        assert child.wait(300) == leave.SAVED
