"""The ledger: killed at any instant, it holds what was durable, once."""

import argparse
import contextlib
import datetime
import errno
import fcntl
import io
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cdxj_indexer.main import CDXJIndexer
from fastwarc.warc import ArchiveIterator
from hypothesis import example, given, settings
from hypothesis import strategies as st
from warcio.checker import Checker

from crawl import capture, observations, segments, warc
from crawl.claims import Held
from crawl.observations import Writer
from crawl.schema import OBSERVATIONS, Observation, PageOutcome

MOMENT = datetime.datetime(2016, 5, 4, 3, 2, 1, 123000, tzinfo=datetime.UTC)
LOW, HIGH = b"\x10" * 16, b"\x20" * 16
ROOT = Path(__file__).parents[2]


def observation(n: int, **changed: Any) -> Observation:
    row = Observation(
        link_id=bytes([0x10 + n]) * 16,
        url_key=f"http://a.com/{n}",
        url=f"http://a.com/{n}",
        outcome=PageOutcome.OK,
        source="live",
        status=200,
        fetched_at=MOMENT,
    )
    return msgspec.structs.replace(row, **changed)


def append(writer: Writer, n: int) -> None:
    body = b"<p>%d" % n * 50
    writer.append(observation(n), writer.archive(exchange(n, body), {"link-id": str(n)}))


def exchange(n: int, body: bytes) -> warc.Exchange:
    request = warc.Request("GET / HTTP/1.1", ())
    return warc.Exchange(f"http://a.com/{n}", MOMENT, warc.Answer(200, "OK", (), body), request)


def check(folder: Path, expected: int) -> None:
    rows = observations.read(folder).to_pylist()
    assert sorted(row["url"] for row in rows) == [f"http://a.com/{n}" for n in range(expected)]
    for row in rows:
        place = warc.Place(row["warc_offset"], row["warc_length"])
        assert warc.digest(warc.read(folder / row["warc_file"], place).body) == row["digest"]
    check_segments(folder)


def check_segments(folder: Path) -> None:
    """Every segment is its three files, sound by others' judgement, and nothing else is there."""
    names = {path.name.removesuffix(".parquet") for path in folder.glob("*.parquet")}
    kinds = (".warc.gz", ".cdxj", ".parquet")
    assert {path.name for path in folder.iterdir()} == {n + kind for n in names for kind in kinds}
    for name in names:
        path = folder / f"{name}.warc.gz"
        checker = Checker(argparse.Namespace(inputs=[str(path)], verbose=False))
        assert checker.process_all() == 0
        first = next(iter(ArchiveIterator(path.open("rb"))))
        assert (first.headers["WARC-Type"], first.headers["WARC-Filename"]) == (
            "warcinfo",
            path.name,
        )
        lines = io.StringIO()
        CDXJIndexer(lines, [str(path)]).process_all()
        index = (folder / f"{name}.cdxj").read_bytes()
        assert index.splitlines() == sorted(index.splitlines())
        assert places(index.decode()) == places(lines.getvalue())


def places(index: str) -> list[tuple[str, ...]]:
    """Offset, length, file and key of each line of an index."""
    said = [(line.split(" ")[0], json.loads(line.split(" ", 2)[2])) for line in index.splitlines()]
    return sorted((one["offset"], one["length"], one["filename"], key) for key, one in said)


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    with Writer(tmp_path, LOW, HIGH, label="live") as writer:
        for n in (2, 0, 1):
            append(writer, n)
        writer.append(observation(3, outcome=PageOutcome.TIMEOUT, status=None))
    rows = observations.read(tmp_path)
    assert rows.schema == OBSERVATIONS
    assert rows["link_id"].to_pylist() == sorted(rows["link_id"].to_pylist())
    assert rows["fetched_at"].to_pylist() == [MOMENT] * 4
    assert rows["warc_file"].to_pylist()[3] is None
    assert {path.name[:17] for path in tmp_path.iterdir()} == {"10101010-20202020"}


