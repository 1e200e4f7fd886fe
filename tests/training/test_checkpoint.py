import errno
import hashlib
import itertools
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training import checkpoint, files
from training.checkpoint import Checkpoint, Marker, Probe
from training.config import BadInput, GuardConfig, ModelConfig, TrainingConfig

PARTS = ["part-00000.safetensors", "part-00001.safetensors"]


def make(folder: Path, step: int, config: TrainingConfig | None = None) -> Checkpoint:
    unfinished = checkpoint.begin(folder, step)
    for name in PARTS:
        (unfinished / name).write_bytes(name.encode() * step)
    config = config or TrainingConfig()
    marker = Marker(
        step=step,
        applied=step - 1,
        samples=8 * step,
        skipped=[3],
        world=2,
        zero_stage=1,
        device="cpu",
        manner={"torch": "2.11"},
        tokens="abc",
        manifest="def",
        settings=msgspec.to_builtins(config),
        trained=config.trained(),
        sizes=config.sizes(),
        probe=Probe(ids=[1, 2, 3], loss=2.5),
        files={name: files.sha256(unfinished / name) for name in PARTS},
    )
    return checkpoint.seal(unfinished, marker)


def test_the_newest_whole_one_is_found_and_comes_back_as_written(tmp_path: Path) -> None:
    written = [make(tmp_path, step) for step in (9, 999_999, 1_000_000)]
    assert checkpoint.newest(tmp_path) == written[-1]
    assert written[0].folder.name == "step-000009"
    assert written[0].marker.files.keys() == set(PARTS)
    first = checkpoint.forked(str(written[0].folder))
    assert first == written[0] and first.marker.probe.loss == 2.5


def test_no_run_has_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nowhere") is None
    (tmp_path / "step-notes").mkdir()
    assert checkpoint.newest(tmp_path) is None


def test_an_unfinished_one_does_not_count_and_is_begun_anew(tmp_path: Path) -> None:
    whole = make(tmp_path, 10)
    left = checkpoint.begin(tmp_path, 20)
    (left / "rubbish").write_bytes(b"half")
    assert checkpoint.newest(tmp_path) == whole
    assert list(checkpoint.begin(tmp_path, 20).iterdir()) == []


def damage_bit(folder: Path) -> str:
    content = bytearray((folder / PARTS[1]).read_bytes())
    content[7] ^= 4
    (folder / PARTS[1]).write_bytes(content)
    return PARTS[1]


def damage_cut(folder: Path) -> str:
    (folder / PARTS[0]).write_bytes((folder / PARTS[0]).read_bytes()[:-1])
    return PARTS[0]


def damage_missing(folder: Path) -> str:
    (folder / PARTS[0]).unlink()
    return PARTS[0]


def damage_extra(folder: Path) -> str:
    (folder / "part-00002.safetensors").write_bytes(b"of another world")
    return "part-00002"


def damage_marker(folder: Path) -> str:
    (folder / "COMPLETE").write_bytes((folder / "COMPLETE").read_bytes()[:-20])
    return "damaged"


def damage_marker_bit(folder: Path) -> str:
    said = (folder / "COMPLETE").read_text()
    assert '"loss": 2.5' in said
    (folder / "COMPLETE").write_text(said.replace('"loss": 2.5', '"loss": 2.1'))
    return "COMPLETE"


def damage_no_marker(folder: Path) -> str:
    (folder / "COMPLETE").unlink()
    return "COMPLETE"


def damage_file(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.write_bytes(b"no folder")
    return "COMPLETE"


def told(folder: Path) -> Any:
    """What COMPLETE says."""
    return msgspec.json.decode((folder / "COMPLETE").read_bytes()[: -len("sha256 \n") - 64])


def tell(folder: Path, said: Any) -> None:
    """Let COMPLETE say that, as if it had been written so."""
    content = msgspec.json.encode(said) + b"\n"
    digest = f"sha256 {hashlib.sha256(content).hexdigest()}\n"
    (folder / "COMPLETE").write_bytes(content + digest.encode())


def damage_meaning(folder: Path) -> str:
    tell(folder, told(folder) | {"step": "many"})
    return "COMPLETE is not what this version writes"


DAMAGES = [
    damage_bit, damage_cut, damage_missing, damage_extra, damage_marker, damage_marker_bit,
    damage_no_marker, damage_file, damage_meaning,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], str]
) -> None:
    before, last = make(tmp_path, 10), make(tmp_path, 20)
    word = damage(last.folder)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.newest(tmp_path) == before
    assert str(last.folder) in caplog.text and word in caplog.text
    with pytest.raises(BadInput, match=r"training\.fork: .*step-000020 is no whole") as caught:
        checkpoint.forked(str(last.folder))
    assert "\n" not in str(caught.value)
    assert make(tmp_path, 20) == checkpoint.newest(tmp_path)


