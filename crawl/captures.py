"""Copies captures of links from archives into the ledger, each once, with its original date.

Rule: what is copied depends on the capture and on what the ledger holds of it, never on what other
archives gave: they can be copied in any order, and again.
"""

import datetime
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawl import claims, content, url, warc
from crawl import observations as ledger
from crawl.schema import RESPONSE_COLUMNS, Capture, Observation

FULL = ("link_id", "fetched_at", *RESPONSE_COLUMNS)
"""What makes a capture another one than those that the ledger holds."""
BRIEF = ("link_id", "fetched_at", "digest", "final_url")
"""What an index says of a capture; the moment to the second."""
ROWS = 1 << 14


class Known:
    """Captures that the ledger holds, each by sixteen bytes of hash of some of its columns."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self._held = bytearray()
        self._sorted = np.frombuffer(b"", "S16")
        self._new = set[bytes]()

    def hold(self, batch: pa.RecordBatch) -> None:
        """Take in rows of the ledger, until `settle`."""
        parts = [_bytes_of(batch[name]) for name in self.columns]
        joined = pc.binary_join_element_wise(*parts, b"\x1f").to_pylist()
        self._held += b"".join(map(_hash, joined))

    def settle(self) -> None:
        """All rows are taken in."""
        self._sorted = np.frombuffer(self._held, "S16")
        self._sorted.sort()

    def add(self, row: Observation) -> bool:
        """Whether a row is new; it is known from now on."""
        values = [getattr(row, name) for name in self.columns]
        parts = [
            (_milliseconds(value) if isinstance(value, datetime.datetime) else value)
            for value in values
        ]
        identity = _hash(b"\x1f".join(map(_plain, parts)))
        if self._holds(identity):
            return False
        self._new.add(identity)
        return True

    def has(self, link_id: bytes, moment: datetime.datetime, digest: str, final_url: str) -> bool:
        """Whether one with these values of `BRIEF` is known."""
        parts = (link_id, _milliseconds(moment), digest, final_url)
        return self._holds(_hash(b"\x1f".join(map(_plain, parts))))

    def _holds(self, identity: bytes) -> bool:
        asked = np.array([identity], "S16")  # not the bytes: of those, numpy drops a last zero
        at = self._sorted.searchsorted(asked)[0]
        if at < len(self._sorted) and self._sorted[at] == asked[0]:
            return True
        return identity in self._new


class Copier:
    """Writes captures into the ledger; made by `copying`."""

    def __init__(self, writer: ledger.Writer, full: Known, brief: Known) -> None:
        self._writer, self._full, self._brief = writer, full, brief

    def copy(self, record: warc.Record, link_id: bytes, key: str, asked: str) -> Capture:
        """What becomes of a response whose target has this key, which is the link's. `asked` names
        the archive."""
        moment, target = _moment(record.date), url.fetch_url(record.target)
        if record.answer is None or moment is None or target is None:
            return Capture.UNREADABLE
        if record.answer.status != 200:
            return Capture.NOT_200
        row = _observation(record, record.answer, link_id, key, target, moment, asked)
        if not self._full.add(row):
            return Capture.ALREADY
        exchange = warc.Exchange(
            url.without_fragment(target), moment, record.answer, truncated=record.truncated
        )
        self._writer.append(row, self._writer.archive(exchange))
        return Capture.COPIED

    def has(
        self, link_id: bytes, moment: datetime.datetime, digest: str | None, address: str
    ) -> bool:
        """Whether the ledger holds the capture of which an index says so much."""
        target = url.fetch_url(address)
        if digest is None or target is None:
            return False
        return self._brief.has(link_id, moment, digest, url.without_fragment(target))


@contextmanager
def copying(folder: Path, name: str, *, brief: bool = False) -> Iterator[Copier]:
    """A copier into the ledger in this folder. One process at a time copies under a `name`; what a
    killed one of that name left is taken over. `brief`: `has` will be asked."""
    label = "a" + hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
    low, high = ledger.LOWEST, ledger.HIGHEST
    with claims.claimed(folder, low, high, label=label):
        ledger.recover(folder, label=label)
        known = Known(FULL), Known(BRIEF)
        used = known if brief else known[:1]
        columns = ["source", *FULL]
        for batch in ledger.batches(folder, columns):
            archived = batch.filter(pc.equal(batch["source"], "archive"))
            for one in used:
                one.hold(archived if one is used[0] else _to_the_second(archived))
        for one in used:
            one.settle()
        with ledger.Writer(folder, low, high, label=label) as writer:
            yield Copier(writer, *known)


def _to_the_second(batch: pa.RecordBatch) -> pa.RecordBatch:
    at = batch.schema.get_field_index("fetched_at")
    return batch.set_column(at, "fetched_at", pc.floor_temporal(batch["fetched_at"], unit="second"))


def _bytes_of(column: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    return column.cast(pa.binary()).fill_null(b"\0")


def _plain(value: Any) -> bytes:
    if value is None:
        return b"\0"
    return value if isinstance(value, bytes) else str(value).encode()


def _milliseconds(moment: datetime.datetime) -> int:
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(
        milliseconds=1
    )


def _hash(identity: bytes) -> bytes:
    return hashlib.blake2b(identity, digest_size=16).digest()


def _observation(
    record: warc.Record,
    answer: warc.Answer,
    link_id: bytes,
    key: str,
    target: str,
    moment: datetime.datetime,
    asked: str,
) -> Observation:
    kind, coding = answer.header("Content-Type"), answer.header("Content-Encoding")
    cut = record.truncated is not None
    return Observation(
        link_id=link_id,
        url_key=key,
        url=target,
        outcome=content.outcome(answer.status, kind, coding, answer.body, cut=cut),
        source="archive",
        status=answer.status,
        final_url=url.without_fragment(target),
        content_type=kind,
        content_encoding=coding,
        bytes=len(answer.body),
        digest=warc.digest(answer.body),
        fetched_at=moment,
        asked=asked,
    )


def _moment(date: str) -> datetime.datetime | None:
    """A WARC-Date in UTC, to the millisecond; None for one that is none, or outside the years that
    a date can hold."""
    try:
        moment = datetime.datetime.fromisoformat(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        moment = moment.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
