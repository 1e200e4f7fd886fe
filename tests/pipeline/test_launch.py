"""What a training is given: tokens that are all there, and GPUs only where they can be used."""

import logging
from pathlib import Path

import pytest

from pipeline import current, launch, torchrun
from pipeline.failures import Damaged
from tests.pipeline import small_run
from training.config import TrainingConfig


@pytest.mark.parametrize(
    "device, there, own, seen, used",
    [
        ("auto", 4, True, 4, 4),
        ("auto", 0, True, 0, 0),
        ("auto", 4, True, 0, 0),  # a torch that is built for CPUs
        ("auto", 4, False, 0, 4),  # a cluster's machines have a torch of their own
        ("cpu", 4, True, 4, 0),
        ("cpu", 4, False, 0, 0),
    ],
)
def test_gpus_are_left_alone_where_they_are_not_wanted_or_of_no_use(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    device: str,
    there: int,
    own: bool,
    seen: int,
    used: int,
):
    monkeypatch.setattr(torchrun, "gpus", lambda: seen)
    with caplog.at_level(logging.WARNING):
        assert launch._gpus(TrainingConfig(device=device), there, own) == used
    assert bool(caplog.messages) == (device == "auto" and used < there)


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_tokens_that_are_not_all_there_are_not_trained_on(tmp_path: Path, damage: str):
    made = small_run.config(tmp_path)
    small_run.rebuild(made)
    folder = current.shards(made).folder
    path = max(folder.glob("*.bin"), key=lambda path: path.stat().st_size)
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-2])
    told = rf"{path}: is .*remove {folder} and run `webtext rebuild`"
    for command in (launch.evaluate, lambda made: launch.train(made, address=None, local=True)):
        with pytest.raises(Damaged, match=told):
            command(made)


@pytest.mark.parametrize(
    "status, said",
    [
        (1, "a rank ended with status 1, see above"),
        (3, "a rank ended with status 3, see above"),
        (137, "a rank, or what starts them, was ended by SIGKILL"),
        (-9, "a rank, or what starts them, was ended by SIGKILL"),
        (143, "a rank, or what starts them, was ended by SIGTERM"),
        (128, "a rank ended with status 128, see above"),
    ],
)
def test_how_ranks_ended_is_said_in_words(status: int, said: str) -> None:
    assert launch._said(status) == said


def test_a_loss_that_cannot_be_kept_is_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    pytest.importorskip("torch", reason="training is an extra")
    given = current.Shards("tokens", tmp_path, "0123")
    monkeypatch.setattr(current, "shards", lambda _: given)
    monkeypatch.setattr(current, "training", lambda *_: tmp_path / "file" / "run")
    monkeypatch.setattr("training.evaluate.evaluate", lambda *_: {"loss": 2.5})
    (tmp_path / "file").touch()  # root may write into any folder
    assert launch.evaluate(small_run.config(tmp_path)) == {"loss": 2.5}
    assert caplog.messages == [
        f"not kept for the report: {tmp_path}/file/run/evaluation.json: Not a directory"
    ]
