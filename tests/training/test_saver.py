import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training import files, parts, saver
from training.saver import Saver

Sealed = list[dict[str, str]]


def begin(one: Saver, folder: Path, sealed: Sealed) -> None:
    one.start(folder, {"weights/a": torch.zeros(3)}, sealed.append)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_rank_0_seals_when_all_have_written(tmp_path: Path) -> None:
    sealed: Sealed = []
    with Saver(0, 3) as first, Saver(2, 3) as last:
        begin(first, tmp_path, sealed)
        begin(last, tmp_path, sealed)
        last.wait()
        first.check()
        assert not sealed
        with Saver(1, 3) as other:
            begin(other, tmp_path, sealed)
        first.wait()
        assert sealed == [
            {path.name: files.sha256(path) for path in (parts.path(tmp_path, n) for n in range(3))}
        ]
    assert names(tmp_path) == sorted(sealed[0])  # what the ranks told each other is gone


def held_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Writing stands still until this is called."""
    go, write = threading.Event(), parts.write

    def wait(place: Path, tensors: dict[str, torch.Tensor]) -> str:
        assert go.wait(300)
        return write(place, tensors)

    monkeypatch.setattr(parts, "write", wait)
    return go.set


def test_nothing_waits_for_the_disk_but_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, sealed = held_up(monkeypatch), Sealed()
    with Saver(0, 1) as one:
        begin(one, tmp_path, sealed)
        one.check()
        assert names(tmp_path) == [] and not sealed
        later = threading.Timer(0.05, go)
        later.start()
        begin(one, tmp_path, sealed)
        assert len(sealed) == 1
    assert len(sealed) == 2


@pytest.mark.parametrize("look", ["check", "wait", "start"])
def test_what_a_thread_meets_is_raised_at_the_next_look(tmp_path: Path, look: str) -> None:
    nowhere = tmp_path / "nowhere"
    with Saver(0, 1) as one:
        begin(one, nowhere, [])
        assert one._writing is not None
        one._writing.exception()
        with pytest.raises(FileNotFoundError, match="could not be written"):
            begin(one, tmp_path, []) if look == "start" else getattr(one, look)()


def test_what_is_under_way_is_finished_though_an_error_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, sealed = held_up(monkeypatch), Sealed()
    with pytest.raises(KeyboardInterrupt), Saver(0, 1) as one:
        begin(one, tmp_path, sealed)
        threading.Timer(0.05, go).start()
        raise KeyboardInterrupt
    assert len(sealed) == 1


def test_a_rank_that_is_gone_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "_PATIENCE_S", 0.3)
    sealed: Sealed = []
    with pytest.raises(KeyboardInterrupt), Saver(0, 2) as one:
        begin(one, tmp_path, sealed)
        raise KeyboardInterrupt
    assert not sealed
    assert one._writing is not None
    with pytest.raises(TimeoutError, match="rank 1 has not written its part"):
        one._writing.result()
