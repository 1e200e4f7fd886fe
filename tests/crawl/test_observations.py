"""The ledger: killed at any instant, it holds what was durable, once."""

import datetime
import errno
import fcntl
import os
import resource
import shutil
import signal
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crawl import observations, warc
from crawl.claims import Held
from crawl.observations import Writer
from crawl.schema import OBSERVATIONS, Observation, PageOutcome

MOMENT = datetime.datetime(2016, 5, 4, 3, 2, 1, 123000, tzinfo=datetime.UTC)
LOW, HIGH = b"\x10" * 16, b"\x20" * 16


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
    place = writer.archive(
        f"http://a.com/{n}", MOMENT, warc.Answer(200, "OK", (), body),
        request=warc.Request("GET / HTTP/1.1", ()),
    )  # fmt: skip
    writer.append(observation(n, digest=warc.digest(body)), place)


def check(folder: Path, expected: int) -> None:
    rows = observations.read(folder).to_pylist()
    assert sorted(row["url"] for row in rows) == [f"http://a.com/{n}" for n in range(expected)]
    for row in rows:
        place = warc.Place(row["warc_offset"], row["warc_length"])
        assert warc.digest(warc.read(folder / row["warc_file"], place).body) == row["digest"]
    assert not [path for path in folder.iterdir() if "open" in path.name]


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
    monkeypatch.setattr(observations, "SEGMENT_BYTES", 1500)
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
        patched.setattr(observations, broken, die)
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
        writer.archive("http://a.com/2", MOMENT, warc.Answer(200, "OK", (), b"x"))
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
        monkeypatch.setattr(warc, "write", torn)
        append(writer, 1)
    assert list(tmp_path.glob("*.open"))
    observations.recover(tmp_path, wait_s=0.0)
    check(tmp_path, 1)


def test_a_journal_that_lacks_a_row_is_no_segment(tmp_path: Path) -> None:
    with pytest.raises(observations.Damaged, match="holds 1 of 2 rows"):  # noqa: SIM117
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
    lines = observations._lines

    def slow(path: Path) -> Any:
        began.set()
        assert go_on.wait(20)
        return lines(path)

    threads = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(observations, "_lines", slow)
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
    assert kinds == ["request", "response"] * 2


def test_both_ends_of_a_range_are_read(tmp_path: Path) -> None:
    with Writer(tmp_path, LOW, HIGH, label="live") as writer:
        for n in range(4):
            append(writer, n)
    rows = observations.read(tmp_path, b"\x11" * 16, b"\x12" * 16)
    assert sorted(rows["url"].to_pylist()) == ["http://a.com/1", "http://a.com/2"]
