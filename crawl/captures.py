"""Copies captures of links from archives into the ledger, each once, with its original date.

Rule: what is copied depends on the capture and on what the ledger holds of it, never on what other
archives gave: they can be copied in any order, and again.
"""

import datetime
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawl import claims, consent, outcomes, url, warc
from crawl import observations as ledger
from crawl.config import CrawlConfig
from crawl.schema import RESPONSE_COLUMNS, Capture, Observation, PageOutcome

FULL = ("link_id", "fetched_at", *RESPONSE_COLUMNS)
"""What makes a capture another one than those that the ledger holds."""
BRIEF = ("link_id", "fetched_at", "digest", "final_url")
"""What an index says of a capture; the moment to the second."""
DAY_OF_YEAR = re.compile(r"(\d{4})-(\d\d)-(\d{2,3})(T.*)")


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

    def has(
        self, link_id: bytes, moment: datetime.datetime, digest: str | None, address: str
    ) -> bool:
        """Of `BRIEF` columns: whether the capture of which an index says so much is known."""
        target, said = url.fetch_url(address), digest_of(digest)
        if said is None or target is None:
            return False
        parts = (link_id, _milliseconds(moment), said, url.without_fragment(target))
        return self._holds(_hash(b"\x1f".join(map(_plain, parts))))

    def _holds(self, identity: bytes) -> bool:
        asked = np.array([identity], "S16")  # not the bytes: of those, numpy drops a last zero
        at = self._sorted.searchsorted(asked)[0]
        if at < len(self._sorted) and self._sorted[at] == asked[0]:
            return True
        return identity in self._new


class Copier:
    """Writes captures into the ledger; made by `copying`."""

    def __init__(self, writer: ledger.Writer, token: str, full: Known, brief: Known) -> None:
        self._writer, self._token, self._full, self._brief = writer, token, full, brief

    def copy(self, record: warc.Record, link_id: bytes, key: str, asked: str) -> Capture:
        """What becomes of a response whose target has this key, which is the link's. `asked` names
        the archive."""
        moment, target = _moment(record.date), url.fetch_url(record.target)
        if record.answer is None or moment is None or target is None:
            return Capture.UNREADABLE
        if record.answer.status != 200:
            return Capture.NOT_200
        exchange = warc.Exchange(
            url.without_fragment(target), moment, record.answer, truncated=record.truncated
        )
        outcome = outcomes.of_answer(exchange)
        said = consent.joined(outcomes.signals(exchange.answer, self._token, outcome))
        row = _observation(exchange, outcome, said, link_id, key, asked)
        if not self._full.add(row):
            return Capture.ALREADY
        note = {"link-id": link_id.hex(), "archive": asked}
        note |= {"ai-signals": said} if said else {}
        self._writer.append(row, self._writer.archive(exchange, note))
        return Capture.COPIED

    def has(
        self, link_id: bytes, moment: datetime.datetime, digest: str | None, address: str
    ) -> bool:
        """Whether the ledger holds the capture of which an index says so much."""
        return self._brief.has(link_id, moment, digest, address)


def held(folder: Path, low: bytes, high: bytes) -> Known:
    """What the ledger holds from archives of the links between these two ids, both included."""
    known = Known(BRIEF)
    rows = ledger.read(folder, low, high)
    archived = rows.filter(pc.equal(rows["source"], "archive")).select(BRIEF)
    for batch in archived.to_batches():
        known.hold(_to_the_second(batch))
    known.settle()
    return known


@contextmanager
def copying(
    folder: Path, name: str, config: CrawlConfig, *, brief: bool = False
) -> Iterator[Copier]:
    """A copier into the ledger in this folder. One process at a time copies under a `name`; what a
    killed one of that name left is taken over. `brief`: `has` will be asked, and nothing is known
    but what was copied under this name: what else is held was looked up in `held`."""
    label = "a" + hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
    low, high = ledger.LOWEST, ledger.HIGHEST
    with claims.claimed(folder, low, high, label=label):
        ledger.recover(folder, label=label)
        known = Known(FULL), Known(BRIEF)
        used = known if brief else known[:1]
        for batch in ledger.batches(folder, ["source", *FULL], label=label if brief else ""):
            archived = batch.filter(pc.equal(batch["source"], "archive"))
            for one in used:
                one.hold(archived if one is used[0] else _to_the_second(archived))
        for one in used:
            one.settle()
        with ledger.Writer(folder, low, high, label=label) as writer:
            yield Copier(writer, config.product_token(), *known)


def digest_of(said: str | None) -> str | None:
    """A digest as `warc.digest` writes it; None where there is none. Without a name, it is SHA-1
    in base 32, as in all indexes."""
    text = (said or "").strip()
    if text in ("", "-"):
        return None
    name, colon, value = text.rpartition(":")
    return f"{name.lower()}:{value}" if colon else f"sha1:{value.upper()}"


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
    exchange: warc.Exchange,
    outcome: PageOutcome,
    said: str | None,
    link_id: bytes,
    key: str,
    asked: str,
) -> Observation:
    answer = exchange.answer
    return Observation(
        link_id=link_id,
        url_key=key,
        url=exchange.target,
        outcome=outcome,
        source="archive",
        status=answer.status,
        final_url=exchange.target,
        content_type=answer.header("Content-Type"),
        content_encoding=answer.header("Content-Encoding"),
        bytes=len(answer.body),
        digest=warc.digest(answer.body),
        fetched_at=exchange.moment,
        ai_signals=said,
        asked=asked,
    )


def _moment(date: str) -> datetime.datetime | None:
    """A WARC-Date in UTC, to the millisecond; None for one that is none, or outside the years that
    a date can hold."""
    try:
        moment = datetime.datetime.fromisoformat(_with_day_of_month(date))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        moment = moment.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _with_day_of_month(date: str) -> str:
    """The same date, where the day is that of the year behind the month that it lies in: so the
    crawlers of ClueWeb09 and others wrote it, `2008-10-294T05:21:46-0700`."""
    found = DAY_OF_YEAR.fullmatch(date)
    if not found or int(found.group(3)) <= 31:
        return date
    year, month, number, rest = found.groups()
    day = datetime.date(int(year), 1, 1) + datetime.timedelta(days=int(number) - 1)
    return f"{day.isoformat()}{rest}" if day.month == int(month) else date
