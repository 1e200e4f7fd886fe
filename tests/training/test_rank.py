"""Whole ranks, as whoever starts them sees them: a file that says what, an exit status, a word."""

import errno
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import distributed as dist

from tests import story
from tests.training import runs
from tests.training.runs import changed
from training import checkpoint, fit, leave, loop, metrics, parts, rank, refusal
from training.config import BadInput, ModelConfig, TrainingConfig
from training.leave import AGAIN, SAVED
from training.loop import Line
from training.rank import Job

pytestmark = pytest.mark.slow

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def job(config: TrainingConfig, folder: Path) -> Job:
    return Job(training=config, tokens=str(folder.parent / "tokens"), folder=str(folder))


def written(config: TrainingConfig, folder: Path) -> str:
    path = folder.with_name(f"{folder.name}.json")
    path.write_bytes(msgspec.json.encode(job(config, folder)))
    return str(path)


def plain(config: TrainingConfig, folder: Path) -> list[Line]:
    return runs.train(runs.plain(config, folder.with_name("plain")))


def main(words: list[str], hurried: bool = False) -> tuple[int, str]:
    """On a rank: what `main` answers, and all it said."""
    said = Path(words[0]).with_suffix(f".{dist.get_rank()}.said")
    with said.open("w") as file:
        os.dup2(file.fileno(), 2)
    if hurried:
        hold = checkpoint.hold
        checkpoint.hold = lambda folder: hold(folder, wait_s=0)  # type: ignore[assignment]
    return rank.main(words), said.read_text()


def refused(status: int, said: str) -> str:
    """The one line with which a rank refuses."""
    assert status == 2 and "Traceback" not in said, said
    return said.strip().splitlines()[-1]


def stopping(words: list[str], step: int, how: str) -> tuple[int, int]:
    """On a rank: be asked to leave while it is at that step, and its status."""

    def tell(config: TrainingConfig) -> loop.Progress:
        def told(line: Line) -> None:
            if line["step"] == step and how == "file":
                leave.ask(Path(msgspec.json.decode(Path(words[0]).read_bytes())["folder"]))
            elif line["step"] == step:
                os.kill(os.getpid(), signal.SIGTERM)

        return told

    rank._tell = tell
    before = signal.getsignal(signal.SIGTERM)
    status = rank.main(words)
    assert signal.getsignal(signal.SIGTERM) is before
    return status, dist.get_world_size()


@pytest.mark.parametrize(("how", "world"), [("file", 2), ("signal", 1), ("signal", 2)])
def test_asked_to_leave_ranks_save_and_the_same_goes_on_bit_for_bit(
    config: TrainingConfig, folder: Path, how: str, world: int
) -> None:
    stage = changed(config, zero_stage=2)
    words = [written(stage, folder)]
    assert runs.ranks(world, stopping, words, 7, how) == (SAVED, world)
    assert [path.name for path in folder.glob("*step*")] == ["step-000007"]
    assert len(metrics.read(folder)) == 7
    leave.clear(folder)
    assert runs.ranks(world, main, words)[0] == 0
    whole = [written(stage, folder.with_name("whole"))]
    assert runs.ranks(world, main, whole)[0] == 0
    expected = metrics.read(folder.with_name("whole"))
    assert runs.course(metrics.read(folder)) == runs.course(expected)
    assert runs.apart(expected, plain(stage, folder)) < 1e-4


def told_before(words: list[str], launched: bool) -> tuple[int, str]:
    """On a rank: begin in a folder where something already asks to leave."""
    if launched:
        os.environ[leave.LAUNCHED] = "1"
    return main(words)


@pytest.mark.parametrize("launched", [True, False])
def test_what_asked_to_leave_before_a_rank_began_is_heard_where_its_launcher_has_cleared(
    config: TrainingConfig, folder: Path, launched: bool
) -> None:
    """Else it is the word of a command before this one."""
    leave.ask(folder)
    status, said = runs.ranks(1, told_before, [written(config, folder)], launched)
    steps = len(metrics.read(folder))
    assert (status, steps) == ((SAVED, 1) if launched else (0, 20)), said
    assert ("step 20 of 20" in said) != launched  # our launcher draws a bar


