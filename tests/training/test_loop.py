import itertools
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training import runs
from tests.training.runs import changed, go
from training import checkpoint, loop, metrics
from training.config import BadInput, GuardConfig, TrainingConfig
from training.course import NoNumber
from training.loop import Line
from training.model import build
from training.schedule import learning_rate

FIELDS = {
    "step", "loss", "lr", "grad_norm", "tokens", "tokens_per_s", "seconds", "mfu", "memory_bytes",
    "applied", "steps_not_applied", "data_wait_s", "checkpoint_stall_s",
}  # fmt: skip


def test_the_loss_falls_and_every_step_has_its_line(config: TrainingConfig, folder: Path) -> None:
    lines = go(changed(config, steps=60), folder)
    assert [line["step"] for line in lines] == list(range(1, 61))
    assert lines[0]["loss"] > 4.0 and lines[-1]["loss"] < 2.5
    assert lines[0].keys() == FIELDS and lines[4].keys() == FIELDS | {"validation_loss"}
    assert [line["tokens"] for line in lines] == [128 * step for step in range(1, 61)]
    assert all(line["applied"] and not line["steps_not_applied"] for line in lines)
    assert all(2**20 < line["memory_bytes"] < 2**40 for line in lines)
    looks = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    assert list(looks) == list(range(5, 61, 5))
    assert looks[60] < looks[5]


def test_a_line_says_the_rate_of_the_schedule_and_how_fast_the_step_was(
    config: TrainingConfig, folder: Path
) -> None:
    ticks = itertools.count(0.0, 4.0)
    short = changed(config, stop_after=6, checkpoint_every=2, evaluate_every=0)
    lines = go(short, folder, clock=lambda: next(ticks), peak=1000.0)
    assert [line["lr"] for line in lines] == [learning_rate(step, config) for step in range(6)]
    # The clock is asked when the step begins, when its data is there, when it is done.
    assert {(line["seconds"], line["tokens_per_s"]) for line in lines} == {(8.0, 16.0)}
    assert {line["data_wait_s"] for line in lines} == {4.0}
    assert [line["checkpoint_stall_s"] for line in lines] == [0.0, 0.0, 4.0, 0.0, 4.0, 0.0]
    # 6 (weights - positions) + 12 layers width context, by which the model's work is counted
    work = 6 * (config.sizes().parameters() - 16 * 16) + 12 * 2 * 16 * 16
    assert {round(line["mfu"], 6) for line in lines} == {round(16.0 * work / 1000.0, 6)}


def test_no_peak_no_mfu(config: TrainingConfig, folder: Path) -> None:
    assert {line["mfu"] for line in go(changed(config, stop_after=2), folder)} == {None}


@pytest.mark.parametrize("wanted", [True, False])
def test_tensorboard_has_what_the_recipe_asks_for(
    config: TrainingConfig, folder: Path, wanted: bool
) -> None:
    go(changed(config, tensorboard=wanted, stop_after=3), folder)
    files = list(folder.glob("tensorboard/*tfevents*"))
    assert bool(files) == wanted
    assert all(b"grad_norm" in path.read_bytes() for path in files)


def test_progress_is_told_each_step(config: TrainingConfig, folder: Path) -> None:
    told: list[Line] = []
    seen: list[int] = []

    def tell(line: Line) -> None:
        told.append(line)
        seen.append(len(metrics.read(folder)))

    loop.train(runs.plain(changed(config, stop_after=7), folder), tell)
    assert told == metrics.read(folder) and seen == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("micro", [1, 3, 5, 8, 100])
