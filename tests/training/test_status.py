"""How a training stands is read from its run's folder alone."""

import os
from pathlib import Path

import msgspec
import pytest

from training import checkpoint, files, metrics, refusal, status
from training.config import TrainingConfig


def line(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "loss": 10.0 - step, "tokens_per_s": 1e3, "seconds": 2.0} | more


def run(folder: Path, steps: int, at: float, **more: float) -> None:
    with metrics.Writer(folder, 0) as lines:
        for step in range(1, steps + 1):
            lines.write(line(step, **more))
    os.utime(metrics.path(folder), (at, at))


def test_a_run_says_where_it_is_and_how_long_it_will_go_on(tmp_path: Path) -> None:
    run(tmp_path, 4, at=1000.0, validation_loss=5.5)
    settings = TrainingConfig(steps=100, warmup_steps=1)
    files.write(tmp_path / "settings.json", msgspec.json.encode(settings))
    for step in (2, 4):
        (tmp_path / f"step-{step:06d}").mkdir()
    (tmp_path / "step-000002" / checkpoint.COMPLETE).touch()
    found = status.standing(tmp_path, now=1030.0)
    assert found == status.Standing(
        folder=str(tmp_path), step=4, steps=100, loss=6.0, validation_loss=5.5, tokens_per_s=1e3,
        pace_s=2.0, left_s=96 * 2.0, age_s=30.0, checkpoints=[2], refused=None,
    )  # fmt: skip


def test_a_halted_run_ends_where_it_was_halted(tmp_path: Path) -> None:
    run(tmp_path, 4, at=1000.0)
    halted = TrainingConfig(steps=100, warmup_steps=1, stop_after=10)
    files.write(tmp_path / "settings.json", msgspec.json.encode(halted))
    found = status.standing(tmp_path, now=1000.0)
    assert found is not None and (found.steps, found.left_s) == (10, 12.0)


def test_one_slow_step_does_not_move_the_time_that_is_left(tmp_path: Path) -> None:
    with metrics.Writer(tmp_path, 0) as lines:
        for step in range(1, 6):
            lines.write(line(step, seconds=600.0 if step == 5 else 2.0))
    assert status.pace(metrics.tail(tmp_path, 50)) == 2.0


def test_why_a_run_cannot_go_on_is_told(tmp_path: Path) -> None:
    run(tmp_path, 1, at=1000.0)
    refusal.write(tmp_path, refusal.Refusal(says="the disk is full", input=False))
    found = status.standing(tmp_path, now=1000.0)
    assert found is not None and found.refused == "the disk is full"


def test_runs_stand_in_the_order_in_which_they_did_something(tmp_path: Path) -> None:
    for name, at in (("b", 10.0), ("a", 30.0), ("c", 20.0)):
        run(tmp_path / name, 1, at)
    (tmp_path / "staging").mkdir()
    (tmp_path / "file").touch()
    assert [Path(each.folder).name for each in status.runs(tmp_path, 40.0)] == ["b", "c", "a"]
    assert status.runs(tmp_path / "nowhere", 40.0) == []


@pytest.mark.parametrize("count", [1, 7, 5000])
def test_the_end_of_the_lines_is_read_as_all_of_them_would_be(tmp_path: Path, count: int) -> None:
    run(tmp_path, count, at=0.0)
    for wanted in (1, 7, 50):
        assert metrics.tail(tmp_path, wanted) == metrics.read(tmp_path)[-wanted:]


def test_a_line_cut_short_is_not_the_last(tmp_path: Path) -> None:
    run(tmp_path, 3, at=0.0)
    with metrics.path(tmp_path).open("ab") as file:
        file.write(b'{"step": 4, "lo')
    assert [each["step"] for each in metrics.tail(tmp_path, 2)] == [2, 3]
