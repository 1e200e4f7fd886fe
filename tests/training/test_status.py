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


def test_settings_that_are_damaged_only_leave_unsaid_where_a_run_ends(tmp_path: Path) -> None:
    run(tmp_path, 3, at=0.0)
    for content in (b"", b"{bad", b"[]", b"\xff", b'{"steps": 3, "\xff": 1}'):
        (tmp_path / "settings.json").write_bytes(content)
        found = status.standing(tmp_path, now=1.0)
        assert found is not None and (found.step, found.steps) == (3, 3)


@pytest.mark.parametrize(
    "damage", ["{}", '{"step":2}', '{"step":"2","loss":1}', "torn", "[2]", '{"\udcff":2}']
)
def test_a_damaged_run_is_told_and_hides_no_other(tmp_path: Path, damage: str) -> None:
    for name in ("a", "b", "c"):
        run(tmp_path / name, 3, at=10.0)
    place = metrics.path(tmp_path / "b")
    place.write_bytes(place.read_bytes() + damage.encode(errors="surrogateescape") + b"\n")
    found = {Path(each.folder).name: each for each in status.runs(tmp_path, 40.0)}
    assert {name: each.step for name, each in found.items()} == {"a": 3, "b": 0, "c": 3}
    told = found["b"].refused
    assert told is not None and str(place) in told and "remove that line" in told


def test_a_run_that_did_no_step_says_why_and_one_whose_lines_are_gone_what_it_saved(
    tmp_path: Path,
) -> None:
    refusal.write(tmp_path / "a", refusal.Refusal(says="no", input=True))
    for name in ("b/step-000020", "c/step-000030", "d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "b/step-000020" / checkpoint.COMPLETE).touch()
    settings = TrainingConfig(steps=100, warmup_steps=1)
    files.write(tmp_path / "b/settings.json", msgspec.json.encode(settings))
    found = {Path(each.folder).name: each for each in status.runs(tmp_path, 2e9)}
    assert {name: (each.step, each.steps, each.loss) for name, each in found.items()} == {
        "a": (0, 0, None), "b": (20, 100, None),
    }  # fmt: skip
    assert (found["a"].refused, found["b"].refused) == ("no", None)
    assert found["b"].checkpoints == [20]
