import itertools
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from training import checkpoint, loop, metrics, tokens
from training.config import BadInput, TrainingConfig
from training.engine import PlainEngine, Step
from training.model import build
from training.schedule import learning_rate


def make(config: TrainingConfig, tokens_folder: Path, folder: Path) -> loop.Run:
    engine = PlainEngine(config, build(config.sizes(), config.seed), torch.device("cpu"))
    train, validation = (tokens.open_split(tokens_folder, s) for s in ("train", "validation"))
    return loop.Run(config, engine, train, validation, folder, clock=lambda: 0.0)


def go(config: TrainingConfig, tokens_folder: Path, folder: Path) -> list[dict[str, Any]]:
    loop.train(make(config, tokens_folder, folder), checkpoint.newest(folder))
    return metrics.read(folder)


def test_the_loss_falls_and_every_step_has_its_line(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    lines = go(msgspec.structs.replace(config, steps=60), tokens_folder, tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, 61))
    assert lines[0]["loss"] > 4.0 and lines[-1]["loss"] < 2.5
    assert lines[0].keys() == {
        "step", "loss", "lr", "grad_norm", "tokens", "tokens_per_s", "seconds",
    }  # fmt: skip
    assert [line["tokens"] for line in lines] == [128 * step for step in range(1, 61)]
    looks = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    assert list(looks) == list(range(5, 61, 5))
    assert looks[60] < looks[5]


