"""One segment of the ledger, from its first record to its place in the ledger's folder.

Whole, it is `NAME.warc.gz`, its index `NAME.cdxj` and its rows `NAME.parquet`, which comes last:
readers go by it. While it is open it is `NAME.warc.gz.open` and the journal `NAME.ndjson.open`,
which its writer holds a lock on: in the ledger's folder, or in one of the machine's own disk that
belongs to that ledger. A journal line is appended after the WARC records that it speaks of, and the
journal is deleted after all else is done. So whatever instant the writer is killed at, the lines
whose records can be read are the truth, and `finish` makes a segment of them, once more or for the
first time: nothing is lost, nothing doubled.
"""

import contextlib
import datetime
import errno
import fcntl
import hashlib
import itertools
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import IO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from crawl import capture, warc
from crawl.schema import OBSERVATIONS, Observation

UNSYNCED = (errno.EINVAL, errno.ENOTSUP)
"""What file systems answer that cannot sync a folder, some network and FUSE mounts among them."""
OPEN_JOURNAL = ".ndjson.open"


class Damaged(RuntimeError):
    """A file of the ledger cannot be read, or does not hold what was written to it."""


class Line(msgspec.Struct, frozen=True):
    """One line of a journal: where the WARC file ended when it was written, the index of what was
    archived since the line before, and a row, unless it speaks of records alone."""

    end: int
    row: Observation | None = None
    index: tuple[str, ...] = ()


DECODER = msgspec.json.Decoder(Line)


def home(folder: Path, journal: Path | None) -> Path:
    """Where the open segments of a ledger are: beside the whole ones, or in a folder of their own
    below `journal`."""
    if journal is None:
        return folder
    whose = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
    return journal / whose