def test_nothing_appended_leaves_nothing(tmp_path: Path) -> None:
    with Writer(tmp_path, LOW, HIGH, label="live"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_reader_opens_only_what_overlaps(tmp_path: Path) -> None:
    for low, high, n in ((b"\x10" * 16, b"\x11" * 16, 0), (b"\x12" * 16, b"\x13" * 16, 2)):
        with Writer(tmp_path, low, high, label="live") as writer:
            append(writer, n)
    (one,) = tmp_path.glob("12121212-*.parquet")
    one.write_bytes(b"would fail if it were opened")
    rows = observations.read(tmp_path, b"\x10" * 16, b"\x11" * 16)
    assert rows["url"].to_pylist() == ["http://a.com/0"]


def test_a_segment_ends_when_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "SEGMENT_BYTES", 3000)
    with Writer(tmp_path, LOW, HIGH, label="live") as writer:
        for n in range(6):
            append(writer, n)
    assert len(list(tmp_path.glob("*.parquet"))) > 1
    check(tmp_path, 6)


def abandoned(folder: Path, count: int) -> tuple[bytes, bytes, str]:
    """The files of a segment whose writer died after `count` rows: WARC, journal, name."""
    with Writer(folder, LOW, HIGH, label="live") as writer:
        for n in range(count):
            append(writer, n)
        segment = writer._segment
        assert segment is not None
        name = segment.name
        coded = (folder / f"{name}.warc.gz.open").read_bytes()
        journal = (folder / f"{name}.ndjson.open").read_bytes()
    shutil.rmtree(folder)
    folder.mkdir()
    return coded, journal, name


@given(st.floats(0, 1), st.floats(0, 1))
@example(0.4962790479483795, 0.9861771106692554)  # all of a record but its checksum
@settings(max_examples=60)
def test_a_kill_at_any_byte_keeps_the_whole_rows(of_warc: float, of_journal: float) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "ledger"
        coded, journal, name = abandoned(folder, 4)
        rest = b"\x1f\x8b half a record"
        # the WARC file may be longer than the journal knows, and after a power cut shorter
        coded = coded[: round(of_warc * len(coded))]
        journal = journal[: round(of_journal * len(journal))]
        (folder / f"{name}.warc.gz.open").write_bytes(coded + rest)
        (folder / f"{name}.ndjson.open").write_bytes(journal)
        observations.recover(folder)
        lines = journal.split(b"\n")[:-1]
        ends = [msgspec.json.decode(line)["end"] for line in lines]
        check(folder, sum(end <= len(coded) for end in ends))


