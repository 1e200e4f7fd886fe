"""Replays a web archive into the ledger: every good capture of a link that is kept, also where the
body stands in another record of the same file.

An archive is read once, from its beginning to its end. Which of a link's captures becomes its page
is for `selection.select` to say.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from crawl import canonical, captures, revisits, url, warc
from crawl.config import CrawlConfig
from crawl.schema import Capture
from crawl.sought import Sought

VERSION = 3


def replay(
    path: str,
    links: Iterable[pa.RecordBatch],
    observations: str,
    config: CrawlConfig,
    counts: Counter[str],
) -> None:
    """Copies the captures of the kept `links` from one WARC file (gz, zst or plain).

    `links` have the columns `sought.COLUMNS`. Every record of the archive is counted in `counts`
    under one of `Capture`. Raises BadInput where the file is missing or is no WARC file; what
    damage takes is counted.
    """
    sought = Sought(links)
    originals = revisits.Originals(path, config.max_bytes)
    with captures.copying(Path(observations), path, config) as copier:
        for record in warc.records(path, config.max_bytes):
            originals.note(record)
            counts[str(_replay(record, path, sought, copier, originals))] += 1


def _replay(
    record: warc.Record,
    path: str,
    sought: Sought,
    copier: captures.Copier,
    originals: revisits.Originals,
) -> Capture:
    if record.kind == "unreadable":
        return Capture.UNREADABLE
    if record.kind == "revisit" and not record.repeated:
        return Capture.REVISIT
    if record.kind not in ("response", "revisit"):
        return Capture.NOT_RESPONSE
    target = url.fetch_url(record.target)
    if target is None:
        return Capture.NO_LINK
    key = canonical.url_key(target)
    link_id = canonical.link_id(key)
    if link_id not in sought:
        return Capture.NO_LINK
    meant = originals.resolved(record) if record.kind == "revisit" else record
    return copier.copy(meant, link_id, key, path) if meant else Capture.REVISIT
