import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import distributed as dist

from tests.training import runs
from tests.training.runs import changed, go
from training import checkpoint, course, files, loader, loop, metrics, parts
from training.config import BadInput, GuardConfig, ModelConfig, TrainingConfig
from training.course import Course, NotWhatWasSaved
from training.loop import Line
from training.model import build


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in folder.glob("step-*"))


def test_twenty_steps_are_ten_and_ten(config: TrainingConfig, folder: Path) -> None:
    whole = runs.course(go(config, folder.with_name("whole")))
    assert runs.course(go(changed(config, stop_after=10), folder)) == whole[:10]
    assert runs.course(go(config, folder)) == whole
    assert runs.course(go(config, folder)) == whole  # nothing is left to do


def test_a_checkpoint_says_all_that_the_run_was(config: TrainingConfig, folder: Path) -> None:
    run = runs.plain(config, folder, manifest="0123")
    runs.train(run)
    found = checkpoint.newest(folder)
    assert found is not None
    marker = found.marker
    assert (marker.step, marker.applied, marker.samples) == (20, 20, 160)
    assert (marker.skipped, marker.world, marker.manifest) == ([], 1, "0123")
    assert (marker.zero_stage, marker.tokens) == (1, run.train.identity)
    assert marker.device == (torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")
    assert marker.settings == msgspec.to_builtins(config) and marker.trained == config.trained()
    assert marker.sizes == config.sizes()
    assert marker.probe.ids == run.train.window(0, 16).tolist()
    (name,) = marker.files
    assert marker.files == {name: files.sha256(found.folder / name)}
    state = runs.state(run.engine)
    with parts.opened(found.folder) as read:
        assert all(torch.equal(read(name), tensor) for name, tensor in state.items())


def test_random_numbers_go_on_as_if_never_stopped(config: TrainingConfig, folder: Path) -> None:
    """Of which the model draws none; what a user adds to it may."""

    def drawing(config: TrainingConfig) -> list[float]:
        model, drawn = build(config.sizes(), 1), []
        model.register_forward_hook(lambda *_: drawn.append(float(torch.rand(()))))
        loop.train(runs.plain(config, folder, model))
        return drawn

    torch.manual_seed(5)
    first = drawing(changed(config, stop_after=10, evaluate_every=0))
    expected = float(torch.rand(()))
    torch.manual_seed(99)
    then = drawing(changed(config, stop_after=11, evaluate_every=0))
    # The first pass after a load is the probe's; it draws too, as the last pass of the save did.
    assert len(first) == 41 and len(set(first + then)) == len(first + then)
    assert expected in then[:2]


def held_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Writing stands still until this is called."""
    go, write = threading.Event(), parts.write

    def wait(place: Path, tensors: dict[str, torch.Tensor]) -> str:
        assert go.wait(300)
        return write(place, tensors)

    monkeypatch.setattr(parts, "write", wait)
    return go.set


def test_training_goes_on_while_a_checkpoint_of_its_step_is_written(
    config: TrainingConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = runs.course(go(config, folder.with_name("whole")))
    let, seen = held_up(monkeypatch), []

    def watch(line: Line) -> None:
        if line["step"] == 19:
            seen.extend(steps(folder))
            seen.append(len(list(folder.glob("unfinished-step-000010"))))
            let()

    loop.train(runs.plain(config, folder), watch)
    assert seen == [1]  # nine steps went by, and nothing but an unfinished one was there
    shutil.rmtree(folder / "step-000020")
    assert runs.course(go(config, folder)) == whole


def test_a_checkpoint_is_of_the_step_it_names_though_weights_moved_on(
    config: TrainingConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, let, held = runs.plain(config, folder), held_up(monkeypatch), {}

    def watch(line: Line) -> None:
        if line["step"] == 10:  # told before it is saved
            held.update(runs.state(run.engine))
        if line["step"] == 18:
            let()

    loop.train(run, watch)
    now = runs.state(run.engine)
    with parts.opened(folder / "step-000010") as read:
        assert all(torch.equal(read(name), tensor) for name, tensor in held.items())
        assert not any(torch.equal(read(name), tensor) for name, tensor in now.items())


@pytest.mark.parametrize("name", ["COMPLETE", "part-00000.safetensors"])
def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    config: TrainingConfig, folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    whole = runs.course(go(config, folder))
    path = folder / "step-000020" / name
    path.write_bytes(path.read_bytes()[:-9])
    told: list[int] = []
    loop.train(runs.plain(config, folder), lambda line: told.append(line["step"]))
    assert told == list(range(11, 21))
    assert runs.course(metrics.read(folder)) == whole
    assert "step-000020 is damaged" in caplog.text
    assert steps(folder) == [10, 20] and checkpoint.newest(folder).marker.step == 20  # type: ignore[union-attr]


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(
    config: TrainingConfig, folder: Path
) -> None:
    one = changed(config, keep_checkpoints=1)
    whole = runs.course(go(one, folder))
    (folder / "step-000020" / "COMPLETE").unlink()
    with pytest.raises(BadInput, match=r"no checkpoint of 1 is whole.* to begin anew"):
        go(one, folder)
    assert steps(folder) == [20] and runs.course(metrics.read(folder)) == whole
    (folder / "step-000020").rename(folder / "set-aside")
    assert runs.course(go(one, folder)) == whole


def test_a_save_before_damaged_ones_is_kept(config: TrainingConfig, folder: Path) -> None:
    """Three are damaged, one after the other is saved again."""
    often = changed(config, keep_checkpoints=1, keep_every=5, checkpoint_every=5)
    whole = runs.course(go(often, folder))
    for step in (10, 15, 20):
        (folder / f"step-{step:06d}" / "COMPLETE").unlink()
    go(changed(often, stop_after=7, keep_every=0), folder)
    assert steps(folder) == [7]
    assert runs.course(go(often, folder)) == whole


@pytest.mark.parametrize("tensor", ["weights/wte.weight", "weights/ln_f.bias"])
def test_whole_files_of_other_weights_are_found_out(
    config: TrainingConfig, folder: Path, tensor: str
) -> None:
    go(config, folder)
    found = checkpoint.newest(folder)
    assert found is not None
    place = parts.path(found.folder, 0)
    with parts.opened(found.folder) as read:
        names = [*runs.state(runs.plain(config, folder).engine), "rng/00000/cpu"]
        held = {name: read(name) for name in names}
    held[tensor] = held[tensor].roll(1, 0)
    found.folder.rename(folder / "unfinished-step-000020")
    digest = parts.write(folder / "unfinished-step-000020" / place.name, held)
    marker = msgspec.structs.replace(found.marker, files={place.name: digest})
    checkpoint.seal(folder / "unfinished-step-000020", marker)
    with pytest.raises(NotWhatWasSaved, match=r"step-000020: its probe has loss") as caught:
        course.take_up(runs.plain(config, folder), checkpoint.newest(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "precision", "share", "good"),
    [
        ({}, "fp32", 1e-7, True),
        ({}, "fp32", 2e-6, False),
        ({}, "bf16", 2e-6, False),  # the same sums, rounded in the same way
        ({"world": 2}, "fp32", 5e-5, True),
        ({"zero_stage": 3}, "fp32", 5e-5, True),
        ({"device": "NVIDIA H200"}, "fp32", 5e-5, True),
        ({"manner": {"torch": "2.11"}}, "fp32", 5e-5, True),
        ({"world": 2}, "fp32", 2e-4, False),
        ({"world": 2}, "bf16", 5e-4, True),
        ({"world": 2}, "bf16", 2e-3, False),
    ],
)
def test_a_probe_is_as_exact_as_its_sums(
    config: TrainingConfig,
    folder: Path,
    change: dict[str, Any],
    precision: Any,
    share: float,
    good: bool,
) -> None:
    there = changed(config, precision=precision, stop_after=1, evaluate_every=0)
    go(there, folder)
    found = checkpoint.newest(folder)
    assert found is not None
    probe = msgspec.structs.replace(found.marker.probe, loss=found.marker.probe.loss * (1 + share))
    marker = msgspec.structs.replace(found.marker, probe=probe, **change)
    moved = checkpoint.Checkpoint(found.folder, marker)
    if good:
        assert course.take_up(runs.plain(there, folder), moved).step == 1
    else:
        with pytest.raises(NotWhatWasSaved, match="its probe has loss"):
            course.take_up(runs.plain(there, folder), moved)


@pytest.mark.parametrize(("device", "deterministic", "exact"), [
    ("cpu", False, True), ("NVIDIA H200", True, True), ("NVIDIA H200", False, False),
])  # fmt: skip
def test_a_gpu_that_may_take_other_kernels_is_not_asked_for_the_same_bits(
    config: TrainingConfig,
    folder: Path,
    device: str,
    deterministic: bool,
    exact: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(course, "_device", lambda: device)
    there = changed(config, stop_after=1, evaluate_every=0, deterministic=deterministic)
    go(there, folder)
    found = checkpoint.newest(folder)
    assert found is not None and found.marker.device == device
    probe = msgspec.structs.replace(found.marker.probe, loss=found.marker.probe.loss * 1.00005)
    moved = checkpoint.Checkpoint(found.folder, msgspec.structs.replace(found.marker, probe=probe))
    if exact:
        with pytest.raises(NotWhatWasSaved, match="its probe has loss"):
            course.take_up(runs.plain(there, folder), moved)
    else:
        assert course.take_up(runs.plain(there, folder), moved).step == 1


@pytest.mark.parametrize(
    ("change", "before", "exact"),
    [
        ({"micro_batch": 1}, "bf16", False),  # other shapes
        ({"deterministic": True}, "bf16", False),  # other kernels
        ({"precision": "bf16"}, "fp32", False),
        ({"precision": "fp32"}, "bf16", False),
        ({"recompute": True}, "bf16", True),
        ({"checkpoint_every": 3}, "bf16", True),
    ],
)
def test_a_probe_is_less_exact_where_settings_move_its_sums(
    config: TrainingConfig, folder: Path, change: dict[str, Any], before: Any, exact: bool
) -> None:
    there = changed(config, precision=before, stop_after=1, evaluate_every=0)
    go(there, folder)
    found = checkpoint.newest(folder)
    assert found is not None
    probe = msgspec.structs.replace(found.marker.probe, loss=found.marker.probe.loss * 1.0004)
    moved = checkpoint.Checkpoint(found.folder, msgspec.structs.replace(found.marker, probe=probe))
    run = runs.plain(changed(there, **change), folder)
    if exact:
        with pytest.raises(NotWhatWasSaved, match="its probe has loss"):
            course.take_up(run, moved)
    else:
        assert course.take_up(run, moved).step == 1


def test_a_model_whose_loss_is_no_number_is_not_saved(config: TrainingConfig, folder: Path) -> None:
    """Its steps' losses may be numbers still: they are those before each step."""
    model, quiet = build(config.sizes(), 1), changed(config, evaluate_every=0)
    model.register_forward_hook(
        lambda module, arguments, output: output if torch.is_grad_enabled() else output * torch.nan
    )
    with pytest.raises(course.NoNumber, match=r"step 10: not saved, the loss .* is nan;") as caught:
        go(quiet, folder, model=model)
    assert "\n" not in str(caught.value)
    assert not list(folder.glob("*step*"))
    assert len(go(quiet, folder)) == 20


def test_a_probe_that_is_no_number_is_no_probe(
    config: TrainingConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(config, folder)
    model = build(config.sizes(), 1)
    model.register_forward_hook(lambda module, arguments, output: output * torch.nan)
    with pytest.raises(NotWhatWasSaved, match="loss nan"):
        course.take_up(runs.plain(config, folder, model), checkpoint.newest(folder))


def test_a_fork_goes_on_from_there_with_other_settings(
    config: TrainingConfig, folder: Path
) -> None:
    whole = go(config, folder)
    other, fork = folder.with_name("fork"), str(folder / "step-000010")
    lines = go(changed(config, fork=fork, learning_rate=2e-2, steps=30), other)
    assert [line["step"] for line in lines] == list(range(11, 31))
    # The first is foretold by the same weights on the same batch, at another rate.
    assert (lines[0]["loss"], lines[0]["grad_norm"]) == (whole[10]["loss"], whole[10]["grad_norm"])
    assert lines[0]["lr"] != whole[10]["lr"] and lines[1]["loss"] != whole[11]["loss"]
    found = checkpoint.newest(other)
    assert found is not None and found.marker.applied == 30


def test_a_fork_with_the_same_settings_is_the_same_run(
    config: TrainingConfig, folder: Path
) -> None:
    whole = go(config, folder)
    forked = changed(config, fork=str(folder / "step-000010"))
    other = folder.with_name("fork")
    assert runs.course(go(forked, other)) == runs.course(whole[10:])
    shutil.rmtree(other / "step-000020")  # begins at the fork again, having no other
    assert runs.course(go(forked, other)) == runs.course(whole[10:])


def test_a_stopped_fork_goes_on_from_its_own_checkpoint(
    config: TrainingConfig, folder: Path
) -> None:
    go(config, folder)
    there = changed(config, fork=str(folder / "step-000010"), learning_rate=2e-2)
    whole = runs.course(go(there, folder.with_name("whole")))
    other = folder.with_name("fork")
    go(changed(there, stop_after=15), other)
    shutil.rmtree(folder)  # it needs that no more
    told: list[int] = []
    loop.train(runs.plain(there, other), lambda line: told.append(line["step"]))
    assert told == [16, 17, 18, 19, 20] and runs.course(metrics.read(other)) == whole


def test_a_fork_is_refused_before_anything_is_done(config: TrainingConfig, folder: Path) -> None:
    go(changed(config, stop_after=10), folder)
    wide = ModelConfig(layers=2, heads=2, width=32, context=16, vocabulary=61)
    other = folder.with_name("fork")
    for change in ({"model": wide}, {"stop_after": 10}, {"batch_tokens": 64}):
        with pytest.raises(BadInput, match=r"training\.(model|stop_after|batch_tokens): is .*fork"):
            go(changed(config, fork=str(folder / "step-000010"), **change), other)
    with pytest.raises(BadInput, match="is no whole checkpoint: COMPLETE is missing"):
        go(changed(config, fork=str(folder / "step-000020")), other)
    with pytest.raises(BadInput, match=r"is no checkpoint .*; its newest is .*step-000010$"):
        go(changed(config, fork=str(folder)), other)
    assert not metrics.read(other)


def test_a_fork_leaves_out_the_same_batches_where_they_are_the_same(
    config: TrainingConfig, folder: Path
) -> None:
    folder.mkdir()
    course.write_skipped(folder, [3])
    go(changed(config, stop_after=10), folder)
    other = folder.with_name("fork")

    def left_out(**change: Any) -> set[int]:
        there = changed(config, fork=str(folder / "step-000010"), **change)
        run = runs.plain(there, other)
        return course.take_up(run, course.newest(run)).skipped

    assert left_out(learning_rate=2e-2) == {3}
    assert left_out(seed=2) == set()
    shard = folder.parent / "tokens" / "00002.train.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    assert left_out() == set()


def test_a_rank_takes_what_the_first_has_found_and_looks_at_nothing(
    config: TrainingConfig, folder: Path
) -> None:
    go(changed(config, stop_after=10), folder)
    first = runs.plain(config, folder)
    answers: list[Any] = []

    def agreed(make: Callable[[], Any]) -> Any:
        answers.append(make())
        return answers[-1]

    found = course.newest(runs.plain(config, folder, agreed=agreed))
    assert found == course.newest(first) and found is not None and found.marker.step == 10
    shutil.rmtree(folder / "step-000010")  # as another machine may see it
    assert course.newest(runs.plain(config, folder, agreed=lambda make: answers[0])) == found
    forked = changed(config, fork=str(folder / "step-000010"))
    other = folder.with_name("fork")
    its = (False, found)
    assert course.newest(runs.plain(forked, other, agreed=lambda make: its)) == found


def outcomes(config: TrainingConfig, folder: Path) -> list[list[str]]:
    """On a rank: what each rank gets, where rank 0's disk works, fails, and holds rubbish."""
    run, told, sha256 = runs.zero(config, folder), [], files.sha256
    for state in ("whole", "failing", "damaged", "gone"):
        if dist.get_rank() == 0 and state == "failing":
            files.sha256 = fail
        if dist.get_rank() == 0 and state == "damaged":
            files.sha256 = lambda path: "another"
        if dist.get_rank() == 0 and state == "gone":
            files.sha256 = sha256
            shutil.rmtree(folder / "step-000010")
        try:
            found = course.newest(run)
            told.append(str(found and found.marker.step))
        except (BadInput, OSError) as error:
            told.append(f"{type(error).__name__}: {error}")
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, told)
    return every


def fail(path: Path) -> str:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.slow
def test_every_rank_gets_the_first_ones_checkpoint_or_error(
    config: TrainingConfig, folder: Path
) -> None:
    pytest.importorskip("deepspeed")
    go(changed(config, stop_after=10), folder)
    first, second = runs.ranks(2, outcomes, config, folder)
    assert first == second
    part = folder / "step-000010" / "part-00000.safetensors"
    assert first[:2] == ["10", f"OSError: [Errno 5] Input/output error: '{part}'"]
    assert first[2].startswith(f"BadInput: {folder}: no checkpoint of 1 is whole")
    assert first[3] == "None"


WATCHFUL = GuardConfig(z_score=8.0, window=8, rollback=True)


def spiking(config: TrainingConfig, folder: Path, *numbers: int) -> TrainingConfig:
    """These batches are BAD all over: losses far above the others'."""
    there = changed(runs.flat(config), guard=WATCHFUL)
    for number in numbers:
        runs.put(there, folder.parent / "tokens", number, [runs.BAD] * 15)
    return there


def told(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "spikes.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line) for line in lines]


def read_by(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batches of all steps that are done from here on."""
    read: list[int] = []
    take = loader.Ahead.take

    def note(ahead: loader.Ahead, number: int, then: int) -> Any:
        read.append(number)
        return take(ahead, number, then)

    monkeypatch.setattr(loader.Ahead, "take", note)
    return read


def test_a_spike_takes_the_run_back_and_on_without_its_batch(
    config: TrainingConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = spiking(config, folder, 13)
    read = read_by(folder, monkeypatch)
    lines = go(there, folder)
    assert read == [*range(14), 10, 11, 12, *range(14, 21)]
    assert [line["step"] for line in lines] == list(range(1, 21))
    (spike,) = told(folder)
    assert (spike["step"], spike["batch"]) == (14, 13) and max(spike["z"].values()) > 8
    assert msgspec.json.decode((folder / "skipped.json").read_bytes()) == [13]
    found = checkpoint.newest(folder)
    assert found is not None and found.marker.skipped == [13]
    out = folder.with_name("out")
    out.mkdir()
    course.write_skipped(out, [13])
    assert runs.course(go(there, out)) == runs.course(lines)
    assert not (out / "spikes.jsonl").exists()


def test_two_spikes_one_behind_the_other(
    config: TrainingConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = spiking(config, folder, 12, 13)
    read = read_by(folder, monkeypatch)
    lines = go(there, folder)
    assert read == [*range(13), 10, 11, 13, 10, 11, *range(14, 22)]
    assert [spike["batch"] for spike in told(folder)] == [12, 13]
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert max(line["loss"] for line in lines) < 4.3


def test_a_run_that_spikes_on_and_on_is_ended(config: TrainingConfig, folder: Path) -> None:
    there = spiking(config, folder, 11, 12, 13)
    few = changed(there, guard=msgspec.structs.replace(WATCHFUL, rollbacks=2))
    with pytest.raises(loop.Diverged, match=r"step-000010: 2 batches .* again at batch 13\."):
        go(few, folder)
    assert [spike["batch"] for spike in told(folder)] == [11, 12, 13]
    enough = changed(there, guard=msgspec.structs.replace(WATCHFUL, rollbacks=3))
    assert len(go(enough, folder)) == 20


@pytest.mark.parametrize("stop", [11, 13, 15, 19])
def test_what_was_skipped_stays_so_after_a_stop(
    config: TrainingConfig, folder: Path, stop: int
) -> None:
    there = spiking(config, folder, 13)
    whole = runs.course(go(there, folder.with_name("whole")))
    go(changed(there, stop_after=stop), folder)
    assert runs.course(go(there, folder)) == whole
    assert len(told(folder)) == 1


def test_a_crash_just_after_the_rollback_does_not_meet_the_batch_again(
    config: TrainingConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = spiking(config, folder, 13)
    whole = runs.course(go(there, folder.with_name("whole")))
    write = course.write_skipped

    def crash(place: Path, skipped: Any) -> None:
        write(place, skipped)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "write_skipped", crash)
    with pytest.raises(KeyboardInterrupt):
        go(there, folder)
    monkeypatch.undo()
    assert runs.course(go(there, folder)) == whole
    assert len(told(folder)) == 1


@pytest.mark.parametrize("stop", [9, 11, 13, 15])
def test_a_spike_is_taken_back_though_no_checkpoint_was_due_and_wherever_the_run_was_stopped(
    config: TrainingConfig, folder: Path, stop: int
) -> None:
    late = changed(spiking(config, folder, 13), checkpoint_every=20)
    whole = runs.course(go(late, folder.with_name("whole")))
    assert course.read_skipped(folder.with_name("whole")) == {13}
    go(changed(late, stop_after=stop), folder)
    assert runs.course(go(late, folder)) == whole


@pytest.mark.parametrize("stop", [9, 12, 13])
def test_a_step_that_was_not_applied_is_passed_over_by_the_measure_of_a_resumed_run_too(
    config: TrainingConfig, folder: Path, stop: int
) -> None:
    """A window before the stop there is then one more step to look at."""
    there = spiking(config, folder, 13)
    spoils = runs.BAD + 1
    there = changed(there, model=msgspec.structs.replace(there.sizes(), vocabulary=spoils + 1))
    runs.put(there, folder.parent / "tokens", 8, [spoils])

    def trained(config: TrainingConfig, folder: Path) -> list[Line]:
        return runs.course(go(config, folder, model=runs.unsound(config, spoils)))

    whole = trained(there, folder.with_name("whole"))
    assert whole[-1]["steps_not_applied"] == 1
    assert course.read_skipped(folder.with_name("whole")) == {13}
    trained(changed(there, stop_after=stop), folder)
    assert trained(there, folder) == whole


def test_a_spike_whose_checkpoint_someone_took_away_is_told_and_the_run_goes_on(
    config: TrainingConfig, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = spiking(config, folder, 13)

    def take_away(line: Line) -> None:
        if line["step"] == 13:
            for path in folder.glob("step-*"):
                path.rename(folder / f"away-{path.name}")

    loop.train(runs.plain(there, folder), take_away)
    lines = metrics.read(folder)
    assert "there is no checkpoint to go back to" in caplog.text
    assert lines[13]["loss"] > lines[12]["loss"] + 0.1
    assert [spike["batch"] for spike in told(folder)] == [13]
    assert not (folder / "skipped.json").exists()


def test_without_rollback_a_spike_is_but_told(config: TrainingConfig, folder: Path) -> None:
    there = spiking(config, folder, 13)
    quiet = changed(there, guard=GuardConfig(z_score=8.0, window=8))
    lines = go(quiet, folder)
    blind = changed(there, guard=GuardConfig(z_score=0.0, window=8))
    assert runs.course(go(blind, folder.with_name("blind"))) == runs.course(lines)
    assert [spike["step"] for spike in told(folder)] == [14]
    assert not (folder.with_name("blind") / "spikes.jsonl").exists()


def test_a_new_course_leaves_out_what_was_written_down(
    config: TrainingConfig, folder: Path
) -> None:
    folder.mkdir()
    course.write_skipped(folder, {4, 2})
    assert course.take_up(runs.plain(config, folder), None) == Course(skipped={2, 4})
    assert course.read_skipped(folder.parent) == set()


def test_what_there_is_to_begin_again_from_is_said_as_it_is(
    config: TrainingConfig, folder: Path
) -> None:
    assert course.kept(folder) == "there was no checkpoint yet"
    go(config, folder)
    assert course.kept(folder) == f"{folder} keeps the last checkpoint before it"