def test_alone_and_with_torchs_launcher_it_trains_and_tells(
    config: TrainingConfig, folder: Path
) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": "/nonexistent"}
    expected = plain(config, folder)
    for name, launcher in (("alone", ()), ("two", LAUNCHER)):
        words = [*launcher, "-m", "training.rank", written(config, folder.with_name(name))]
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, cwd=runs.ROOT,
            env=environment, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "step 20 of 20: loss 3." in done.stderr, done.stderr
        assert runs.apart(metrics.read(folder.with_name(name)), expected) < 1e-4
        found = checkpoint.newest(folder.with_name(name))
        assert found is not None and found.marker.world == (1 if name == "alone" else 2)
    recorded = msgspec.json.decode((folder.with_name("two") / "deepspeed.json").read_bytes())
    assert recorded["zero_optimization"]["stage"] == 1
    assert recorded["gradient_accumulation_steps"] == 2
    settings = (folder.with_name("two") / "settings.json").read_bytes()
    assert msgspec.json.decode(settings, type=TrainingConfig) == config


def test_a_held_folder_is_refused_in_one_line_on_every_rank(
    config: TrainingConfig, folder: Path
) -> None:
    words = [written(config, folder)]
    with checkpoint.hold(folder):
        said = refused(*runs.ranks(2, main, words, True))
    assert said.startswith(f"{folder}: another training has been writing there")
    told = refusal.read(folder)  # for whoever started the ranks
    assert told is not None and told.says == said and told.input
    other = Path(words[0]).with_suffix(".1.said").read_text()
    assert refused(2, other) == said
    assert metrics.read(folder) == []


@pytest.mark.parametrize(("restarts", "status"), [(None, SAVED), ("0", SAVED), ("8", 0)])
def test_a_launcher_that_starts_ranks_again_is_told_that_all_is_well(
    monkeypatch: pytest.MonkeyPatch, restarts: str | None, status: int
) -> None:
    """Else it would start those again that were asked to leave."""
    if restarts is not None:
        monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", restarts)
    assert rank._status_of_leaving() == status


def test_what_the_first_rank_warns_of_is_written_down(tmp_path: Path) -> None:
    log = logging.getLogger("training.loop")
    for number in (0, 1):
        with rank._noted(tmp_path, number):
            log.warning("rank %d: a spike", number)
            log.info("nothing to worry about")
    log.warning("later")
    assert (tmp_path / "warnings.log").read_text() == "rank 0: a spike\n"


def test_a_machine_without_a_compiler_is_told_in_one_line(
    config: TrainingConfig, folder: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "training.rank", written(changed(config, compile=True), folder)],
        env=os.environ | {"CXX": "no-such-compiler", "DS_ACCELERATOR": "cpu"},
        cwd=story.ROOT, capture_output=True, text=True, timeout=story.DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("training.compile: nothing can be compiled here (")
    assert "no-such-compiler" in last and "Traceback" not in done.stderr