def fail_to(what: str, folder: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the disk fail at that; where it does."""
    error = OSError(code, os.strerror(code))  # of a read: it names no file
    places = {"list": folder, "walk": folder / "step-000020", "open": folder / "step-000020" / what}
    place = places.get(what, places["open"])
    scandir, listdir, opens = os.scandir, os.listdir, Path.open

    def at(path: Any, how: Callable[..., Any], *more: Any, **named: Any) -> Any:
        if Path(path) == place:
            raise error
        return how(path, *more, **named)

    if what == "walk":
        monkeypatch.setattr(os, "scandir", lambda path=".": at(path, scandir))
    elif what == "list":
        monkeypatch.setattr(os, "listdir", lambda path=".": at(path, listdir))
    else:
        monkeypatch.setattr(Path, "open", lambda path, *args, **kw: at(path, opens, *args, **kw))
    return place


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("what", ["list", "walk", "COMPLETE", PARTS[1]])
def test_a_disk_that_fails_is_no_damage_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, code: int
) -> None:
    last = [make(tmp_path, step) for step in (10, 20)][1]
    place = fail_to(what, tmp_path, code, monkeypatch)
    for look in (checkpoint.newest, checkpoint.resume):
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            look(tmp_path)
        assert caught.value.errno == code
        assert what == "list" or caught.value.filename == str(place)
    if what != "list":
        with pytest.raises(OSError, match=os.strerror(code)):  # not BadInput: it may pass
            checkpoint.forked(str(last.folder))
    monkeypatch.undo()
    assert checkpoint.resume(tmp_path) == last
    assert names(tmp_path) == ["step-000010", "step-000020"]


def test_one_of_a_later_version_is_read(tmp_path: Path) -> None:
    whole = make(tmp_path, 10)
    said = told(whole.folder)
    said["settings"]["of_next_year"] = said["of_next_year"] = 1
    tell(whole.folder, said)
    found = checkpoint.newest(tmp_path)
    assert found is not None and found.marker.step == 10
    assert found.marker.settings == whole.marker.settings | {"of_next_year": 1}


@settings(max_examples=300)
@given(st.data())
def test_no_bit_of_any_file_can_change_unseen(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        whole = make(Path(folder), 10)
        path = data.draw(st.sampled_from(sorted(whole.folder.iterdir())))
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        assert checkpoint.newest(folder) is None


def test_the_newest_are_kept_and_what_crashes_left_goes(tmp_path: Path) -> None:
    for step in range(1, 6):
        make(tmp_path, step)
    checkpoint.begin(tmp_path, 99)
    (tmp_path / "metrics.jsonl").write_text("")
    checkpoint.prune(tmp_path, 2, step=5)
    assert names(tmp_path) == ["metrics.jsonl", "step-000004", "step-000005"]


@given(st.integers(1, 5), st.integers(0, 5), st.lists(st.integers(1, 40), min_size=1, unique=True))
def test_kept_are_the_newest_and_those_that_are_kept_for_good(
    keep: int, every: int, steps: list[int]
) -> None:
    with TemporaryDirectory() as folder:
        for step in sorted(steps):
            checkpoint.begin(Path(folder), step).rename(Path(folder) / f"step-{step:06d}")
            checkpoint.prune(Path(folder), keep, step, every)
        good = {step for step in steps if every and step % every == 0}
        kept = good | set(sorted(steps)[-keep:])
        assert names(Path(folder)) == [f"step-{step:06d}" for step in sorted(kept)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_later_ones_never_push_out_good_ones(tmp_path: Path, keep: int) -> None:
    for step in (10, 20, 30):
        make(tmp_path, step)
    damage_bit(tmp_path / "step-000020")
    damage_no_marker(tmp_path / "step-000030")
    saved = make(tmp_path, 15)
    checkpoint.prune(tmp_path, keep, step=15)
    assert checkpoint.newest(tmp_path) == saved
    left = ["step-000010", "step-000015", "step-000020", "step-000030"]
    assert names(tmp_path) == left[2 - keep :]


def test_resuming_gives_damaged_ones_another_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = [make(tmp_path, step) for step in (10, 20, 30)]
    assert checkpoint.resume(tmp_path) == good[2]
    damage_bit(good[1].folder)
    damage_bit(good[2].folder)
    assert checkpoint.newest(tmp_path) == good[0]
    assert len(list(tmp_path.glob("step-*"))) == 3  # looking changes nothing
    with caplog.at_level(logging.WARNING):
        assert checkpoint.resume(tmp_path) == good[0]
    assert names(tmp_path) == ["damaged-step-000020", "damaged-step-000030", "step-000010"]
    assert f"{good[1].folder} is now damaged-step-000020" in caplog.text
    damage_bit(make(tmp_path, 20).folder)
    checkpoint.resume(tmp_path)
    assert names(tmp_path)[:2] == ["damaged-step-000020", "damaged-step-000020-2"]


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_left_as_it_is(
    tmp_path: Path,
) -> None:
    damage_marker(make(tmp_path, 10).folder)
    damage_missing(make(tmp_path, 20).folder)
    with pytest.raises(BadInput, match="no checkpoint of 2 is whole") as caught:
        checkpoint.resume(tmp_path)
    for part in (str(tmp_path), f"step-000020, {PARTS[0]} is missing", "move all step-* away"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["step-000010", "step-000020"]
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.resume(tmp_path / "nowhere") is None


def test_what_is_sealed_is_on_the_disk_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, bool]] = []
    final = tmp_path / "step-000003"

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, final.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    make(tmp_path, 3)
    # The ranks have synced their parts before they told of them.
    both = {path.stat().st_ino for path in (final, final / "COMPLETE")}
    assert both == {inode for inode, named in synced if not named}
    assert synced[-1] == (tmp_path.stat().st_ino, True)


def test_a_second_gang_waits_then_is_refused_in_one_line(tmp_path: Path) -> None:
    waits: list[float] = []
    with (
        checkpoint.hold(tmp_path / "run"),
        pytest.raises(BadInput, match="run: another training") as caught,
        checkpoint.hold(tmp_path / "run", sleep=waits.append),
    ):
        pytest.fail("two hold it")
    assert waits == [1.0] * 180
    assert "\n" not in str(caught.value)


def test_a_gang_that_ends_while_another_waits_gives_it_the_folder(tmp_path: Path) -> None:
    first: Any = checkpoint.hold(tmp_path)
    first.__enter__()
    with checkpoint.hold(tmp_path, sleep=lambda _: first.__exit__(None, None, None)):
        pass
    with checkpoint.hold(tmp_path, wait_s=0):
        pass


def test_what_killed_ones_had_begun_to_write_goes_with_the_next_hold(tmp_path: Path) -> None:
    began = time.time() - 2 * 3600
    (tmp_path / ".notes.tmp").touch()  # a user's
    os.utime(tmp_path / ".notes.tmp", (began, began))
    for name, old in (("metrics.jsonl", True), ("fits.json", False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "unlink", lambda *_, **__: None)  # killed: nothing is undone
            patch.setattr(Path, "replace", fail_with(errno.EIO))
            with pytest.raises(OSError, match="output error"):
                files.write(tmp_path / name, b"half")
        if old:
            (left,) = tmp_path.glob(f".{name}.*")
            os.utime(left, (began, began))
    with checkpoint.hold(tmp_path), pytest.raises(BadInput), checkpoint.hold(tmp_path, wait_s=0):
        pytest.fail("two hold it")
    # A file that another rank writes at this moment is young.
    assert [name.split(".")[1] for name in names(tmp_path)[:-1]] == ["fits", "notes"]


def fail_with(code: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_only_who_holds_the_folder_clears_it(tmp_path: Path) -> None:
    left = tmp_path / ".fits.json.7-0a1b2c3d.tmp"
    with checkpoint.hold(tmp_path):
        left.touch()
        os.utime(left, (0, 0))
        with pytest.raises(BadInput), checkpoint.hold(tmp_path, wait_s=0):
            pytest.fail("two hold it")
        assert left.exists()
    with checkpoint.hold(tmp_path):
        assert not left.exists()


def test_the_run_folder_follows_what_is_trained_on_what(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainingConfig()
    here = checkpoint.run_folder("/runs", config, "tokens-1")
    assert here.parent == Path("/runs")
    same = msgspec.structs.replace(config, stop_after=5, zero_stage=3, ranks=2, keep_checkpoints=9)
    assert checkpoint.run_folder("/runs", same, "tokens-1") == here
    assert checkpoint.run_folder("/runs", config, "tokens-2") != here
    for change in ({"seed": 2}, {"learning_rate": 1e-3}, {"steps": 20_000}, {"clip": 0.5}):
        changed = msgspec.structs.replace(config, **change)
        assert checkpoint.run_folder("/runs", changed, "tokens-1") != here
    monkeypatch.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
    assert checkpoint.run_folder("/runs", config, "tokens-1") != here


@pytest.mark.parametrize(
    ("change", "tokens", "part"),
    [
        ({"learning_rate": 1e-3}, "abc", r"training\.learning_rate: is 0.001.*training\.fork=/"),
        # a fork could not have another of these
        (
            {"model": ModelConfig(layers=1, heads=1, width=8)},
            "abc",
            r"training\.model.* move it away$",
        ),
        ({"batch_tokens": 1024}, "abc", r"training\.batch_tokens: is 1024.*; move it away$"),
        ({"guard": GuardConfig(rollback=True)}, "abc", r"training\.guard"),
        ({}, "def", "other tokens"),
    ],
)
def test_what_cannot_go_on_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, object], tokens: str, part: str
) -> None:
    found = make(tmp_path, 10)
    config = msgspec.structs.replace(TrainingConfig(), **change)
    with pytest.raises(BadInput, match=part) as caught:
        checkpoint.refuse_foreign(found, config, tokens=tokens)
    assert "\n" not in str(caught.value)


def test_a_changed_rhythm_stage_or_number_of_ranks_may_go_on(tmp_path: Path) -> None:
    config = TrainingConfig(
        checkpoint_every=7, stop_after=40, evaluate_every=0, zero_stage=3, ranks=5, micro_batch=1,
        offload_optimizer=True, recompute=True, guard=GuardConfig(z_score=0.0, skips=9),
    )  # fmt: skip
    checkpoint.refuse_foreign(make(tmp_path, 10), config, tokens="abc")


@pytest.mark.parametrize("side", ["trained", "mine"])
def test_a_setting_that_one_version_has_counts_by_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    found = make(tmp_path, 10)
    marker = found.marker
    assert marker.trained["clip"] == 1.0
    older = {name: value for name, value in marker.trained.items() if name != "clip"}
    if side == "trained":  # by a version that had no clip
        old = Checkpoint(found.folder, msgspec.structs.replace(marker, trained=older))
        checkpoint.refuse_foreign(old, TrainingConfig(), tokens="abc")
        with pytest.raises(BadInput, match=r"training\.clip: is 0\.5, .* with 1\.0"):
            checkpoint.refuse_foreign(old, TrainingConfig(clip=0.5), tokens="abc")
    else:
        newer = marker.trained | {"of_next_year": 3}
        new = Checkpoint(found.folder, msgspec.structs.replace(marker, trained=newer))
        with pytest.raises(BadInput, match=r"training\.of_next_year: is None, .* with 3"):
            checkpoint.refuse_foreign(new, TrainingConfig(), tokens="abc")


def test_what_is_but_recorded_refuses_nothing(tmp_path: Path) -> None:
    found = make(tmp_path, 10)
    bare = msgspec.structs.replace(found.marker, settings={"seed": 7, "of_next_year": 1})
    checkpoint.refuse_foreign(Checkpoint(found.folder, bare), TrainingConfig(), tokens="abc")


def forking(path: Path) -> TrainingConfig:
    return TrainingConfig(fork=str(path), learning_rate=1e-3)


def test_a_fork_counts_by_run_and_step_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And need not be there."""
    step = make(tmp_path / "old" / "run", 10).folder
    before = checkpoint.fingerprint(forking(step), "t")
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new" / "run")
    for place in (
        step,
        tmp_path / "new/run/step-000010",
        Path("step-000010"),
        Path("../run") / step,
    ):
        assert checkpoint.fingerprint(forking(place), "t") == before
    shutil.rmtree(tmp_path / "new" / "run" / "step-000010")
    assert checkpoint.fingerprint(forking(step), "t") == before
    others = {
        checkpoint.fingerprint(TrainingConfig(learning_rate=1e-3), "t"),
        checkpoint.fingerprint(forking(step.with_name("step-000020")), "t"),
        checkpoint.fingerprint(forking(tmp_path / "old" / "other" / "step-000010"), "t"),
        checkpoint.fingerprint(forking(step), "u"),
    }
    assert len(others - {before}) == 4


def test_a_run_goes_on_though_what_it_was_forked_from_was_moved(tmp_path: Path) -> None:
    found = make(tmp_path / "run", 20, TrainingConfig(fork="/old/run/step-000010"))
    moved = TrainingConfig(fork="/new/run/step-000010")
    checkpoint.refuse_foreign(found, moved, tokens="abc")


SHORT = {"learning_rate": 1e-3, "warmup_steps": 1}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"model": "gpt2-medium"}, r"training\.model: is .*training\.fork .*step-000010 holds"),
        ({"steps": 10}, r"training\.steps: is 10, but .* has done 10 already"),
        ({"stop_after": 10}, r"training\.stop_after: is 10, but .* has done 10 already"),
        ({"batch_tokens": 1024}, r"training\.batch_tokens: is 1024, but must be 524288 as in .*"),
    ],
)
def test_what_cannot_begin_at_a_fork_is_refused(
    tmp_path: Path, change: dict[str, Any], part: str
) -> None:
    found = make(tmp_path, 10)
    checkpoint.refuse_fork(found, TrainingConfig(**SHORT, steps=11))
    checkpoint.refuse_fork(found, TrainingConfig(**SHORT, stop_after=11))
    with pytest.raises(BadInput, match=part) as caught:
        checkpoint.refuse_fork(found, TrainingConfig(**(SHORT | change)))
    assert "\n" not in str(caught.value)