def test_twenty_steps_are_ten_and_ten(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    whole = go(config, tokens_folder, tmp_path / "whole")
    halted = msgspec.structs.replace(config, stop_after=10)
    assert go(halted, tokens_folder, tmp_path / "cut") == whole[:10]
    assert go(config, tokens_folder, tmp_path / "cut") == whole
    assert go(config, tokens_folder, tmp_path / "cut") == whole  # nothing is left to do


def test_a_crash_between_checkpoints_repeats_the_same_steps(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    whole = go(config, tokens_folder, tmp_path / "whole")
    run = make(config, tokens_folder, tmp_path / "crash")

    def crash(step: int, loss: float, tokens_per_s: float) -> None:
        if step == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.train(run, None, crash)
    assert len(metrics.read(run.folder)) == 17
    assert go(config, tokens_folder, run.folder) == whole


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = go(config, tokens_folder, tmp_path / "run")
    (tmp_path / "run" / "step-000020" / "weights.pt").write_bytes(b"")
    assert go(config, tokens_folder, tmp_path / "run") == whole
    assert "step-000020 is damaged" in caplog.text
    assert checkpoint.newest(tmp_path / "run").marker.step == 20  # type: ignore[union-attr]


def test_a_save_before_damaged_ones_is_kept(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    one = msgspec.structs.replace(config, keep_checkpoints=1)
    whole = go(one, tokens_folder, tmp_path / "run")
    (tmp_path / "run" / "step-000020" / "COMPLETE").unlink()
    go(msgspec.structs.replace(one, stop_after=5), tokens_folder, tmp_path / "run")
    found = checkpoint.newest(tmp_path / "run")
    assert found is not None and found.marker.step == 5
    assert go(one, tokens_folder, tmp_path / "run") == whole


def test_checkpoints_come_when_due_and_at_the_end(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    often = msgspec.structs.replace(config, checkpoint_every=3, keep_checkpoints=2, stop_after=10)
    go(often, tokens_folder, tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run").glob("*step*"))
    assert names == ["step-000009", "step-000010"]


def test_no_checkpoint_is_sealed_before_its_lines_are_on_the_disk(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, happened = metrics.Writer.sync, []

    def sync(writer: metrics.Writer) -> None:
        lines(writer)
        happened.append(("lines", len(metrics.read(tmp_path))))

    def seal(*arguments: Any, step: int, **rest: Any) -> checkpoint.Checkpoint:
        happened.append(("checkpoint", step))
        return sealed(*arguments, step=step, **rest)

    sealed = checkpoint.seal
    monkeypatch.setattr(metrics.Writer, "sync", sync)
    monkeypatch.setattr(checkpoint, "seal", seal)
    go(config, tokens_folder, tmp_path)
    assert [step for kind, step in happened if kind == "checkpoint"][-1] == 20
    assert happened[::2] == [("lines", step) for _, step in happened[1::2]]


def test_progress_is_told_each_step(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    told: list[tuple[int, float, float]] = []
    short = msgspec.structs.replace(config, stop_after=3)
    loop.train(make(short, tokens_folder, tmp_path), None, lambda *step: told.append(step))
    lines = metrics.read(tmp_path)
    assert told == [(line["step"], line["loss"], line["tokens_per_s"]) for line in lines]


@pytest.mark.parametrize("bad", [Step(float("nan"), 1.0), Step(1.0, float("inf"))])
def test_a_lost_loss_stops_before_it_is_saved(
    config: TrainingConfig,
    tokens_folder: Path,
    tmp_path: Path,
    bad: Step,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = make(config, tokens_folder, tmp_path / "run")
    steps = iter([Step(4.0, 1.0)] * 12 + [bad])
    monkeypatch.setattr(run.engine, "step", lambda *_: next(steps))
    with pytest.raises(loop.Diverged, match=r"step 13: .*training\.learning_rate"):
        loop.train(run, None)
    assert len(metrics.read(run.folder)) == 12
    assert checkpoint.newest(run.folder).marker.step == 10  # type: ignore[union-attr]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_told_and_leaves_the_checkpoint_before(
    config: TrainingConfig,
    tokens_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = go(config, tokens_folder, tmp_path / "whole")
    run = make(config, tokens_folder, tmp_path / "run")
    halted = msgspec.structs.replace(config, stop_after=10)
    go(halted, tokens_folder, run.folder)

    def full(folder: Path) -> None:
        # What torch does on a full disk; a device that is always full stands in for it.
        torch.save(torch.zeros(10**6), "/dev/full")

    monkeypatch.setattr(run.engine, "save", full)
    with pytest.raises(OSError, match=r"could not be written: .*unfinished-step-000020") as caught:
        loop.train(run, checkpoint.newest(run.folder))
    assert "\n" not in str(caught.value)
    assert go(config, tokens_folder, run.folder) == whole


def test_too_few_tokens_are_refused(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    for path in tokens_folder.glob("*.train.bin"):
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(BadInput, match="tokens are fewer than one window"):
        go(config, tokens_folder, tmp_path / "run")


def test_an_id_outside_the_vocabulary_is_refused(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    np.full(3200, 61, "<u2").tofile(tokens_folder / "00003.train.bin")
    with pytest.raises(BadInput, match=r"training\.model\.vocabulary: is 61.*id 61"):
        go(config, tokens_folder, tmp_path / "run")


def test_tokens_made_anew_are_refused_on_resume(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    go(msgspec.structs.replace(config, stop_after=10), tokens_folder, tmp_path / "run")
    np.zeros(100, "<u2").tofile(tokens_folder / "00003.train.bin")
    with pytest.raises(BadInput, match="other tokens"):
        go(config, tokens_folder, tmp_path / "run")


def test_many_epochs_and_no_validation_are_said(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in tokens_folder.glob("*.validation.bin"):
        path.write_bytes(b"")
    many = msgspec.structs.replace(config, steps=1000, stop_after=6)
    with caplog.at_level(logging.WARNING):
        lines = go(many, tokens_folder, tmp_path / "run")
    assert "reads the 3200 tokens 40.2 times" in caplog.text
    assert "no validation loss" in caplog.text
    assert all("validation_loss" not in line for line in lines)


def test_a_line_says_the_rate_of_the_schedule_and_how_fast_the_step_was(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    ticks = itertools.count(0.0, 4.0)
    run = make(msgspec.structs.replace(config, stop_after=3), tokens_folder, tmp_path / "run")
    loop.train(replace(run, clock=lambda: next(ticks)), None)
    lines = metrics.read(run.folder)
    assert [line["lr"] for line in lines] == [learning_rate(step, config) for step in range(3)]
    assert {(line["seconds"], line["tokens_per_s"]) for line in lines} == {(4.0, 128 / 4)}


def test_a_look_reads_no_more_windows_than_the_recipe_says(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    run = make(config, tokens_folder, tmp_path)
    assert run.validation.windows(16) > config.evaluate_windows == 4
    assert [len(inputs) for inputs, _ in loop.validation_batches(run)] == [2, 2]


def test_another_seed_reads_the_windows_in_another_order(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    one, same, other = (
        torch.cat([inputs for inputs, _ in loop.micro_batches(run, 0)])
        for run in (
            make(msgspec.structs.replace(config, seed=seed), tokens_folder, tmp_path)
            for seed in (1, 1, 2)
        )
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
