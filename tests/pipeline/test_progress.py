"""What a person sees while work runs: bars on a terminal, nothing but lines elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAINING = """
import sys
from pathlib import Path
from pipeline import progress
from training import metrics
folder = Path(sys.argv[1])
with progress.training(folder / "metrics.jsonl", 20), metrics.Writer(folder, 0) as lines:
    for step in range(1, 4):
        lines.write({"step": step, "loss": 9.0 - step})
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
    assert "training, loss 6.000" in said and "3/20" in said


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