def test_a_fork_must_be_one_checkpoint(tmp_path: Path) -> None:
    run = [make(tmp_path / "run", step) for step in (10, 20)][1].folder.parent
    (run / "step-000030").touch()
    for refuse in (lambda fork: checkpoint.fingerprint(forking(fork), "t"), checkpoint.forked):
        with pytest.raises(BadInput, match=r"training\.fork: .*run is no checkpoint") as caught:
            refuse(str(run))
        assert str(caught.value).endswith(f"its newest is training.fork={run}/step-000020")
        with pytest.raises(BadInput, match=r"is no checkpoint \(RUN/step-NNNNNN\)$") as caught:
            refuse(str(tmp_path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["nowhere/step-000010", "run/step-000020"])
def test_a_fork_from_nothing_is_refused(tmp_path: Path, place: str) -> None:
    make(tmp_path / "run", 10)
    with pytest.raises(BadInput, match=r"training\.fork: .*is no whole checkpoint") as caught:
        checkpoint.forked(str(tmp_path / place))
    assert "\n" not in str(caught.value)


def read_over_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is deleted while someone there reads it only gets another name."""
    count = itertools.count()

    def unlink(name: Any, *, dir_fd: int | None = None) -> None:
        if str(name).startswith(".nfs"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        os.rename(name, f".nfs{next(count):04}", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)


def test_what_a_reader_still_holds_open_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [make(tmp_path, step) for step in (10, 20, 30)][2]
    (checkpoint.begin(tmp_path, 40) / "rubbish").touch()
    with monkeypatch.context() as patch:
        read_over_nfs(patch)
        checkpoint.prune(tmp_path, 1, step=30)
        assert checkpoint.newest(tmp_path) == kept and checkpoint.steps(tmp_path) == [30]
        assert len(list(tmp_path.glob("unfinished-*/.nfs*"))) == 2 * 3 + 1
        for step in (10, 10, 40):  # gone back to, pruned again
            begun = checkpoint.begin(tmp_path, step)
            assert begun == checkpoint.unfinished_folder(tmp_path, step)
            assert list(begun.iterdir()) == []
            (begun / "rubbish").touch()
        begun.with_name("step-000010").mkdir()
        checkpoint.prune(tmp_path, 1, step=30)
    checkpoint.prune(tmp_path, 1, step=30)
    assert names(tmp_path) == ["step-000030"]


def test_what_is_given_up_takes_no_room_though_it_is_open(tmp_path: Path) -> None:
    unfinished = checkpoint.begin(tmp_path, 5)
    with (unfinished / PARTS[0]).open("wb") as open_still:
        open_still.write(bytes(1 << 20))
        open_still.flush()
        checkpoint.give_up(tmp_path)
        assert os.fstat(open_still.fileno()).st_size == 0
    assert list(tmp_path.iterdir()) == []
    checkpoint.give_up(tmp_path)
