"""Replays a web archive into the ledger: every good capture of a link that is kept.

An archive is read once, from its beginning to its end. What is copied depends on the archive and on
the links alone, never on what other archives gave, so archives can be replayed in any order and
again: a capture that the ledger holds is not copied twice. Which capture becomes the page is for
`observations.select` to say.
"""

import datetime
import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from crawl import content, url, warc
from crawl import observations as ledger
from crawl.config import CrawlConfig
from crawl.observations import Observation
from crawl.schema import Capture, LinkOutcome, PageOutcome

VERSION = 1

Wanted = dict[str, tuple[bytes, str]]
Known = set[tuple[bytes, datetime.datetime, str]]


def replay(
    path: str,
    links: Iterable[pa.RecordBatch],
    observations: str,
    config: CrawlConfig,
    counts: Counter[str],
) -> None:
    """Copies the captures of the kept `links` from one WARC file (gz, zst or plain, any URI).

    Every record of the archive is counted in `counts` under one of `Capture`. Raises BadInput where
    the file is missing or is no WARC file; damage further on ends it there, counted.
    """
    wanted = _wanted(links)
    folder = Path(observations)
    label = "a" + hashlib.blake2b(path.encode(), digest_size=6).hexdigest()
    ledger.recover(folder, label=label)
    known = _known(folder, wanted)
    low, high = ledger.LOWEST, ledger.HIGHEST
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
    columns = ("link_id", "fetched_at", "digest", "source")
    return {
        (link_id, moment, digest)
        for link_id, moment, digest, source in zip(
            *(rows[column].to_pylist() for column in columns), strict=True
        )
        if source == "archive"
    }


def _replay(
    record: warc.Record, path: str, wanted: Wanted, known: Known, writer: ledger.Writer
) -> Capture:
    if record.kind == "unreadable":
        return Capture.UNREADABLE
    if record.kind != "response":
        return Capture.REVISIT if record.kind == "revisit" else Capture.NOT_RESPONSE
    target = url.fetch_url(record.target)
    key = url.url_key(target) if target else ""
    if target is None or key not in wanted:
        return Capture.NO_LINK
    moment = _moment(record.date)
    if record.answer is None or moment is None:
        return Capture.UNREADABLE
    if record.answer.status != 200:
        return Capture.NOT_200
    link_id, fetch_url = wanted[key]
    digest = warc.digest(record.answer.body)
    if (link_id, moment, digest) in known:
        return Capture.ALREADY
    known.add((link_id, moment, digest))
    place = writer.archive(
        url.without_fragment(target),
        moment,
        record.answer,
        truncated="length" if record.truncated else None,
    )
    row = Observation(
        link_id=link_id,
        url_key=key,
        url=fetch_url,
        outcome=_outcome(record, record.answer),
        source="archive",
        status=200,
        final_url=url.without_fragment(target),
        content_type=record.answer.header("Content-Type"),
        bytes=len(record.answer.body),
        digest=digest,
        fetched_at=moment,
        asked=path,
    )
    writer.append(row, place)
    return Capture.COPIED


def _outcome(record: warc.Record, answer: warc.Answer) -> PageOutcome:
    first = content.head(answer.body, answer.header("Content-Encoding"))
    if not content.is_html(answer.header("Content-Type"), first):
        return PageOutcome.NOT_HTML
    return PageOutcome.TOO_LARGE if record.truncated else PageOutcome.OK


def _moment(date: str) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(date)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
