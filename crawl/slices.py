"""Copies the captures that were chosen in indexes, reading of each archive what is wanted of it.

Rule: what an index says is looked at where it points: only a response of that very page, with the
digest that was promised, is copied. Whatever else stands there is counted and stops nothing.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from crawl import canonical, captures, ranges, url, warc
from crawl.config import CrawlConfig
from crawl.schema import Capture

Row = dict[str, Any]

PACKING_BYTES = 1 << 16
"""By which a record can be longer packed than its bytes are."""


def copy(
    rows: Iterable[pa.RecordBatch],
    observations: str,
    config: CrawlConfig,
    counts: Counter[str],
    *,
    sleep: ranges.Sleep = time.sleep,
) -> None:
    """Copies the captures in `rows`, batches of CHOSEN in order of their archives, into the ledger.

    Every row is counted in `counts` under one of `Capture`. `sleep` waits so many seconds. Raises
    `ranges.Unreachable` where a server fails and goes on failing.
    """
    batches = (batch for batch in rows if len(batch))
    first = next(batches, None)
    if first is None:
        return
    source = ranges.Source(config, sleep)
    # Ranges of archives are disjoint: the first names the task, and the one that is tried again.
    name = f"slices {first['file_id'][0].as_py().hex()}"
    with captures.copying(Path(observations), name, config, brief=True) as copier:
        for batch in _chain(first, batches):
            for capture in _copied(batch.to_pylist(), source, copier, config):
                counts[str(capture)] += 1


def _chain(first: pa.RecordBatch, rest: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


def _copied(
    rows: list[Row], source: ranges.Source, copier: captures.Copier, config: CrawlConfig
) -> Iterator[Capture]:
    pieces = []
    longest = config.max_bytes + warc.RECORD_HEADER_BYTES + PACKING_BYTES
    for row in rows:
        if copier.has(row["link_id"], row["captured_at"], row["digest"], row["url"]):
            yield Capture.ALREADY
        elif row["length"] > longest:
            yield Capture.UNREADABLE
        else:
            pieces.append(ranges.Piece(row["file"], row["offset"], row["length"], row))
    for piece, found in source.read(pieces):
        if isinstance(found, Capture):
            yield found
        else:
            yield _copy(warc.parsed(found, config.max_bytes), piece.of, copier)


def _copy(record: warc.Record, row: Row, copier: captures.Copier) -> Capture:
    if record.kind == "unreadable":
        return Capture.UNREADABLE
    target = url.fetch_url(record.target) if record.kind == "response" else None
    key = canonical.url_key(target) if target else ""
    if not key or canonical.link_id(key) != row["link_id"]:
        return Capture.OTHER_RECORD
    if record.answer is None:
        return Capture.UNREADABLE
    promised = captures.digest_of(row["digest"])
    # Some count the framing of chunks in: then the record itself says the same as the index.
    if promised not in (
        None,
        captures.digest_of(record.payload_digest),
        warc.digest(record.answer.body),
    ):
        return Capture.OTHER_RECORD
    return copier.copy(record, row["link_id"], key, row["file"])
