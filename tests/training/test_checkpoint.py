import logging
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from training import checkpoint
from training.checkpoint import Checkpoint
from training.config import BadInput, ModelConfig, TrainingConfig


def make(folder: Path, step: int, config: TrainingConfig | None = None) -> Checkpoint:
    unfinished = checkpoint.begin(folder, step)
    (unfinished / "engine").mkdir()
    (unfinished / "engine" / "state").write_bytes(b"moments" * step)
    (unfinished / checkpoint.WEIGHTS).write_bytes(b"weights" * step)
    return checkpoint.seal(
        unfinished, step=step, world=2, tokens="abc", settings=config or TrainingConfig()
    )


def test_the_newest_whole_one_is_found_and_comes_back_as_written(tmp_path: Path) -> None:
    written = [make(tmp_path, step) for step in (9, 999_999, 1_000_000)]
    assert checkpoint.newest(tmp_path) == written[-1]
    assert written[0].folder.name == "step-000009"
    assert written[0].marker.files.keys() == {"engine/state", "weights.pt"}


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
    (folder / "weights.pt").write_bytes(b"x" + (folder / "weights.pt").read_bytes()[1:])
    return "weights.pt"


def damage_missing(folder: Path) -> str:
    (folder / "engine" / "state").unlink()
    return "engine/state"


def damage_marker(folder: Path) -> str:
    (folder / "COMPLETE").write_bytes((folder / "COMPLETE").read_bytes()[:-20])
    return "damaged"


def damage_no_marker(folder: Path) -> str:
    (folder / "COMPLETE").unlink()
    return "COMPLETE"


@pytest.mark.parametrize("damage", [damage_bit, damage_missing, damage_marker, damage_no_marker])
def test_a_damaged_one_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    before, last = make(tmp_path, 10), make(tmp_path, 20)
    word = damage(last.folder)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert checkpoint.newest(tmp_path) == before
    assert str(last.folder) in caplog.text and word in caplog.text
    assert make(tmp_path, 20) == checkpoint.newest(tmp_path)


def test_the_newest_are_kept_and_what_crashes_left_goes(tmp_path: Path) -> None:
    for step in range(1, 6):
        make(tmp_path, step)
    checkpoint.begin(tmp_path, 99)
    (tmp_path / "metrics.jsonl").write_text("")
    checkpoint.prune(tmp_path, 2, step=5)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["metrics.jsonl", "step-000004", "step-000005"]


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


def test_a_run_whose_checkpoints_are_all_damaged_begins_anew(tmp_path: Path) -> None:
    damage_marker(make(tmp_path, 10).folder)
    assert checkpoint.resume(tmp_path) is None
    assert names(tmp_path) == ["damaged-step-000010"]
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
    parts = {path.stat().st_ino for path in (final, *final.rglob("*"))}
    assert len(parts) == 5
    assert parts == {inode for inode, named in synced if not named}
    assert synced[-1] == (tmp_path.stat().st_ino, True)


def test_a_second_gang_waits_then_is_refused_in_one_line(tmp_path: Path) -> None:
    waits: list[float] = []
    with (
        checkpoint.hold(tmp_path / "run"),
        pytest.raises(BadInput, match="run: another training") as caught,
        checkpoint.hold(tmp_path / "run", sleep=waits.append),
    ):
        pytest.fail("two hold it")
    assert waits == [1.0] * 60
    assert "\n" not in str(caught.value)


def test_a_gang_that_ends_while_another_waits_gives_it_the_folder(tmp_path: Path) -> None:
    first: Any = checkpoint.hold(tmp_path)
    first.__enter__()
    with checkpoint.hold(tmp_path, sleep=lambda _: first.__exit__(None, None, None)):
        pass
    with checkpoint.hold(tmp_path, wait_s=0):
        pass


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
    ("change", "world", "tokens", "part"),
    [
        ({"learning_rate": 1e-3}, 2, "abc", r"training\.learning_rate: is 0.001"),
        ({"model": ModelConfig(layers=1, heads=1, width=8)}, 2, "abc", r"training\.model"),
        ({"zero_stage": 2}, 2, "abc", r"training\.zero_stage: is 2.*stage 1"),
        ({}, 4, "abc", r"training\.ranks: is 4.*written by 2 ranks"),
        ({}, 2, "def", "other tokens"),
    ],
)
def test_what_cannot_go_on_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, object], world: int, tokens: str, part: str
) -> None:
    found = make(tmp_path, 10)
    config = msgspec.structs.replace(TrainingConfig(), **change)
    with pytest.raises(BadInput, match=part) as caught:
        checkpoint.refuse_foreign(found, config, world=world, tokens=tokens)
    assert "\n" not in str(caught.value)


def test_a_changed_rhythm_may_go_on(tmp_path: Path) -> None:
    config = TrainingConfig(checkpoint_every=7, stop_after=40, evaluate_every=0)
    checkpoint.refuse_foreign(make(tmp_path, 10), config, world=2, tokens="abc")


def test_what_is_given_up_takes_no_room_though_it_is_open(tmp_path: Path) -> None:
    unfinished = checkpoint.begin(tmp_path, 5)
    (unfinished / "engine").mkdir()
    with (unfinished / "engine/state.pt").open("wb") as open_still:
        open_still.write(bytes(1 << 20))
        open_still.flush()
        checkpoint.give_up(tmp_path)
        assert os.fstat(open_still.fileno()).st_size == 0
    assert list(tmp_path.iterdir()) == []
    checkpoint.give_up(tmp_path)
