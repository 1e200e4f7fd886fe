"""Looks links up in an index of captures, and chooses the capture that each is taken from.

An index says where a capture stands, not what is in it; `slices.copy` goes and fetches those that
were chosen. Rule: what is chosen depends on the set of rows alone, neither on their order nor on
how many files or tasks they came from.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from crawl import canonical, captures, cdx, cdxj, columnar, content, keys, selection, streams, url
from crawl.account import Account
from crawl.schema import CANDIDATES, CHOSEN, ID, Capture
from crawl.sought import Sought

VERSION = 1

INDEX_NAMES = (".parquet", ".cdx", ".cdxj", ".cdx.gz", ".cdxj.gz", ".cdx.zst", ".cdxj.zst",
               ".cdx.bz2", ".cdxj.bz2", ".cdx.xz", ".cdxj.xz")  # fmt: skip
ARCHIVE_NAMES = (".warc", ".warc.gz", ".warc.zst")
HEAD_BYTES = 4096
UNSAID = ("", "-", "unk")
"""What stands for a media type that nobody told."""
OUTSIDE = r"^$|^/|://|(?:^|/)\.\.(?:/|$)"
"""Names of archives that do not lie below one place: an index is no reason to ask for others."""
TOGETHER = 1 << 16
"""Rows among which is chosen at once, at least."""


def is_index(path: str) -> bool:
    """Whether a file that `crawl.archives` names is an index of captures, by its name or, where
    that says nothing, by its first bytes. Raises BadInput where it cannot be opened."""
    name = streams.name_of(path).lower()
    if name.endswith(ARCHIVE_NAMES):
        return False
    if name.endswith(INDEX_NAMES):
        return True
    with streams.open_plain(path) as raw:
        if raw.peek(4)[:4] == columnar.MAGIC:
            return True
    with streams.open_decoded(path) as stream:
        try:
            return cdx.is_index(stream.read(HEAD_BYTES))
        except (EOFError, *streams.DAMAGE):
            return False  # who reads it as an archive says what is wrong


def look(path: str, links: Iterable[pa.RecordBatch], account: Account) -> Iterator[pa.RecordBatch]:
    """The captures of the kept `links` that one index names, in batches of CANDIDATES: of status
    200, of a media type that a page can have, at a host of the link's own domain.

    `links` have the columns `sought.COLUMNS`. Every row is counted in `account.left_out` under one
    of `Capture`, but those that are handed on. Raises BadInput where the file is no index.
    """
    sought = Sought(links)
    if not len(sought):
        return
    with streams.open_plain(path) as raw:
        reader = columnar if raw.peek(4)[:4] == columnar.MAGIC else cdx
    for batch in reader.rows(path, sought, account):
        yield _found(batch, sought, account)


def choose(
    rows: Iterable[pa.RecordBatch], account: Account, *, observations: str
) -> Iterator[pa.RecordBatch]:
    """Of the CANDIDATES of a range of ids, in order of their links, the one of each link that is
    nearest to its first post, as CHOSEN; where they are equally near, or nothing is known of the
    post, the earliest. What is whole comes before what is cut. What the ledger, whose folder
    `observations` is, holds of them is counted, not handed on."""
    folder = Path(observations)
    held, place, begun = list[pa.RecordBatch](), 0, account.place
    for batch in rows:
        place += len(batch)
        if place > begun:
            held.append(batch)
            if sum(map(len, held)) >= TOGETHER:
                account.place = place
                yield _chosen(held, folder, account)
                held = []
    if held:
        account.place = place
        yield _chosen(held, folder, account)


def nearest(table: pa.Table, account: Account) -> pa.Table:
    """The one best row of each link, sorted by link; the others are counted."""
    day = table["captured_at"].cast(pa.date32()).cast(pa.int32())
    distance = pc.abs(pc.subtract(day, table["first_seen"].cast(pa.int32()))).fill_null(0)
    columns = ["is_truncated", "distance", "captured_at", "digest", "file", "offset", "url"]
    order = [(column, "ascending") for column in ["link_id", *columns]]
    ordered = table.append_column("distance", distance).sort_by(order).drop_columns(["distance"])
    first = selection.firsts(ordered)
    account.left_out[Capture.FARTHER] += len(ordered) - len(first)
    return first


def file_id(name: str) -> bytes:
    """Says to which range of tasks an archive belongs: all that is taken from it, to one."""
    return blake2b(name.encode(), digest_size=16).digest()


def _chosen(held: list[pa.RecordBatch], folder: Path, account: Account) -> pa.RecordBatch:
    table = nearest(pa.Table.from_batches(held, CANDIDATES), account)
    table = _missing(table, folder, account).combine_chunks()
    names = table["file"].combine_chunks().dictionary_encode()
    ids = pa.array([file_id(name) for name in names.dictionary.to_pylist()], ID)
    found = pa.Table.from_arrays(
        [ids.take(names.indices), *table.columns], schema=CHOSEN
    ).combine_chunks()
    return found.to_batches()[0] if len(found) else pa.RecordBatch.from_pylist([], CHOSEN)


def _missing(table: pa.Table, folder: Path, account: Account) -> pa.Table:
    """The rows of captures that the ledger does not hold."""
    if not len(table):
        return table
    known = captures.held(folder, table["link_id"][0].as_py(), table["link_id"][-1].as_py())
    is_missing = [
        not known.has(row["link_id"], row["captured_at"], row["digest"], row["url"])
        for row in table.select(["link_id", "captured_at", "digest", "url"]).to_pylist()
    ]
    account.left_out[Capture.ALREADY] += len(table) - sum(is_missing)
    return table.filter(pa.array(is_missing, pa.bool_()))


def _found(batch: pa.RecordBatch, sought: Sought, account: Account) -> pa.RecordBatch:
    """What of an index's rows is a capture of a link."""
    tests = {
        Capture.UNREADABLE: _is_whole,
        Capture.REVISIT: _holds_body,
        Capture.NOT_200: _is_200,
        Capture.NOT_HTML: _may_be_html,
    }
    for capture, test in tests.items():
        passing = batch.filter(test(batch))
        account.left_out[capture] += len(batch) - len(passing)
        batch = passing
    made = keys.of(batch["url"])
    places = sought.places(made.link_id)
    matching = places >= 0
    at_home = [
        _is_at_home(text, identifier)
        for text, identifier in zip(
            batch["url"].filter(pa.array(matching)).to_pylist(),
            made.link_id.filter(pa.array(matching)).to_pylist(),
            strict=True,
        )
    ]
    matching[matching] = at_home
    mask = pa.array(matching)
    account.left_out[Capture.NO_LINK] += len(batch) - sum(at_home)
    taken = batch.filter(mask)
    columns = {
        "link_id": made.link_id.filter(mask),
        "first_seen": sought.days(places[matching]),
        **{name: taken[name] for name in taken.schema.names},
    }
    return pa.RecordBatch.from_arrays(
        [columns[name] for name in CANDIDATES.names], schema=CANDIDATES
    )