def without_room(work: Job) -> str:
    """On a rank: what it says where no model fits."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    rank.build = full
    try:
        rank.run(work)
    except BadInput as error:
        return str(error)
    return ""


def test_a_model_that_does_not_fit_is_refused_in_one_line(
    config: TrainingConfig, folder: Path
) -> None:
    said = runs.ranks(1, without_room, job(config, folder))
    assert said.startswith("training.model: it and its optimizer do not fit") and "\n" not in said
    told = refusal.read(folder)
    assert told is not None and told.says == said and told.input


@pytest.mark.parametrize(("of_input", "status"), [(True, 2), (False, 1)])
def test_a_rank_that_is_started_again_after_a_refusal_does_nothing(
    config: TrainingConfig,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    of_input: bool,
    status: int,
) -> None:
    refusal.write(folder, refusal.Refusal(says="no", input=of_input))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert rank.main([written(config, folder)]) == status
    assert not (folder / "settings.json").exists()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('{"training": {"steps": "many"}, "tokens": "", "folder": ""}', "Expected `int`, got"),
        ("{", "truncated"),
        (None, "No such file"),
    ],
)
def test_a_wrong_job_file_is_refused_in_one_line(
    tmp_path: Path, content: str | None, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "job.json"
    if content is not None:
        path.write_text(content)
    assert rank.main([str(path)]) == 2
    (record,) = caplog.records
    assert part in record.getMessage() and "\n" not in record.getMessage()
    assert str(path) in record.getMessage()
    assert rank.main([]) == 2


def foreign(folder: Path) -> str:
    np.zeros(100, "<u2").tofile(folder.parent / "tokens" / "00003.train.bin")
    return "was trained on other tokens than these"


def few(folder: Path) -> str:
    for path in (folder.parent / "tokens").glob("*.train.bin"):
        path.write_bytes(path.read_bytes()[:6])
    return "tokens are fewer than one window of training.model.context 16 + 1"


def none(folder: Path) -> str:
    for path in (folder.parent / "tokens").glob("*.bin"):
        path.unlink()
    return "no token files (*.train.bin) there"


def outside(folder: Path) -> str:
    for path in (folder.parent / "tokens").glob("*.train.bin"):
        np.full(path.stat().st_size // 2, 70, "<u2").tofile(path)
    (folder / "step-000010").rename(folder / "set-aside")
    return "training.model.vocabulary: is 61, but the tokens hold id 70"


@pytest.mark.parametrize("spoil", [foreign, few, none, outside])
def test_tokens_that_do_not_fit_are_refused_in_one_line(
    config: TrainingConfig, folder: Path, spoil: Callable[[Path], str]
) -> None:
    runs.train(runs.plain(changed(config, stop_after=10), folder))
    part = spoil(folder)
    said = refused(*runs.ranks(1, main, [written(config, folder)]))
    assert part in said
    told = refusal.read(folder)
    assert told is not None and told.says == said and told.input


def lost(words: list[str]) -> tuple[int, str]:
    """On a rank: train a model whose loss is no number."""
    rank.build = lambda sizes, seed: _lost(runs.build(sizes, seed))  # type: ignore[assignment]
    return main(words)


def _lost(model: Any) -> Any:
    model.register_forward_hook(lambda module, arguments, output: output * float("nan"))
    return model


def test_a_lost_loss_is_a_failure_that_is_written_down(
    config: TrainingConfig, folder: Path
) -> None:
    status, said = runs.ranks(2, lost, [written(config, folder)])
    assert status == 1 and "Traceback" not in said
    told = refusal.read(folder)
    assert told is not None and told.says.startswith("step 1: loss nan") and not told.input
    assert told.says.endswith("; there was no checkpoint yet")


ONE_CONFINED = """
import os, sys
from tests.training.test_rank import confine
from training import rank
if os.environ["RANK"] == "1":
    confine(900 << 20)
