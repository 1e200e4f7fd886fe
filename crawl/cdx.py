"""Rows of a textual index of captures: CDX, and CDXJ as Common Crawl and pywb write it.

A line is a key (the URL in SURT, or plain), a time stamp, and the rest: a JSON object, or columns
that the legend in the first line names. gz, also many members one after another (ZipNum), zst, bz2,
xz and plain. Where the domain of a line is not sought, its key is all that is looked at.
"""

import codecs
import datetime
import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import pyarrow as pa

from crawl.account import Account, fault
from crawl.lines import Block, blocks
from crawl.schema import NOW, BadInput, Capture
from crawl.sought import Sought
from crawl.streams import DAMAGE, Part

ROWS = pa.schema(
    [
        pa.field("url", pa.string()),
        pa.field("captured_at", NOW),
        pa.field("status", pa.int64()),
        pa.field("mime", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("is_truncated", pa.bool_()),
        pa.field("file", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
    ]
)
"""What of an index is looked at, whatever its form; null where it does not say, or cannot."""
LEGENDS = {9: "N b a m s k r V g", 10: "N b a m s k r M V g", 11: "N b a m s k r M S V g"}
"""Of lines without one, by the number of their columns."""
LETTERS = {"a": "url", "b": "stamp", "m": "mime", "s": "status", "k": "digest", "S": "length",
           "V": "offset", "g": "file"}  # fmt: skip
STAMP = re.compile(r"\d{8}(?:\d{6})?")
NUMBER = re.compile(r"\d{1,18}")
LINE = re.compile(rb"\S+ \d{8,14} \S")
"""How a line of an index begins."""
HOST = re.compile(rb"(?:[a-z]+://)?\(?([^)/:! ]+)[)/: ]")
"""The host of a key: in SURT, its labels in reverse order, or as it stands in a URL."""


class Line(msgspec.Struct):
    """The object of a CDXJ line; numbers may stand in quotes."""

    url: str = ""
    mime: str | None = None
    detected: str | None = msgspec.field(name="mime-detected", default=None)
    status: str | int | None = None
    digest: str | None = None
    truncated: str | None = None
    length: str | int | None = None
    offset: str | int | None = None
    filename: str = ""


DECODER = msgspec.json.Decoder(Line)


class _Row(NamedTuple):
    """A row of ROWS."""

    url: str | None
    captured_at: datetime.datetime | None
    status: int | None
    mime: str | None
    digest: str | None
    is_truncated: bool
    file: str | None
    offset: int | None
    length: int | None


def is_index(head: bytes) -> bool:
    """Whether a decoded text that begins so is an index."""
    first = head.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
    return first.startswith((b" CDX ", b"!meta ", b"!OpenWayback-CDXJ")) or bool(LINE.match(first))


def rows(path: str, sought: Sought, account: Account) -> Iterator[pa.RecordBatch]:
    """The rows of the domains that are sought, in batches of ROWS, from `account.place` on.

    Raises BadInput where the file holds no index, has no lengths, or is damaged.
    """
    reader = _Reader(path, sought, account)
    try:
        for block in blocks(Part(path)):
            found = reader.rows_of(block)
            if block.end > account.place:
                account.place, account.bytes_read = block.end, block.bytes_read
                yield found
    except (EOFError, *DAMAGE) as error:
        if isinstance(error, OSError) and error.errno:  # the disk's or the network's own
            raise
        raise BadInput(f"{path}: is damaged, or ends too early: {error}") from error


class _Reader:
    def __init__(self, path: str, sought: Sought, account: Account) -> None:
        self._path, self._sought, self._account = path, sought, account
        self._legend: list[str] | None = None
        self._begun = False

    def rows_of(self, block: Block) -> pa.RecordBatch:
        """The rows of a block's lines. What of them stands before the account's place was counted:
        of it, only a legend is kept."""
        found: list[_Row] = []
        counted = block.end > self._account.place
        lines = bytes(block.lines).split(b"\n")
        if not self._begun:
            lines = self._begin(lines, counted=counted)
        passed = 0
        domain, is_sought = b"", False
        for line in lines if counted else ():
            if not line.startswith(domain) or not domain:
                domain, is_sought = self._domain_of(line)
            if is_sought:
                found += self._row(line)
            elif line.rstrip() and not _is_remark(line):
                passed += 1
        self._account.left_out[Capture.NO_LINK] += passed
        columns = zip(*found, strict=True) if found else [()] * len(ROWS)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, ROWS.types, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=ROWS)

    def _begin(self, lines: list[bytes], *, counted: bool) -> list[bytes]:
        """The first block's lines, from the first one that is one of an index."""
        at = next((n for n, line in enumerate(lines) if is_index(line)), None)
        if at is None:
            raise BadInput(f"{self._path}: is no index of captures (CDX, CDXJ or Parquet)")
        for line in filter(bytes.strip, lines[:at] if counted else []):
            self._fault(line)
        first = lines[at]
        words = first.decode("utf-8", "replace").split()
        if first.startswith(b" CDX "):
            self._legend = words[1:]
        elif not _is_remark(first) and not words[2].startswith("{"):
            self._legend = LEGENDS.get(len(words), "").split()
        if self._legend is not None:
            self._require(self._legend)
        self._begun = True
        return lines[at:]

    def _require(self, legend: list[str]) -> None:
        lacking = [letter for letter in LETTERS if letter not in legend and letter not in "mk"]
        if lacking:
            raise BadInput(
                f"{self._path}: its lines lack the columns {' '.join(lacking)} (S is the length of "
                "a record): name the WARC files themselves, or index them anew as CDX-11 or CDXJ"
            )

    def _domain_of(self, line: bytes) -> tuple[bytes, bool]:
        """The beginning of a line that names its host, and whether its domain is sought."""
        found = HOST.match(line)
        if not found:
            return b"", False
        name = found.group(1).decode("utf-8", "replace").strip(",")
        host = ".".join(reversed(name.split(","))) if "," in name else name
        return found.group(), self._sought.is_of_domain(host)

    def _row(self, line: bytes) -> list[_Row]:
        """The row of a line; none where it cannot be read, counted."""
        try:
            text = line.decode("utf-8", "replace").rstrip("\r")
            if text:
                _, stamp, rest = text.split(" ", 2)
                row = _of_json(stamp, rest) if rest[:1] == "{" else self._of_columns(text)
                if None in (row.captured_at, row.offset, row.length):
                    raise ValueError("a moment or a number is none")
                return [row]
        except (ValueError, msgspec.DecodeError):
            self._fault(line)
        return []

    def _fault(self, line: bytes) -> None:
        fault(self._account, f"{self._path}: {line[:80]!r}", Capture.UNREADABLE)

    def _of_columns(self, text: str) -> _Row:
        named = zip(self._legend or (), text.split(" "), strict=True)
        said = {LETTERS[sign]: value for sign, value in named if sign in LETTERS and value != "-"}
        return _Row(
            said.get("url"),
            _moment(said.get("stamp", "")),
            _number(said.get("status")),
            said.get("mime"),
            said.get("digest"),
            False,
            said.get("file"),
            _number(said.get("offset")),
            _number(said.get("length")),
        )


def _of_json(stamp: str, rest: str) -> _Row:
    said = DECODER.decode(rest)
    return _Row(
        said.url,
        _moment(stamp),
        _number(said.status),
        said.detected or said.mime,
        said.digest,
        bool(said.truncated),
        said.filename,
        _number(said.offset),
        _number(said.length),
    )


def _is_remark(line: bytes) -> bool:
    return line.startswith((b" CDX ", b"!"))


def _moment(stamp: str) -> datetime.datetime | None:
    if not STAMP.fullmatch(stamp):
        return None
    year, rest = int(stamp[:4]), stamp[4:].ljust(10, "0")
    parts = [int(rest[at : at + 2]) for at in range(0, 10, 2)]
    try:
        return datetime.datetime(year, *parts, tzinfo=datetime.UTC)  # type: ignore[misc,arg-type]
    except ValueError:
        return None


def _number(value: str | int | None) -> int | None:
    text = str(value)
    return int(text) if NUMBER.fullmatch(text) else None