def _is_at_home(text: str, identifier: bytes) -> bool:
    """Whether a capture stands under a host of its link's own domain. Those under another one, as
    caches of AMP, are not looked for: rows of a domain that is not sought are not read."""
    asked = url.fetch_url(text)
    if asked is None:
        return False
    return canonical.domain_id(canonical.key_host(url.host(asked))) == identifier[:4]


def _is_whole(batch: pa.RecordBatch) -> pa.Array:
    """Whether a row says what is needed to go and fetch it, from below `archive_base`."""
    tests = [
        batch["captured_at"].is_valid(),
        pc.greater(pc.utf8_length(batch["url"]), 0),
        pc.invert(pc.match_substring_regex(batch["file"], OUTSIDE)),
        pc.greater_equal(batch["offset"], 0),
        pc.greater(batch["length"], 0),
    ]
    whole = tests[0]
    for test in tests[1:]:
        whole = pc.and_(whole, test.fill_null(False))
    return whole


def _holds_body(batch: pa.RecordBatch) -> pa.Array:
    return pc.not_equal(batch["mime"], cdxj.REVISIT).fill_null(True)


def _is_200(batch: pa.RecordBatch) -> pa.Array:
    return pc.equal(batch["status"], 200).fill_null(False)


def _may_be_html(batch: pa.RecordBatch) -> pa.Array:
    kinds = pc.utf8_lower(pc.utf8_trim_whitespace(batch["mime"].fill_null("")))
    bare = pc.replace_substring_regex(kinds, r"\s*;.*$", "")
    known = [*content.HTML_TYPES, *content.VAGUE_TYPES, *UNSAID]
    return pc.is_in(bare, value_set=pa.array(known))
