"""What a person sees while work runs: bars on a terminal, nothing but lines elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import progress

ROOT = Path(__file__).parents[2]
TRAINING = """
import sys
from pathlib import Path
from pipeline import progress
from training import metrics
folder = Path(sys.argv[1])
with progress.training(folder, 20, told=True), metrics.Writer(folder, 0) as lines:
    for step in range(1, 4):
        lines.write({"step": step, "loss": 9.0 - step, "seconds": 2.0, "tokens_per_s": 1e3})
    (folder / "warnings.log").write_text("a spike\\nhalf of a li")
"""
DATASETS = """
from pipeline import progress
with progress.datasets() as tell:
    for done in range(5):
        tell("pages", done, 4)
"""


def on_a_terminal(code: str, *words: str) -> str:
    """What a program writes on its standard error, where that is a terminal."""
    ours, theirs = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=theirs, cwd=ROOT, env=environment
    ) as process:
        os.close(theirs)
        said = b""
        while chunk := read(ours):
            said += chunk
    os.close(ours)
    assert process.returncode == 0, said
    return said.decode()


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux's word for its end
        return b""


def test_a_terminal_shows_how_far_each_dataset_is() -> None:
    said = on_a_terminal(DATASETS)
    assert "pages" in said and "4/4" in said and "\u2501" in said
    assert "whole" not in said


def test_a_terminal_shows_how_far_the_training_is_and_its_loss(tmp_path: Path) -> None:
    said = on_a_terminal(TRAINING, str(tmp_path))
    assert "training, loss 6.000" in said and "3/20 1,000 tokens/s, 34 s left" in said
    assert "a spike" in said and "half of" not in said


STALE = """
import errno, sys
from pathlib import Path
from pipeline import progress
from training import metrics, status
folder, seen, look = Path(sys.argv[1]), [], status.standing
def stale(folder, now):
    seen.append(now)
    if len(seen) in (2, 3, 4):
        raise OSError(errno.ESTALE, "Stale file handle")
    return look(folder, now)
status.standing, progress.LOOK_S, progress.LINE_S = stale, 0.01, 0.0
with metrics.Writer(folder, 0) as lines:
    lines.write({"step": 7, "loss": 2.0, "seconds": 2.0, "tokens_per_s": 1e3})
with progress.training(folder, 20, told=True):
    while len(seen) < 9: pass
"""


def test_a_disk_that_does_not_answer_once_ends_no_bar(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STALE, str(tmp_path)], capture_output=True, text=True, cwd=ROOT,
        check=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr and "step 7 of" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("more", [{}, {"FORCE_COLOR": "1"}])
def test_a_file_gets_a_line_a_dataset_and_no_bar(more: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DATASETS],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | more,
        check=True,
    )
    assert done.stderr == "pages: whole\n"


READING = """
from pipeline import progress
done = iter([1e9, 1e9, 2e9, 3e9, *[4e9] * 99])
progress.LOOK_S, progress.LINE_S = 0.01, 0.0
with progress.datasets({"submissions": lambda: (int(next(done)), int(4e9))}) as tell:
    tell("submissions", 0, 1)
    while next(done) < 4e9: pass
    tell("submissions", 1, 1)
"""


def test_a_terminal_shows_the_bytes_that_are_read() -> None:
    said = on_a_terminal(READING)
    assert "submissions, read" in said and "4 GB of 4 GB" in said


def test_a_line_says_how_long_a_reader_will_go_on() -> None:
    told = progress.line("submissions", int(1e9), int(2e9), int(4e9), 600.0)
    assert told == "submissions: 2 GB of 4 GB read, 0:20:00 left"
    nothing = progress.line("submissions", int(1e9), int(1e9), int(4e9), 600.0)
    assert nothing == "submissions: 1 GB of 4 GB read"


def test_a_file_gets_a_line_now_and_then_about_what_is_read() -> None:
    done = subprocess.run(
        [sys.executable, "-c", READING], capture_output=True, text=True, cwd=ROOT, check=True
    )
    lines = done.stderr.splitlines()
    assert "submissions: whole" in lines
    assert all(one.startswith("submissions: ") for one in lines)


TAKEN_OVER = """
import time
from pipeline import progress
given, seen = [3e9, 3e9, 3.5e9], []
def read():
    seen.append(given[min(len(seen), 2)])
    return int(seen[-1]), int(4e9)
progress.LOOK_S, progress.LINE_S = 0.01, 0.0
with progress.datasets({"submissions": read}):
    while len(seen) < 3:
        time.sleep(0.01)
"""


def test_what_was_read_before_says_nothing_of_the_pace() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TAKEN_OVER], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stderr.splitlines()[0] == "submissions: 3 GB of 4 GB read"


CRAWLING = """
import sys, time
from pathlib import Path
from crawl import status
from crawl.status import Status
from pipeline import progress
ledger = Path(sys.argv[1])
progress.LOOK_S, progress.LINE_S = 0.01, 0.0
told = {"pages": 7, "left": 3, "pages_per_s": 1.0, "outcomes": {"ok": 7}}
with progress.datasets({}, ledger) as tell:
    tell("pages", 0, 4)
    for state, complaint in (("run", ""), ("pause", ""), ("run", "crawl.toml: bad"), ("stop", "")):
        status.write(ledger, "one", Status(**told, state=state, complaint=complaint))
        time.sleep(0.2)
    status.write(ledger, "one", Status(**told, ended=True))
"""


def test_a_terminal_shows_a_crawl_below_the_bars(tmp_path: Path) -> None:
    said = on_a_terminal(CRAWLING, str(tmp_path))
    assert "7 pages, 3 left, 1.0 pages/s" in said and "3.0 s to go" in said
    assert "0 hosts active, 0 waiting, 0 in flight" in said and "ok 7" in said
    assert "crawl: 7 pages" not in said  # that is for files
    assert "the crawl is paused" in said and "the crawl stops" in said and "crawl.toml: bad" in said


def test_a_file_gets_a_line_now_and_then_about_a_crawl(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRAWLING, str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    assert any(one.startswith("crawl: 7 pages, 3 left, ") and one.endswith("ok 7") for one in lines)
    for told in ("the crawl is paused", "the crawl goes on", "crawl.toml: bad", "the crawl stops"):
        assert sum(one.startswith(told) for one in lines) == 1, lines
    assert "\x1b" not in done.stderr
