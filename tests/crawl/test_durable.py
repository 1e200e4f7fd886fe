"""What the ledger holds is on the disk, not only on its way there: a power cut takes none of it."""

import concurrent.futures
import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from crawl import observations, segments
from crawl.config import CrawlConfig
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


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """No segment gets to its place before this is set."""
    on_its_way = threading.Event()
    finish = segments.finish

    def slow(*args: Any, **named: Any) -> None:
        on_its_way.wait()
        finish(*args, **named)

    monkeypatch.setattr(segments, "finish", slow)
    yield on_its_way
    on_its_way.set()


def test_what_is_open_is_synced_while_the_segment_before_is_on_its_way(
    tmp_path: Path, held: threading.Event, synced: Synced
) -> None:
    time = [0.0]
    with Writer(tmp_path, LOW, HIGH, label="live", clock=lambda: time[0]) as writer:
        append(writer, 0)
        time[0] += observations.SEGMENT_S
        writer.tick()
        append(writer, 1)
        assert writer._segment
        path = tmp_path / f"{writer._segment.name}.warc.gz.open"
        for n in (2, 3):
            time[0] += observations.SYNC_S
            append(writer, n)
            assert writer._syncing
            writer._syncing.result()
            assert synced[path.stat().st_ino] == path.stat().st_size
        held.set()
    check(tmp_path, 4)


def test_a_segment_is_gone_on_with_while_the_one_before_is_on_its_way_until_it_is_far_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: threading.Event
) -> None:
    monkeypatch.setattr(observations, "SEGMENT_ROWS", 2)
    waited: list[int] = []

    def wait(some: list[Future[None]]) -> None:
        if some:
            waited.append(writer._segment.rows if writer._segment else 0)
            held.set()
            concurrent.futures.wait(some)

    monkeypatch.setattr(observations, "wait", wait)
    time = [0.0]
    with Writer(tmp_path, LOW, HIGH, label="live", clock=lambda: time[0]) as writer:
        for n in range(8):
            append(writer, n)
            time[0] += observations.SEGMENT_S
        assert waited == []
        append(writer, 8)
        assert waited == [7]
    check(tmp_path, 9)


def test_a_sync_that_fails_is_told_though_its_segment_was_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk tells once that it has lost something: the next sync says nothing of it."""
    time, failed, ended = [0.0], list[int](), threading.Event()
    finish = segments.Segment.finish

    def fail_once(one: int) -> None:
        failed.append(one)
        if len(failed) == 1:
            ended.wait()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def told(*args: Any) -> None:
        ended.set()
        finish(*args)

    monkeypatch.setattr(os, "fsync", fail_once)
    monkeypatch.setattr(segments.Segment, "finish", told)
    writer = Writer(tmp_path, LOW, HIGH, label="live", clock=lambda: time[0])
    append(writer, 0)
    time[0] += observations.SYNC_S
    append(writer, 1)
    with pytest.raises(OSError, match="Input/output"):
        writer.close()
    observations.recover(tmp_path, wait_s=0.0)
    check(tmp_path, 2)


def test_a_segment_stays_below_a_gibibyte() -> None:
    """The last record of one that is far too large included."""
    most = observations.PATIENCE * observations.SEGMENT_BYTES + 10 * CrawlConfig().max_bytes
    assert most < 1 << 30
