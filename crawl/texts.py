"""Texts that were extracted before it was known which of them are documents, kept until those are
made: one file for each segment of the ledger.

Rule: nothing here is needed, so nothing of it is trusted. A text is found by all that it was made
of, in a folder that is named by how it was made; a file has its name when it is whole, and one that
is damaged holds nothing. It is a Parquet file with a digest of its footer behind it: pages have
checksums, and of a damaged footer Arrow ends the process.
"""

import contextlib
import os
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crawl.extractor import Reply
from crawl.schema import DOCUMENTS, ID, DocumentOutcome

REPLY = ("outcome", "text", "title", "author", "date")
TEXTS = pa.schema(
    [
        pa.field("link_id", ID, nullable=False),
        pa.field("made_of", pa.binary(16), nullable=False),
        *(DOCUMENTS.field(name) for name in REPLY),
    ]
)
"""Sorted by link_id, as the rows of a segment are."""

GROUP_ROWS = 64
GROUP_CHARACTERS = 1 << 20
"""A group of rows is read at once, for one text: pages of one range lie in many segments."""
HELD_BYTES = 64 << 20
"""Of groups that a reader keeps at hand, beside the one that it reads."""
HELD_FILES = 256
"""Whose groups' places a reader keeps at hand."""
SEAL_BYTES = 16
FOOTER_END = 8
"""The length of a footer, in four bytes, and the name of the format."""
UNREADABLE = (OSError, ValueError, pa.ArrowException)

Row = Mapping[str, Any]
Text = tuple[Row, Reply]
"""A row of the ledger, and what was extracted from its response."""


def asked(row: Row) -> str:
    """The address that a page, or a row of the ledger, is read under."""
    return str(row["final_url"] or row["url"])


def made_of(row: Row) -> bytes:
    """Names all that the text of a page, or of a row of the ledger, is made of."""
    response = [row[name] for name in ("warc_file", "warc_offset", "warc_length", "digest")]
    parts = msgspec.json.encode([*response, asked(row), row["content_type"]])
    return blake2b(parts, digest_size=16).digest()


def path_of(folder: Path, warc_file: str) -> Path:
    """Where the texts of a segment are, by its WARC file's name."""
    return folder / f"{warc_file.removesuffix('.warc.gz')}.texts"


def write(path: Path, texts: Iterable[Text]) -> None:
    """Writes the texts of a segment, in the order of its rows, holding few of them at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # An attempt that was taken for lost may be writing the same.
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    how = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}
    try:
        with hidden.open("x+b") as file:
            with pq.ParquetWriter(file, TEXTS, write_statistics=["link_id"], **how) as writer:
                for group in _groups(texts):
                    writer.write_table(pa.Table.from_pylist(group, TEXTS))
            seal = _seal(file, file.seek(0, os.SEEK_END))
            file.write(seal)
            file.flush()
            os.fsync(file.fileno())
        hidden.rename(path)
    finally:
        hidden.unlink(missing_ok=True)


def _groups(texts: Iterable[Text]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    characters = 0
    for row, reply in texts:
        name = {"link_id": row["link_id"], "made_of": made_of(row)}
        group.append(name | msgspec.structs.asdict(reply))
        characters += len(reply.text or "")
        if len(group) >= GROUP_ROWS or characters >= GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _seal(file: IO[bytes], end: int) -> bytes:
    """The digest of the footer of a Parquet file that ends there."""
    file.seek(end - FOOTER_END)
    size = int.from_bytes(file.read(4), "little") + FOOTER_END
    file.seek(end - size)
    return blake2b(file.read(size), digest_size=SEAL_BYTES).digest()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """The Parquet file of a file of texts. Raises one of UNREADABLE."""
    with path.open("rb") as file:
        end = file.seek(-SEAL_BYTES, os.SEEK_END)
        if file.read() != _seal(file, end):
            raise ValueError(f"{path}: its footer is damaged")
        with pa.memory_map(str(path)) as mapped:
            whole = pa.BufferReader(mapped.read_buffer(end))
            with pq.ParquetFile(whole, page_checksum_verification=True) as found:
                yield found


class Texts:
    """What was kept in a folder, to be read page by page; quickest in the order of their ids."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places = lru_cache(HELD_FILES)(self._look)
        self._held = OrderedDict[tuple[str, int], pa.Table]()
        self._bytes = 0

    def find(self, page: Row) -> Reply | None:
        """The text of a page that has one; None where it was not kept, or cannot be read."""
        name, link_id, key = page["warc_file"], page["link_id"], made_of(page)
        try:
            for number, (first, last) in enumerate(self._places(name)):
                if first <= link_id <= last:
                    group = self._group(name, number)
                    at = pc.index(group["made_of"], pa.scalar(key, pa.binary(16))).as_py()
                    if at >= 0:
                        return _reply(group.slice(at, 1).to_pylist()[0])
        except UNREADABLE:
            return None  # not there, or damaged: then it is extracted as if it were not
        return None

    def _look(self, name: str) -> list[tuple[bytes, bytes]]:
        """The first and the last id of each group of a file."""
        with _opened(path_of(self._folder, name)) as file:
            if file.schema_arrow != TEXTS:
                raise ValueError(f"{name}: not what was written")
            groups = (file.metadata.row_group(n) for n in range(file.metadata.num_row_groups))
            ids = [group.column(0).statistics for group in groups]
        if not all(ids):
            raise ValueError(f"{name}: does not say what it holds")
        return [(one.min, one.max) for one in ids]

    def _group(self, name: str, number: int) -> pa.Table:
        key = name, number
        if key not in self._held:
            with _opened(path_of(self._folder, name)) as file:
                self._held[key] = file.read_row_group(number)
            self._bytes += self._held[key].nbytes
            while len(self._held) > 1 and self._bytes > HELD_BYTES:
                _, oldest = self._held.popitem(last=False)
                self._bytes -= oldest.nbytes
        self._held.move_to_end(key)
        return self._held[key]


def _reply(row: Row) -> Reply:
    text = {name: row[name] for name in REPLY[1:]}
    return Reply(DocumentOutcome(row["outcome"]), **text)
