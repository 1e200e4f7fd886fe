"""Replays a web archive into the ledger: every good capture of a link that is kept.

An archive is read once, from its beginning to its end. What is copied depends on the archive and on
the links alone, never on what other archives gave, so archives can be replayed in any order and
again: a capture that the ledger holds is not copied twice, unless two processes replay at once, and
then it does no harm. Which capture becomes the page is for `pages.select` to say.
"""

import datetime
import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from crawl import canonical, claims, content, url, warc
from crawl import observations as ledger
from crawl.config import CrawlConfig
from crawl.schema import RESPONSE_COLUMNS, Capture, LinkOutcome, Observation

VERSION = 1

IDENTITY = ["link_id", "fetched_at", *RESPONSE_COLUMNS]

Wanted = dict[str, tuple[bytes, str]]
Known = set[tuple[Any, ...]]


def replay(
    path: str,
    links: Iterable[pa.RecordBatch],
    observations: str,
    config: CrawlConfig,
    counts: Counter[str],
) -> None:
    """Copies the captures of the kept `links` from one WARC file (gz, zst or plain).

    Every record of the archive is counted in `counts` under one of `Capture`. Raises BadInput where
    the file is missing or is no WARC file; damage further on ends it there, counted.
    """
    wanted = _wanted(links)
    folder = Path(observations)
    label = "a" + hashlib.blake2b(path.encode(), digest_size=6).hexdigest()
    low, high = ledger.LOWEST, ledger.HIGHEST
    with claims.claimed(folder, low, high, label=label):
        ledger.recover(folder, label=label)
        known = _known(folder, wanted)
        with ledger.Writer(folder, low, high, label=label) as writer:
            for record in warc.records(path, config.max_bytes):
                counts[str(_replay(record, path, wanted, known, writer))] += 1


def _wanted(links: Iterable[pa.RecordBatch]) -> Wanted:
    wanted: Wanted = {}
    for batch in links:
        rows = batch.select(["url_key", "link_id", "fetch_url", "outcome"]).to_pylist()
        wanted |= {
            row["url_key"]: (row["link_id"], row["fetch_url"])
            for row in rows
            if row["outcome"] == LinkOutcome.KEPT
        }
    return wanted


def _known(folder: Path, wanted: Wanted) -> Known:
    if not wanted:
        return set()
    ids = [link_id for link_id, _ in wanted.values()]
    rows = ledger.read(folder, min(ids), max(ids))
    archived = rows.filter(pc.equal(rows["source"], "archive")).select(IDENTITY)
    return set(zip(*(column.to_pylist() for column in archived.columns), strict=True))


def _replay(
    record: warc.Record, path: str, wanted: Wanted, known: Known, writer: ledger.Writer
) -> Capture:
    if record.kind == "unreadable":
        return Capture.UNREADABLE
    if record.kind != "response":
        return Capture.REVISIT if record.kind == "revisit" else Capture.NOT_RESPONSE
    target = url.fetch_url(record.target)
    key = canonical.url_key(target) if target else ""
    if target is None or key not in wanted:
        return Capture.NO_LINK
    moment = _moment(record.date)
    if record.answer is None or moment is None:
        return Capture.UNREADABLE
    if record.answer.status != 200:
        return Capture.NOT_200
    cut = record.truncated is not None
    row = _observation(wanted[key], key, target, moment, record.answer, cut, path)
    identity = tuple(getattr(row, column) for column in IDENTITY)
    if identity in known:
        return Capture.ALREADY
    known.add(identity)
    exchange = warc.Exchange(
        url.without_fragment(target), moment, record.answer, truncated=record.truncated
    )
    writer.append(row, writer.archive(exchange))
    return Capture.COPIED


def _observation(
    link: tuple[bytes, str],
    key: str,
    target: str,
    moment: datetime.datetime,
    answer: warc.Answer,
    cut: bool,
    path: str,
) -> Observation:
    kind, coding = answer.header("Content-Type"), answer.header("Content-Encoding")
    link_id, fetch_url = link
    return Observation(
        link_id=link_id,
        url_key=key,
        url=fetch_url,
        outcome=content.outcome(answer.status, kind, coding, answer.body, cut=cut),
        source="archive",
        status=answer.status,
        final_url=url.without_fragment(target),
        content_type=kind,
        content_encoding=coding,
        bytes=len(answer.body),
        digest=warc.digest(answer.body),
        fetched_at=moment,
        asked=path,
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
