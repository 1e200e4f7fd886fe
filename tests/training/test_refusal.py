"""What one rank writes for whoever started it: whole, or not there."""

import errno
import os
import threading
from pathlib import Path

import pytest

from training import refusal
from training.refusal import Refusal

LOST = Refusal(says="step 3: loss nan", input=False)


def test_what_is_written_is_read_until_it_is_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "not/yet"
    assert refusal.read(folder) is None
    refusal.write(folder, LOST)
    assert refusal.read(folder) == LOST
    refusal.clear(folder)
    refusal.clear(folder)
    assert refusal.read(folder) is None and list(folder.iterdir()) == []


def test_ranks_that_write_at_once_leave_one_whole_word(tmp_path: Path) -> None:
    words = [Refusal(says=str(rank) * 5000, input=True) for rank in range(8)]
    ranks = [threading.Thread(target=refusal.write, args=(tmp_path, word)) for word in words]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert refusal.read(tmp_path) in words
    assert len(list(tmp_path.iterdir())) == 1


def test_a_word_that_did_not_reach_the_disk_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"refused\.json"):
        refusal.write(tmp_path, LOST)
    assert refusal.read(tmp_path) is None and [*tmp_path.iterdir()] == []


def test_a_word_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "refused.json").mkdir()
    with pytest.raises(OSError, match=r"refused\.json"):
        refusal.write(tmp_path, LOST)
    assert [path.name for path in tmp_path.iterdir()] == ["refused.json"]


@pytest.mark.parametrize("refusal_", [LOST, Refusal(says='ä "quoted"\nword', input=True)])
def test_words_come_back_as_they_are(tmp_path: Path, refusal_: Refusal) -> None:
    refusal.write(tmp_path, refusal_)
    assert refusal.read(tmp_path) == refusal_


def test_the_last_word_counts(tmp_path: Path) -> None:
    refusal.write(tmp_path, Refusal(says="before", input=True))
    refusal.write(tmp_path, LOST)
    assert refusal.read(tmp_path) == LOST


@pytest.mark.parametrize("content", [b"", b"{bad", b"[]", b'{"says": "\xff"}'])
def test_a_damaged_word_says_so_and_can_be_forgotten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "refused.json").write_bytes(content)
    found = refusal.read(tmp_path)
    assert found is not None and not found.input
    assert found.says.startswith(f"{tmp_path / 'refused.json'} is damaged")
    refusal.clear(tmp_path)
    assert refusal.read(tmp_path) is None