@pytest.mark.parametrize("step", ["nothing", "renamed", "parquet"])
def test_a_kill_while_recovering_is_recovered(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ledger"
    coded, journal, name = abandoned(folder, 3)
    (folder / f"{name}.ndjson.open").write_bytes(journal)
    (folder / f"{name}.warc.gz.open").write_bytes(coded)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    broken = {"nothing": "_lines", "renamed": "_write_parquet", "parquet": "_sync_folder"}[step]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(segments, broken, die)
        observations.recover(folder)
    observations.recover(folder)
    check(folder, 3)


def test_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    naps: list[float] = []
    with Writer(tmp_path, LOW, HIGH, label="live") as writer:
        append(writer, 0)
        with pytest.raises(Held, match="another process"):
            observations.recover(tmp_path, wait_s=1.0, clock=lambda: sum(naps), sleep=naps.append)
        assert 0.9 < sum(naps) < 1.2
        observations.recover(tmp_path, b"\x30" * 16, b"\x40" * 16)  # another range
        observations.recover(tmp_path, label="other")
        append(writer, 1)
    check(tmp_path, 2)


def test_a_lock_that_a_dying_writer_still_holds_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    coded, journal, name = abandoned(folder, 2)
    (folder / f"{name}.warc.gz.open").write_bytes(coded)
    path = folder / f"{name}.ndjson.open"
    path.write_bytes(journal)
    held = path.open("rb")
    fcntl.flock(held, fcntl.LOCK_EX)
    observations.recover(folder, clock=lambda: 0.0, sleep=lambda _: held.close())
    check(folder, 2)


def table(*rows: Observation) -> pa.Table:
    return pa.Table.from_pylist([msgspec.structs.asdict(row) for row in rows], OBSERVATIONS)


@pytest.mark.parametrize(("code", "told"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_folder_that_no_one_can_sync_stops_no_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: bool
) -> None:
    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", sync)
        writer = Writer(tmp_path, LOW, HIGH, label="live")
        append(writer, 0)
        if told:
            with pytest.raises(OSError, match="Input/output"):
                writer.close()
        else:
            writer.close()
    observations.recover(tmp_path)
    check(tmp_path, 1)


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="file sizes cannot be limited here")
def test_a_line_that_is_written_in_part_is_an_error_and_nothing_whole_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path, LOW, HIGH, label="live")
    writer.append(observation(0))
    assert writer._segment is not None
    size = writer._segment._journal.tell()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, hard))
        with pytest.raises(OSError, match="No space") as raised:
            writer.append(observation(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert raised.value.errno == errno.ENOSPC
    # nothing is appended to what may be torn
    with pytest.raises(OSError, match="No space"):
        writer.append(observation(2))
    with pytest.raises(OSError, match="No space"):
        writer.archive(exchange(2, b"x"))
    writer.close()
    observations.recover(tmp_path, wait_s=0.0)
    check_urls(tmp_path, 1)


def check_urls(folder: Path, expected: int) -> None:
    rows = observations.read(folder)["url"].to_pylist()
    assert sorted(rows) == [f"http://a.com/{n}" for n in range(expected)]
    assert not list(folder.glob("*.open"))


def test_after_a_record_that_failed_its_segment_is_left_to_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(file: Any, *_: object, **__: object) -> None:
        file.write(b"\x1f\x8b half a record")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Writer(tmp_path, LOW, HIGH, label="live") as writer:
        append(writer, 0)
        monkeypatch.setattr(capture, "write", torn)
        append(writer, 1)
    assert list(tmp_path.glob("*.open"))
    observations.recover(tmp_path, wait_s=0.0)
    check(tmp_path, 1)


def test_a_journal_that_lacks_a_row_is_no_segment(tmp_path: Path) -> None:
    with pytest.raises(observations.Damaged, match="holds 1 of 2 lines"):  # noqa: SIM117
        with Writer(tmp_path, LOW, HIGH, label="live") as writer:
            append(writer, 0)
            append(writer, 1)
            (journal,) = tmp_path.glob("*.ndjson.open")
            journal.write_bytes(journal.read_bytes().split(b"\n")[0] + b"\n{torn\n")
    observations.recover(tmp_path, wait_s=0.0)
    check(tmp_path, 1)


def test_a_damaged_segment_is_named_with_what_to_do(tmp_path: Path) -> None:
    with Writer(tmp_path, LOW, HIGH, label="live") as writer:
        append(writer, 0)
    (path,) = tmp_path.glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(observations.Damaged, match=rf"{path.name}.*restore .* or delete"):
        observations.read(tmp_path)


def test_a_segment_of_an_older_program_can_be_read(tmp_path: Path) -> None:
    with Writer(tmp_path, LOW, HIGH, label="live") as writer:
        append(writer, 0)
    (path,) = tmp_path.glob("*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["content_encoding"]), path)
    (row,) = observations.read(tmp_path).to_pylist()
    assert row["content_encoding"] is None and row["url"] == "http://a.com/0"


def test_one_that_merely_recovers_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    coded, journal, name = abandoned(folder, 2)
    (folder / f"{name}.warc.gz.open").write_bytes(coded)
    (folder / f"{name}.ndjson.open").write_bytes(journal)
    began, go_on = threading.Event(), threading.Event()
    lines = segments._lines

    def slow(path: Path) -> Any:
        began.set()
        assert go_on.wait(20)
        return lines(path)

    threads = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(segments, "_lines", slow)
        for _ in range(3):
            # with no patience at all for a living writer
            thread = threading.Thread(target=observations.recover, args=[folder],
                                      kwargs={"wait_s": 0.0})  # fmt: skip
            thread.start()
            threads.append(thread)
        assert began.wait(20)
        go_on.set()
        for thread in threads:
            thread.join()
    check(folder, 2)
    assert not list(folder.glob(".*.recovery"))


def test_what_was_cut_off_is_no_part_of_a_recovered_archive(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    coded, journal, name = abandoned(folder, 2)
    (folder / f"{name}.warc.gz.open").write_bytes(coded + coded[:100])
    (folder / f"{name}.ndjson.open").write_bytes(journal)
    observations.recover(folder)
    kinds = [record.kind for record in warc.records(str(folder / f"{name}.warc.gz"), 10_000)]
    assert kinds == ["warcinfo"] + ["request", "response", "metadata"] * 2


def test_both_ends_of_a_range_are_read(tmp_path: Path) -> None:
    with Writer(tmp_path, LOW, HIGH, label="live") as writer:
        for n in range(4):
            append(writer, n)
    rows = observations.read(tmp_path, b"\x11" * 16, b"\x12" * 16)
    assert sorted(rows["url"].to_pylist()) == ["http://a.com/1", "http://a.com/2"]


class Killed(BaseException):
    """Stands for the end of the process: nothing that follows it is done."""


@contextlib.contextmanager
def killed_after(steps: int, *, two_disks: bool) -> Iterator[None]:
    """Lets so many steps on the disk be done, and no more."""
    left = [steps]

    def step(function: Callable[..., Any]) -> Callable[..., Any]:
        def done(*arguments: Any, **named: Any) -> Any:
            if left[0] <= 0:
                raise Killed
            left[0] -= 1
            return function(*arguments, **named)

        return done

    def half(original: IO[bytes], copy: IO[bytes], size: int) -> None:
        copy.write(original.read(500))
        copy.flush()
        whole(original, copy, size)

    whole = step(shutil.copyfileobj)
    with pytest.MonkeyPatch.context() as patched:
        if two_disks:
            patched.setattr(Path, "rename", rename_on_one_disk)
        patched.setattr(Path, "rename", step(Path.rename))
        patched.setattr(Path, "unlink", step(Path.unlink))
        patched.setattr(os, "fsync", step(os.fsync))
        patched.setattr(os, "truncate", step(os.truncate))
        patched.setattr(shutil, "copyfileobj", half)
        yield


RENAME = Path.rename


def rename_on_one_disk(path: Path, target: Path) -> Path:
    if path.parent != target.parent:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    return RENAME(path, target)


@pytest.mark.parametrize("disks", ["no journal", "one disk", "two disks"])
def test_a_kill_at_any_step_loses_and_doubles_nothing(tmp_path: Path, disks: str) -> None:
    """Of the end of a segment, and of the recovery that follows, which is killed as well."""
    two, steps = disks == "two disks", 0
    while True:
        for again in range(0, steps + 1, 3):
            folder = tmp_path / f"{steps}-{again}" / "ledger"
            journal = None if disks == "no journal" else folder.with_name("journal")
            writer = Writer(folder, LOW, HIGH, label="live", journal=journal)
            for n in range(3):
                append(writer, n)
            writer.append(observation(3), writer.archive(exchange(3, b"<p>1" * 50)))  # a revisit
            writer.archive(exchange(9, b"User-agent: *"))
            is_killed = False
            with killed_after(steps, two_disks=two):
                try:
                    writer.close()
                except Killed:
                    is_killed = True
            if list(folder.glob("*.parquet")):  # readers go by it
                assert {path.suffix for path in folder.glob("[!.]*")} >= {".gz", ".cdxj"}
            with killed_after(again, two_disks=two), contextlib.suppress(Killed):
                observations.recover(folder, journal=journal)
            with killed_after(1000, two_disks=two):
                observations.recover(folder, journal=journal)
            check(folder, 4)
            assert journal is None or not list(journal.glob("*/*"))
        if not is_killed:
            break
        steps += 1
    assert steps > 8


def test_segments_lie_in_a_folder_of_their_own_ledger_until_they_are_whole(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    one = Writer(tmp_path / "one", LOW, HIGH, label="live", journal=journal)
    append(one, 0)
    two = Writer(tmp_path / "two", LOW, HIGH, label="live", journal=journal)
    append(two, 0)
    append(two, 1)
    assert not list((tmp_path / "one").iterdir()) and len(list(journal.iterdir())) == 2
    one._segment.abandon()  # type: ignore[union-attr]
    observations.recover(tmp_path / "one", journal=journal, wait_s=0.0)
    check(tmp_path / "one", 1)
    two.close()
    check(tmp_path / "two", 2)
    assert not list(journal.glob("*/*"))


def test_what_the_killed_left_on_a_machine_is_saved_and_the_living_are_left_alone(
    tmp_path: Path,
) -> None:
    ledger, here, there = tmp_path / "ledger", tmp_path / "here", tmp_path / "there"
    killed, living, elsewhere = (
        Writer(ledger, LOW, HIGH, label=label, journal=journal)
        for label, journal in (("live", here), ("v1020", here), ("live", there))
    )
    for n, writer in enumerate((killed, living, elsewhere)):
        append(writer, n)
    for writer in (killed, elsewhere):
        writer._segment.abandon()  # type: ignore[union-attr]
    naps: list[float] = []
    observations.salvage(ledger, here, wait_s=1.0, clock=lambda: sum(naps), sleep=naps.append)
    assert 0.9 < sum(naps) < 1.2  # it may have been about to die
    check(ledger, 1)
    observations.salvage(ledger, there, wait_s=0.0)
    assert len(observations.read(ledger)) == 2
    append(living, 3)
    living.close()
    assert len(observations.read(ledger)) == 4
    assert not [*here.glob("*/*"), *there.glob("*/*")]


def test_nothing_is_saved_where_nobody_was(tmp_path: Path) -> None:
    observations.salvage(tmp_path / "ledger", tmp_path / "journal", wait_s=0.0)
    assert not list(tmp_path.iterdir())


def test_segments_of_a_crawl_without_a_journal_are_recovered_by_one_with(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "ledger", LOW, HIGH, label="live")
    append(writer, 0)
    writer._segment.abandon()  # type: ignore[union-attr]
    observations.recover(tmp_path / "ledger", journal=tmp_path / "journal", wait_s=0.0)
    check(tmp_path / "ledger", 1)


def test_a_segment_ends_when_it_is_old_or_has_many_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = [0.0]
    monkeypatch.setattr(observations, "SEGMENT_ROWS", 3)
    with Writer(tmp_path, LOW, HIGH, label="live", clock=lambda: time[0]) as writer:

        def whole_after(n: int, seconds: float) -> int:
            time[0] += seconds
            append(writer, n)
            writer._wait()
            return len(list(tmp_path.glob("*.parquet")))

        whole = [whole_after(n, 0.0) for n in range(4)]
        whole += [whole_after(4, observations.SEGMENT_S - 1), whole_after(5, 0.9)]
        assert whole == [0, 0, 1, 1, 1, 2]
        append(writer, 6)
        time[0] += observations.SEGMENT_S
        writer.sync()
        writer._wait()
        assert len(list(tmp_path.glob("*.parquet"))) == 3
    check(tmp_path, 7)


def test_what_is_appended_is_synced_every_few_seconds_and_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time, synced = [0.0], []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda one: (synced.append(one), fsync(one))[1])
    with Writer(tmp_path, LOW, HIGH, label="live", clock=lambda: time[0]) as writer:
        for n in range(6):
            append(writer, n)
            time[0] += observations.SYNC_S / 2.5
        writer._wait()
        assert len(synced) == 2  # the WARC file and the journal
        writer.sync()
        assert len(synced) == 4
        time[0] += observations.SYNC_S
        writer.tick()  # there is nothing new
        writer.archive(exchange(9, b"User-agent: *"))
        for seconds, count in ((0.0, 6), (0.1, 6), (observations.SYNC_S, 8)):
            time[0] += seconds
            writer.tick()
            writer._wait()
            assert len(synced) == count
            writer.archive(exchange(9, b"User-agent: *"))
        time[0] += observations.SEGMENT_S
        writer.tick()
        writer._wait()
        assert len(list(tmp_path.glob("*.parquet"))) == 1
    check(tmp_path, 6)


def test_what_no_row_follows_is_kept_too(tmp_path: Path) -> None:
    for folder in (tmp_path / "killed", tmp_path / "closed"):
        writer = Writer(folder, LOW, HIGH, label="live")
        writer.archive(exchange(8, b"User-agent: *"), {"asked": "robots.txt"})
        append(writer, 0)
        writer.archive(exchange(9, b"User-agent: x"))
        writer.sync()
        if folder.name == "killed":
            writer._segment.abandon()  # type: ignore[union-attr]
            observations.recover(folder, wait_s=0.0)
        else:
            writer.close()
        check(folder, 1)
        (path,) = folder.glob("*.warc.gz")
        bodies = [one.answer.body for one in warc.records(str(path), 1000) if one.answer]
        assert bodies == [b"User-agent: *", b"<p>0" * 50, b"User-agent: x"]
        (index,) = folder.glob("*.cdxj")
        assert len(index.read_text().splitlines()) == 3


def test_a_row_is_appended_while_its_segment_is_open(tmp_path: Path) -> None:
    with Writer(tmp_path, LOW, HIGH, label="live") as writer:
        place = writer.archive(exchange(0, b"x"))
        writer.close()
        with pytest.raises(ValueError, match="is no longer open"):
            writer.append(observation(0), place)


def test_the_row_of_a_payload_that_is_there_already_names_that(tmp_path: Path) -> None:
    body = b"<p>the same"
    with Writer(tmp_path, LOW, HIGH, label="live") as writer:
        for n in range(3):
            writer.append(observation(n), writer.archive(exchange(n, body)))
        writer.close()
        writer.append(observation(3), writer.archive(exchange(3, body)))
    check(tmp_path, 4)
    rows = observations.read(tmp_path).sort_by("url").to_pylist()
    assert len({(row["warc_file"], row["warc_offset"]) for row in rows[:3]}) == 1
    assert rows[3]["warc_file"] != rows[0]["warc_file"]  # each segment stands alone
    assert {row["digest"] for row in rows} == {warc.digest(body)}


@pytest.mark.parametrize("kind", ["request", "revisit", "metadata"])
def test_a_row_whose_records_a_power_cut_left_unwritten_is_asked_again(
    tmp_path: Path, kind: str
) -> None:
    writer = Writer(tmp_path, LOW, HIGH, label="live")
    for n in range(2):
        place = writer.archive(exchange(n, b"<p>the same"), {"link-id": str(n)})
        writer.append(observation(n), place)
    writer._segment.abandon()  # type: ignore[union-attr]
    (path,) = tmp_path.glob("*.warc.gz.open")
    with path.open("rb") as file:
        last = [r.stream_pos for r in ArchiveIterator(file) if r.headers["WARC-Type"] == kind][-1]
    data = bytearray(path.read_bytes())
    data[last + 20 : last + 80] = bytes(60)
    path.write_bytes(data)
    observations.recover(tmp_path, wait_s=0.0)
    check(tmp_path, 1)


def test_an_upload_that_fails_is_told_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, journal = tmp_path / "ledger", tmp_path / "journal"
    writer = Writer(folder, LOW, HIGH, label="live", journal=journal)
    monkeypatch.setattr(observations, "SEGMENT_ROWS", 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(segments, "_write_parquet", full)
        append(writer, 0)
        with pytest.raises(OSError, match="No space"):
            for n in range(1, 6):
                append(writer, n)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            append(writer, 7)
    writer.close()
    observations.recover(folder, journal=journal, wait_s=0.0)
    rows = observations.read(folder)["url"].to_pylist()
    assert 1 <= len(rows) == len(set(rows))
    check(folder, len(rows))


def test_what_a_kill_left_for_nobody_is_swept(tmp_path: Path) -> None:
    dead = tmp_path / ".10101010-20202020-live-000000000000.ndjson.tmp"
    turn = tmp_path / ".10101010-20202020-live-000000000000.recovery"
    living = tmp_path / ".10101010-20202020-live-111111111111.ndjson.tmp"
    for path in (dead, turn, living):
        path.touch()
    with living.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        observations.recover(tmp_path)
    assert list(tmp_path.iterdir()) == [living]


def test_a_writer_whose_new_journal_is_swept_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = fcntl.flock, []

    def late(file: Any, operation: int) -> None:
        if not swept:
            swept.append(1)
            segments.sweep(tmp_path)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with Writer(tmp_path, LOW, HIGH, label="live") as writer:
        append(writer, 0)
    check(tmp_path, 1)


def test_a_file_says_what_the_crawl_says_of_itself(tmp_path: Path) -> None:
    info = {"operator": "me", "robots": "obeyed"}
    with Writer(tmp_path, LOW, HIGH, label="live", info=info, now=lambda: MOMENT) as writer:
        append(writer, 0)
    (path,) = tmp_path.glob("*.warc.gz")
    first = next(iter(ArchiveIterator(path.open("rb"))))
    assert first.headers["WARC-Date"] == "2016-05-04T03:02:01.123Z"
    assert b"operator: me\r\nrobots: obeyed\r\n" in first.reader.read()


WRITING = """
import itertools, sys
from pathlib import Path
from crawl import observations
from tests.crawl.test_observations import HIGH, LOW, Writer, append

observations.SEGMENT_ROWS = 7
with Writer(Path(sys.argv[1]), LOW, HIGH, label="live", journal=Path(sys.argv[2])) as writer:
    for n in itertools.count():
        append(writer, n % 200)
        print(n, flush=True)
"""


def test_a_killed_process_loses_no_row_that_it_appended(tmp_path: Path) -> None:
    folder, journal = tmp_path / "ledger", tmp_path / "journal"
    total = 0
    for kill in range(8):
        command = [sys.executable, "-c", WRITING, str(folder), str(journal)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)
        assert child.stdout
        for _ in range(1 + kill * 3):
            child.stdout.readline()
        child.kill()
        appended = 1 + kill * 3 + len(child.stdout.read().split("\n")) - 1
        child.wait()
        observations.recover(folder, journal=journal)
        rows = len(observations.read(folder))
        # one row may be durable without having been told
        assert appended <= rows - total <= appended + 1
        total = rows
        check_segments(folder)
        assert not list(journal.glob("*/*"))