class Segment:
    """A segment that is being written."""

    def __init__(
        self,
        folder: Path,
        place: Path,
        prefix: str,
        *,
        moment: datetime.datetime,
        info: Mapping[str, str],
        now: float,
    ) -> None:
        """`place` is its home while it is open. `prefix` begins its name; `now` counts seconds."""
        folder.mkdir(parents=True, exist_ok=True)
        place.mkdir(parents=True, exist_ok=True)
        self._folder, self._home = folder, place
        self.opened_at = now
        self.rows = 0
        self.lines = 0
        self._index: list[str] = []
        self.name, self._journal = _open_journal(place, prefix)
        self.warc: IO[bytes] = _open_warc(place, self.name).open("xb")
        self._seen = capture.begin(self.warc, f"{self.name}.warc.gz", moment, info)

    def archive(self, exchange: warc.Exchange, note: Mapping[str, str]) -> warc.Place:
        """Writes an exchange; returns the place of the record that holds its payload."""
        written = capture.write(self.warc, exchange, note, self._seen)
        self._index += written.index
        return written.place

    def append(self, row: Observation) -> None:
        """Writes a row, after the records that it speaks of."""
        self._write(row)
        self.rows += 1

    def flush(self) -> None:
        """Writes a line for records that no row has followed."""
        if self._index:
            self._write(None)

    def sync(self) -> None:
        """Makes durable what was appended. May run beside everything else here."""
        # the WARC file first: no line may outlive its records
        os.fsync(self.warc.fileno())
        os.fsync(self._journal.fileno())

    def finish(self, synced: Iterable[Future[None]] = ()) -> None:
        """Makes it a whole segment, in its place, after what is still being `synced`. Raises
        Damaged where something is missing, and what went wrong there."""
        try:
            for one in synced:
                one.result()
            self.flush()
            self.warc.flush()
            self.sync()
            self.warc.close()
            finish(self._home, self._folder, self.name, appended=self.lines)
            self._journal.close()
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Lets go of the files as a killed process would."""
        with contextlib.suppress(OSError):  # what was not flushed belongs to no line
            self.warc.close()
        self._journal.close()

    def _write(self, row: Observation | None) -> None:
        self.warc.flush()
        line = msgspec.json.encode(Line(self.warc.tell(), row, tuple(self._index))) + b"\n"
        if self._journal.write(line) != len(line):  # a disk that is nearly full takes a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._home))
        self.lines += 1
        self._index.clear()


def recovered(journal: Path, folder: Path) -> bool:
    """Whether the segment of a journal is whole now; False while its writer lives."""
    name = journal.name.removesuffix(OPEN_JOURNAL)
    try:
        file = journal.open("r+b")
    except FileNotFoundError:
        return True  # another process was quicker
    with file:
        try:
            # Shared: only a living writer refuses it, for nobody else locks a journal alone.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        turn = journal.with_name(f".{name}.recovery")
        with turn.open("ab") as alone:
            fcntl.flock(alone, fcntl.LOCK_EX)
            if journal.exists():
                finish(journal.parent, folder, name)
            turn.unlink(missing_ok=True)
    return True


def sweep(place: Path) -> None:
    """Takes away what a process that was killed between two steps left for nobody."""
    for path in (*place.glob(".*.ndjson.tmp"), *place.glob(".*.recovery")):
        journal = path.with_name(path.name[1:].removesuffix(".recovery") + OPEN_JOURNAL)
        if journal.exists():
            continue
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def finish(place: Path, folder: Path, name: str, *, appended: int | None = None) -> None:
    """Turns an open segment into a whole one. Each step can be repeated: the journal goes last.

    `appended` is the number of lines where it is known; else each is looked at whether it is whole.
    """
    journal, opened, done = (
        _journal(place, name),
        _open_warc(place, name),
        folder / f"{name}.warc.gz",
    )
    source = opened if opened.exists() else done
    lines = list(_lines(journal))
    if appended is None:
        # what follows a record that a power cut left unwritten was not written for certain either
        lines = list(_whole(source, lines))
    elif len(lines) != appended:
        raise Damaged(f"{journal}: holds {len(lines)} of {appended} lines: is the disk full?")
    if lines:
        if source == opened:
            os.truncate(opened, lines[-1].end)
        _sync(source)  # its writer may have died before it did
        if source == opened:
            _move(opened, done)
        _write_index(folder / f"{name}.cdxj", lines)
        _write_parquet(folder / f"{name}.parquet", [line.row for line in lines if line.row])
    _sync_folder(folder)
    opened.unlink(missing_ok=True)
    journal.unlink()


def _open_journal(place: Path, prefix: str) -> tuple[str, IO[bytes]]:
    """A name, and its journal, locked before it has it: whoever finds it finds it held."""
    while True:
        name = f"{prefix}-{secrets.token_hex(6)}"
        hidden = place / f".{name}.ndjson.tmp"
        file = hidden.open("xb", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            hidden.rename(_journal(place, name))
        except FileNotFoundError:  # swept in the moment before it was locked
            file.close()
        else:
            return name, file


def _journal(place: Path, name: str) -> Path:
    return place / f"{name}{OPEN_JOURNAL}"


def _open_warc(place: Path, name: str) -> Path:
    return place / f"{name}.warc.gz.open"


def _lines(journal: Path) -> Iterator[Line]:
    """The whole lines of a journal, up to the first that is torn."""
    for line in journal.read_bytes().split(b"\n")[:-1]:
        try:
            yield DECODER.decode(line)
        except msgspec.DecodeError:
            return


def _whole(source: Path, lines: Iterable[Line]) -> Iterator[Line]:
    """The lines whose records are whole, up to the first whose are not."""
    size = source.stat().st_size if source.exists() else 0
    begins = 0
    for line in lines:
        if line.end > size or not warc.is_whole(source, begins, line.end):
            return
        if line.row and not _has_payload(source, line.row):
            return
        yield line
        begins = line.end


def _has_payload(source: Path, row: Observation) -> bool:
    if row.warc_offset is None or row.warc_length is None:
        return True
    try:
        answer = warc.read(source, warc.Place(row.warc_offset, row.warc_length))
    except ValueError:
        return False
    return warc.digest(answer.body) == row.digest


def _move(path: Path, done: Path) -> None:
    """Gives a file its place, in one step for whoever looks there. From one disk to another it is
    copied, and stays."""
    try:
        path.rename(done)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with _hidden(done) as file, path.open("rb") as original:
            shutil.copyfileobj(original, file, 1 << 20)


def _write_index(path: Path, lines: Iterable[Line]) -> None:
    texts = sorted(itertools.chain.from_iterable(line.index for line in lines))
    with _hidden(path) as file:
        file.writelines(f"{text}\n".encode() for text in texts)


def _write_parquet(path: Path, rows: Iterable[Observation]) -> None:
    plain = sorted((msgspec.structs.asdict(row) for row in rows), key=lambda row: row["link_id"])
    with _hidden(path) as file:
        table = pa.Table.from_pylist(plain, OBSERVATIONS)
        pq.write_table(table, file, compression="zstd", row_group_size=16384)


@contextlib.contextmanager
def _hidden(path: Path) -> Iterator[IO[bytes]]:
    """A file that has its name as soon as all of it is written and durable."""
    hidden = path.with_name(f".{path.name}.tmp")
    with hidden.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    hidden.rename(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise
    finally:
        os.close(descriptor)