rank._end(rank.main(sys.argv[1:]))
"""
LARGE = ModelConfig(layers=4, heads=2, width=64, context=128, vocabulary=61)


def confine(room: int) -> None:
    """On a rank: have so many bytes more than it has when it begins to train."""
    import resource

    train = loop.train

    def limited(*arguments: Any) -> bool:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + room, resource.RLIM_INFINITY))
        return train(*arguments)

    loop.train = limited


def confined(words: list[str], room: int) -> tuple[int, str]:
    """On a rank: train so."""
    confine(room)
    return main(words)


def roomy(config: TrainingConfig, **change: Any) -> TrainingConfig:
    """256 windows of 128 tokens a step; a pass of all takes some 950 MB, of half of them 750."""
    there = changed(config, model=LARGE, batch_tokens=32768, steps=2, warmup_steps=0)
    return changed(there, **({"micro_batch": 256, "evaluate_every": 0} | change))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are kept on Linux alone")
def test_a_micro_batch_that_does_not_fit_into_the_memory_is_halved(
    config: TrainingConfig, folder: Path
) -> None:
    np.tile(np.arange(60, dtype="<u2"), 600).tofile(folder.parent / "tokens" / "00003.train.bin")
    there = roomy(config)
    words = [written(there, folder)]
    status, said = runs.ranks(1, confined, words, 900 * 2**20)
    assert status == AGAIN and "Traceback" not in said, said
    told = "256 windows at once do not fit into the memory of rank 0; beginning again with 128"
    assert told in said
    assert fit.found(folder, there, 1) == 128 and (folder / "fits.json").exists()
    assert refusal.read(folder) is None
    status, said = runs.ranks(1, confined, words, 900 * 2**20)
    assert status == 0, said
    recorded = msgspec.json.decode((folder / "deepspeed.json").read_bytes())
    assert recorded["train_micro_batch_size_per_gpu"] == 128
    assert recorded["gradient_accumulation_steps"] == 2
    expected = runs.train(runs.plain(there, folder.with_name("plain")))
    assert runs.apart(metrics.read(folder), expected) < 1e-5


def test_an_error_of_a_rank_goes_to_other_processes_as_it_is() -> None:
    found = pickle.loads(pickle.dumps(loop.OutOfMemory(8, 3)))
    assert (found.micro, str(found)) == (8, str(loop.OutOfMemory(8, 3)))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are kept on Linux alone")
def test_two_ranks_of_which_one_has_too_little_memory_both_begin_again(
    config: TrainingConfig, folder: Path
) -> None:
    """The other waits for it within a collective, from which its end takes it."""
    np.tile(np.arange(60, dtype="<u2"), 600).tofile(folder.parent / "tokens" / "00003.train.bin")
    there = roomy(config, batch_tokens=65536, steps=1)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(runs.ROOT)}
    script = folder.with_name("one_confined.py")
    script.write_text(ONE_CONFINED)
    words = ["--standalone", "--nproc-per-node=2", str(script), written(there, folder)]
    statuses = []
    while not statuses or statuses[-1] == AGAIN:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.torchrun", *words], env=environment, cwd=runs.ROOT,
            capture_output=True, text=True, timeout=story.DEADLINE_S, check=False,
        )  # fmt: skip
        statuses.append(done.returncode)
    assert statuses[0] == AGAIN and statuses[-1] == 0, done.stderr
    assert fit.found(folder, there, 2) in (128, 64)
    expected = runs.train(runs.plain(there, folder.with_name("plain")))
    assert runs.apart(metrics.read(folder), expected) < 1e-5


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are kept on Linux alone")
def test_one_window_that_does_not_fit_is_refused(config: TrainingConfig, folder: Path) -> None:
    one = [written(roomy(config, micro_batch=1), folder)]
    said = refused(*runs.ranks(1, confined, one, 120 * 2**20))
    assert said.startswith("training.micro_batch: not even one window fits into the memory")


def test_a_note_of_other_circumstances_is_ignored(config: TrainingConfig, folder: Path) -> None:
    folder.mkdir()
    assert fit.found(folder, config, 2) is None
    assert fit.halve(folder, config, 2, 7) == 3
    assert fit.found(folder, changed(config, steps=30, micro_batch=9), 2) == 3
    assert fit.found(folder, config, 1) is None
    other = msgspec.structs.replace(config.sizes(), layers=3)
    for change in ({"zero_stage": 2}, {"recompute": True}, {"precision": "bf16"}, {"model": other}):
        assert fit.found(folder, changed(config, **change), 2) is None
    with pytest.raises(BadInput, match="not even one window fits"):
        fit.halve(folder, config, 2, 1)


def slow_write(config: TrainingConfig, folder: Path) -> None:
    """On a rank: a checkpoint's second writing stops half-way, for ever."""
    write, seen = parts.write, []

    def half(place: Path, tensors: Any) -> str:
        seen.append(place)
        digest = write(place, tensors)
        if len(seen) == 2:
            os.truncate(place, place.stat().st_size // 2)
            (folder.parent / "half").touch()
            time.sleep(1000)  # until it is killed
        return digest

    parts.write = half
    rank.run(job(config, folder))


@contextmanager
def beside(function: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    """A process that calls it on one rank, while the block runs."""
    context = runs.multiprocessing.get_context("forkserver")
    process = context.Process(target=function, args=arguments)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def test_a_rank_killed_while_it_writes_leaves_the_checkpoint_before(
    config: TrainingConfig, folder: Path
) -> None:
    often = changed(config, checkpoint_every=5)
    with beside(slow_write, often, folder) as process:
        while not (folder.parent / "half").exists():
            assert process.is_alive()
            time.sleep(0.01)  # looks at the disk; nothing is decided by how long it takes
    assert process.exitcode == -signal.SIGKILL
    assert (folder / "unfinished-step-000010").is_dir()
    found = checkpoint.newest(folder)
    assert found is not None and found.marker.step == 5
    assert runs.ranks(1, main, [written(often, folder)])[0] == 0
    assert not list(folder.glob("unfinished*"))
    assert runs.apart(metrics.read(folder), plain(often, folder)) < 1e-4


def test_a_full_disk_is_told_in_one_line_and_leaves_the_checkpoint_before(
    config: TrainingConfig, tokens_folder: Path
) -> None:
    """One checkpoint of 4.6 MB has room there, a second has not."""
    table = ModelConfig(layers=1, heads=2, width=48, context=16, vocabulary=8000)
    there = changed(config, model=table, zero_stage=1)
    with story.disk(tokens_folder.parent / "disk", "7m") as disk:
        path = tokens_folder.parent / "job.json"
        its = Job(training=there, tokens=str(tokens_folder), folder=str(disk / "run"))
        path.write_bytes(msgspec.json.encode(its))
        # Alone: another rank would only tell that this one is gone.
        status, said = runs.ranks(1, main, [str(path)])
        assert status == 1 and "Traceback" not in said, said
        told = refusal.read(disk / "run")
        assert told is not None and not told.input and "\n" not in told.says
        assert told.says.startswith(f"{disk / 'run'}: the disk is full; free some space")
        assert [each.name for each in (disk / "run").glob("*step*")] == ["step-000010"]
        found = checkpoint.newest(disk / "run")
        assert found is not None and found.marker.step == 10


def filled(work: Job, place: str) -> None:
    """On a rank: another disk than the run's is full."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "s3://b/tokens", None, place)

    rank.stage = full
    with pytest.raises(OSError, match="No space left"):
        rank.run(work)


def test_another_disk_that_is_full_is_named_and_costs_nothing_of_the_run(
    config: TrainingConfig, folder: Path
) -> None:
    unfinished = checkpoint.begin(folder, 7)
    runs.ranks(1, filled, job(config, folder), "/scratch/copies")
    told = refusal.read(folder)
    assert told is not None and told.says.startswith("/scratch/copies: the disk is full")
    assert unfinished.exists()
    refusal.clear(folder)
    runs.ranks(1, filled, job(config, folder), str(folder / "staging"))
    told = refusal.read(folder)
    assert told is not None and told.says.startswith(f"{folder}: the disk is full")
    assert not unfinished.exists()


@pytest.mark.parametrize(("name", "content"), [("skipped.json", b"{bad"), ("fits.json", b"[]")])
def test_a_damaged_file_of_the_run_is_named_and_refused(
    config: TrainingConfig, folder: Path, name: str, content: bytes
) -> None:
    folder.mkdir()
    (folder / name).write_bytes(content)
    said = refused(*runs.ranks(2, main, [written(config, folder)]))
    assert said.startswith(f"{folder / name} is damaged (") and said.endswith("; remove it")
    told = refusal.read(folder)
    assert told is not None and told.says == said and told.input
