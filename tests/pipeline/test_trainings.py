"""What `webtext status` says of trainings, and which tokens a training is given."""

from pathlib import Path

import fsspec
import msgspec
import numpy as np
import pytest

from pipeline import config as settings
from pipeline import current, launch, trainings
from pipeline import status as statuses
from pipeline.failures import BadInput
from tests.pipeline import small_run
from training import metrics
from training.status import Standing

STANDING = Standing(
    folder="root/training/abc", step=120, steps=19073, loss=6.12345, validation_loss=None,
    tokens_per_s=123456.7, pace_s=0.4, left_s=7384.0, age_s=3.0,
    checkpoints=[50, 100], refused=None,
)  # fmt: skip


def test_a_training_that_goes_on_is_told_in_a_line() -> None:
    assert trainings.lines([STANDING]) == [
        "training: step 120 of 19,073, loss 6.123, 123,457 tokens/s, 2 h 3 min left, checkpoints "
        "50, 100; 3.0 s ago; root/training/abc"
    ]


def test_one_that_is_over_has_no_time_left_and_one_that_is_refused_says_why() -> None:
    over = msgspec.structs.replace(
        STANDING, step=19073, validation_loss=6.2, checkpoints=[], refused="the disk is full"
    )
    assert trainings.lines([over]) == [
        "training: step 19,073 of 19,073, loss 6.123 (validation 6.200), 123,457 tokens/s; 3.0 s "
        "ago; root/training/abc",
        "training: cannot go on: the disk is full",
    ]


def recipe(folder: Path, *words: str) -> settings.Config:
    path = folder / "recipe.toml"
    path.write_text(f'root = "{folder}/root"\n')
    return settings.load(str(path), words)


def shards(folder: Path) -> Path:
    folder.mkdir()
    for split in ("train", "validation"):
        np.arange(100, dtype="<u2").tofile(folder / f"00000.{split}.bin")
    return folder


def test_status_of_a_recipe_that_only_trains_needs_no_dumps(tmp_path: Path) -> None:
    made = recipe(tmp_path, f"training.tokens={shards(tmp_path / 'shards')}")
    folder = current.training(made, current.shards(made))
    with metrics.Writer(folder, 0) as lines:
        lines.write({"step": 1, "loss": 9.0, "seconds": 1.0, "tokens_per_s": 1.0})
    (row,) = statuses.rows(made)
    assert (row["dataset"], row["status"]) == ("tokens", "given")
    assert [each["step"] for each in row["training"]] == [1]
    assert str(tmp_path / "shards") in statuses.table([row])


def test_tokens_are_known_by_their_content_wherever_they_lie(tmp_path: Path) -> None:
    one, two = (shards(tmp_path / name) for name in ("one", "two"))
    first, second = (recipe(tmp_path, f"training.tokens={folder}") for folder in (one, two))
    hashes = {current.shards(each).manifest for each in (first, second)}
    assert len(hashes) == 1
    np.arange(1, 101, dtype="<u2").tofile(two / "00000.train.bin")
    assert current.shards(second).manifest not in hashes


def test_a_copy_of_a_runs_tokens_is_those_tokens(tmp_path: Path) -> None:
    made = small_run.config(tmp_path)
    small_run.rebuild(made)
    own = current.shards(made)
    named = msgspec.structs.replace(made.training, tokens=f"file://{own.folder}")
    given = current.shards(msgspec.structs.replace(made, training=named))
    assert (given.manifest, given.folder) == (own.manifest, own.folder)


def test_a_training_is_found_without_its_tokens_where_they_have_a_manifest(tmp_path: Path) -> None:
    """To write a sentence, or to export, nobody need copy them."""
    made = small_run.config(tmp_path)
    small_run.rebuild(made)
    own = current.shards(made)

    def given(tokens: str) -> settings.Config:
        named = msgspec.structs.replace(made.training, tokens=tokens, staging=str(tmp_path / "to"))
        return msgspec.structs.replace(made, training=named)

    wanted = current.training(made, own)
    far = fsspec.filesystem("memory")
    far.pipe(f"{tmp_path}/tokens/manifest.json", (own.folder / "manifest.json").read_bytes())
    assert current.trained(given(f"memory://{tmp_path}/tokens")) == wanted
    assert current.trained(given(str(own.folder))) == current.trained(made) == wanted
    assert not (tmp_path / "to").exists()
    far.pipe(f"{tmp_path}/tokens/manifest.json", b'{"files": [')
    with pytest.raises(ValueError, match="no token files"):
        current.trained(given(f"memory://{tmp_path}/tokens"))
    plain = given(str(shards(tmp_path / "plain")))
    assert current.trained(plain) == current.training(plain, current.shards(plain))


def test_a_run_of_its_own_is_told_where_there_are_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = recipe(tmp_path, f"training.tokens={shards(tmp_path / 'shards')}")
    folder = trainings.folder(made.root)
    launch._tell_others(made, folder / "new")
    assert not caplog.messages
    with metrics.Writer(folder / "old", 0) as lines:
        lines.write({"step": 1, "loss": 9.0, "seconds": 1.0, "tokens_per_s": 1.0})
    launch._tell_others(made, folder / "old")
    assert not caplog.messages
    launch._tell_others(made, folder / "new")
    assert caplog.messages and "the 1 that are there" in caplog.messages[0]


@pytest.mark.parametrize("name", ["tokens", "fork", "staging"])
def test_a_uri_with_a_password_is_refused(tmp_path: Path, name: str) -> None:
    told = f"^training.{name}: a URI must not hold a password"
    with pytest.raises(BadInput, match=told):
        recipe(tmp_path, f"training.{name}=sftp://me:secret@host/tokens")


def test_relative_places_are_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = recipe(tmp_path, "training.tokens=shards", "training.fork=run/step-000010")
    assert made.training.tokens == str(tmp_path / "shards")
    assert made.training.fork == str(tmp_path / "run/step-000010")
    far = recipe(tmp_path, "training.tokens=s3://bucket/tokens")
    assert far.training.tokens == "s3://bucket/tokens"


def test_a_run_without_a_line_is_told_by_what_there_is() -> None:
    bare = msgspec.structs.replace(STANDING, loss=None, tokens_per_s=0.0, pace_s=0.0, left_s=0.0)
    none = msgspec.structs.replace(bare, step=0, steps=0, checkpoints=[], refused="no")
    assert trainings.lines([bare, none]) == [
        "training: step 120 of 19,073, checkpoints 50, 100; 3.0 s ago; root/training/abc",
        "training: step 0 of 0; 3.0 s ago; root/training/abc",
        "training: cannot go on: no",
    ]


def test_other_runs_are_counted_though_they_are_damaged(tmp_path: Path) -> None:
    made = recipe(tmp_path, f"training.tokens={shards(tmp_path / 'shards')}")
    folder = trainings.folder(made.root)
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        (folder / name / "metrics.jsonl").write_text("{}\ntorn\n")
        (folder / name / "refused.json").write_text("{bad")
    assert trainings.others(made.root, folder / "new") == 2
    assert trainings.others(made.root, folder / "two") == 1
    assert trainings.others(str(tmp_path / "nowhere"), folder / "new") == 0
