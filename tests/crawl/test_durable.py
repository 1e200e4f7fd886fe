"""What the ledger holds is on the disk, not only on its way there: a power cut takes none of it."""

import os
from pathlib import Path

import pytest

from crawl import observations, segments
from crawl.observations import Writer

from .test_observations import HIGH, LOW, append, check, rename_on_one_disk

Synced = dict[int, int]
"""Files by their inodes, and how large they were when they were synced last."""


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Synced:
    """What is synced from now on."""
    found: Synced = {}
    fsync = os.fsync

    def told(one: int) -> None:
        stat = os.fstat(one)
        found[stat.st_ino] = stat.st_size
        fsync(one)

    monkeypatch.setattr(os, "fsync", told)
    return found


@pytest.mark.parametrize("disks", ["no journal", "one disk", "two disks", "moved already"])
def test_what_is_recovered_is_synced_before_its_journal_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: Synced, disks: str
) -> None:
    folder = tmp_path / "ledger"
    journal = None if disks == "no journal" else tmp_path / "journal"
    writer = Writer(folder, LOW, HIGH, label="live", journal=journal)
    append(writer, 0)
    writer._segment.abandon()  # type: ignore[union-attr]
    (opened,) = tmp_path.rglob("*.warc.gz.open")
    if disks == "moved already":
        opened.rename(folder / opened.name.removesuffix(".open"))
    else:
        opened.write_bytes(opened.read_bytes() + b"what no line speaks of")
    if disks == "two disks":
        monkeypatch.setattr(Path, "rename", rename_on_one_disk)
    unlink, checked = Path.unlink, []

    def told(path: Path, missing_ok: bool = False) -> None:
        if path.name.endswith(segments.OPEN_JOURNAL):
            (whole,) = folder.glob("*.warc.gz")
            checked.append(synced[whole.stat().st_ino] == whole.stat().st_size)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", told)
    observations.recover(folder, journal=journal, wait_s=0.0)
    assert checked == [True]
    check(folder, 1)