def test_the_micro_batch_does_not_show(config: TrainingConfig, folder: Path, micro: int) -> None:
    expected = go(config, folder)
    run = runs.plain(changed(config, micro_batch=micro), folder.with_name("other"))
    passes = loop.share(run, 0)
    assert len(passes) == -(-8 // min(micro, 8))
    assert {len(inputs) for inputs, _ in passes} == {run.micro}
    assert runs.apart(runs.train(run), expected) < 1e-5


@pytest.mark.parametrize("windows", [1, 2, 4, 7, 1000])
def test_a_look_reads_the_first_windows_each_once(
    config: TrainingConfig, folder: Path, windows: int
) -> None:
    run = runs.plain(changed(config, evaluate_windows=windows), folder)
    count = min(windows, run.validation.windows(16))
    found = torch.cat([targets for _, targets in loop.validation_share(run)]).numpy()
    full = [row for row in found if row[0] >= 0]
    assert np.array_equal(full, [run.validation.window(n, 16)[1:] for n in range(count)])
    assert all((row == -100).all() for row in found[count:])


def test_another_seed_reads_the_windows_in_another_order(
    config: TrainingConfig, folder: Path
) -> None:
    one, same, other = (
        torch.cat([inputs for inputs, _ in loop.share(run, 0)])
        for run in (runs.plain(changed(config, seed=seed), folder) for seed in (1, 1, 2))
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_checkpoints_come_when_due_and_at_the_end(config: TrainingConfig, folder: Path) -> None:
    go(changed(config, checkpoint_every=3, keep_checkpoints=2, stop_after=10), folder)
    assert names(folder) == ["step-000009", "step-000010"]


def test_some_checkpoints_are_kept_for_good(config: TrainingConfig, folder: Path) -> None:
    rhythm = changed(config, checkpoint_every=2, keep_checkpoints=2, keep_every=6)
    go(rhythm, folder)
    assert names(folder) == [f"step-{step:06d}" for step in (6, 12, 18, 20)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*step*"))


def test_asked_to_leave_it_saves_just_there_and_goes_on_bit_for_bit(
    config: TrainingConfig, folder: Path
) -> None:
    whole = runs.course(go(config, folder.with_name("whole")))
    asked = iter([False] * 6 + [True])
    assert not loop.train(runs.plain(config, folder, asked=lambda: next(asked)))
    assert runs.course(metrics.read(folder)) == whole[:7]
    assert names(folder) == ["step-000007"]
    assert loop.train(runs.plain(config, folder))
    assert runs.course(metrics.read(folder)) == whole


def test_asked_at_the_last_step_it_is_done(config: TrainingConfig, folder: Path) -> None:
    short = changed(config, stop_after=3)
    asked = iter([False, False, True])
    assert loop.train(runs.plain(short, folder, asked=lambda: next(asked)))


def test_a_crash_between_checkpoints_repeats_the_same_steps(
    config: TrainingConfig, folder: Path
) -> None:
    whole = runs.course(go(config, folder.with_name("whole")))

    def crash(line: Line) -> None:
        if line["step"] == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.train(runs.plain(config, folder), crash)
    assert len(metrics.read(folder)) == 17
    assert runs.course(go(config, folder)) == whole


def test_no_checkpoint_is_sealed_before_its_lines_are_on_the_disk(
    config: TrainingConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, sealed, happened = metrics.Writer.sync, checkpoint.seal, []

    def sync(writer: metrics.Writer) -> None:
        lines(writer)
        happened.append(("lines", len(metrics.read(folder))))

    def seal(unfinished: Path, marker: checkpoint.Marker) -> checkpoint.Checkpoint:
        happened.append(("checkpoint", marker.step))
        return sealed(unfinished, marker)

    monkeypatch.setattr(metrics.Writer, "sync", sync)
    monkeypatch.setattr(checkpoint, "seal", seal)
    go(config, folder)
    assert happened == [("lines", 10), ("checkpoint", 10), ("lines", 20), ("checkpoint", 20)]


def test_steps_without_a_finite_gradient_change_nothing_and_are_counted(
    config: TrainingConfig, folder: Path
) -> None:
    there = runs.flat(config)
    for number in (5, 6, 9):
        runs.put(there, folder.parent / "tokens", number, [runs.BAD])
    lines = go(there, folder, model=runs.unsound(there))
    lost = [line["step"] for line in lines if not line["applied"]]
    assert lost == [6, 7, 10]
    assert [line["step"] for line in lines if line["grad_norm"] is None] == lost
    assert [line["steps_not_applied"] for line in lines[4:11]] == [0, 1, 2, 2, 2, 3, 3]
    found = checkpoint.newest(folder)
    assert found is not None and (found.marker.step, found.marker.applied) == (20, 17)
    out = folder.with_name("out")
    out.mkdir()
    (out / "skipped.json").write_text("[5, 6, 9]")
    without = go(there, out)
    expected = [line["loss"] for line in without]
    assert [line["loss"] for line in lines if line["applied"]] == expected[:17]


def test_the_count_of_applied_steps_outlives_a_stop(config: TrainingConfig, folder: Path) -> None:
    there = runs.flat(config)
    runs.put(there, folder.parent / "tokens", 5, [runs.BAD])
    whole = go(there, folder.with_name("whole"), model=runs.unsound(there))
    assert whole[5]["grad_norm"] is None
    go(changed(there, stop_after=8), folder, model=runs.unsound(there))
    assert runs.course(go(there, folder, model=runs.unsound(there))) == runs.course(whole)


def test_too_many_such_steps_in_a_row_end_the_run(config: TrainingConfig, folder: Path) -> None:
    there = runs.flat(config, guard=GuardConfig(skips=2))
    for number in (5, 6, 8, 11, 12, 13):
        runs.put(there, folder.parent / "tokens", number, [runs.BAD])
    run = runs.plain(there, folder, runs.unsound(there))
    with pytest.raises(loop.Diverged, match=r"step 14: .*3 steps in a row") as caught:
        loop.train(run)
    assert "\n" not in str(caught.value) and "training.learning_rate" in str(caught.value)
    assert [line["step"] for line in metrics.read(folder) if not line["applied"]] == [
        6, 7, 9, 12, 13,
    ]  # fmt: skip
    assert names(folder) == ["step-000010"]


def test_a_loss_that_is_no_number_ends_the_run_at_once_before_it_is_saved(
    config: TrainingConfig, folder: Path
) -> None:
    often, model = changed(config, checkpoint_every=1), build(config.sizes(), 1)

    def lose(line: Line) -> None:
        if line["step"] == 3:
            with torch.no_grad():
                model.ln_f.bias.fill_(torch.nan)

    with pytest.raises(NoNumber, match=r"step 3: not saved, .* is nan") as caught:
        loop.train(runs.plain(often, folder, model), lose)
    assert str(folder) in str(caught.value)
    assert len(metrics.read(folder)) == 3
    assert [name for name in names(folder) if "step" in name] == ["step-000001", "step-000002"]


def test_too_few_tokens_are_refused(config: TrainingConfig, folder: Path) -> None:
    for path in (folder.parent / "tokens").glob("*.train.bin"):
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(BadInput, match="tokens are fewer than one window"):
        go(config, folder)


def test_an_id_outside_the_vocabulary_is_refused(config: TrainingConfig, folder: Path) -> None:
    np.full(3200, 61, "<u2").tofile(folder.parent / "tokens" / "00003.train.bin")
    with pytest.raises(BadInput, match=r"training\.model\.vocabulary: is 61.*id 61"):
        go(config, folder)


@pytest.mark.parametrize("how", ["shrinks", "goes"])
def test_a_shard_that_cannot_be_read_ends_the_run_in_one_line(
    config: TrainingConfig, folder: Path, how: str
) -> None:
    path = folder.parent / "tokens" / "00002.train.bin"

    def spoil(line: Line) -> None:
        if line["step"] == 3:
            path.unlink() if how == "goes" else os.truncate(path, 1000)

    with pytest.raises(OSError, match=str(path)) as caught:
        loop.train(runs.plain(config, folder), spoil)
    assert "\n" not in str(caught.value)
    assert [line["step"] for line in metrics.read(folder)][:3] == [1, 2, 3]


def test_tokens_made_anew_are_refused_on_resume(config: TrainingConfig, folder: Path) -> None:
    go(changed(config, stop_after=10), folder)
    np.zeros(100, "<u2").tofile(folder.parent / "tokens" / "00003.train.bin")
    with pytest.raises(BadInput, match="other tokens"):
        go(config, folder)


def test_many_epochs_and_no_validation_are_said(
    config: TrainingConfig, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (folder.parent / "tokens").glob("*.validation.bin"):
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        lines = go(changed(config, steps=1000, stop_after=6), folder)
    assert "reads the 3200 tokens 40.2 times" in caplog.text
    assert "no validation loss" in caplog.text
    assert all("validation_loss" not in line for line in lines)


def test_memory_that_is_full_is_told_with_the_micro_batch(
    config: TrainingConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch itself says; tests/training/test_rank.py has a process that runs out of it."""
    run = runs.plain(config, folder)

    def step(*_: Any) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(run.engine, "step", step)
    with pytest.raises(loop.OutOfMemory, match="2 windows at once do not fit") as caught:
        loop.train(run)
    assert caught.value.micro == 2


def test_another_error_is_not_taken_for_full_memory(
    config: TrainingConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.plain(config, folder)

    def step(*_: Any) -> None:
        torch.zeros(2) @ torch.zeros(3)

    monkeypatch.setattr(run.engine, "step", step)
    with pytest.raises(RuntimeError, match="size"):
        loop.train(run)
