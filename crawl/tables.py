"""CSV and Parquet with a column of URLs, and perhaps of scores and the rest of a post.

Columns are known by the names that Reddit gives them, in any case. A row too short or too long is a
fault and costs no neighbour.
"""

import datetime
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from csv import reader as text_rows
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from crawl.account import Account, fault
from crawl.posts import Post, Posts
from crawl.schema import BadInput, LeftOut
from crawl.streams import DAMAGE, Opened, Part, open_plain

ROWS = 16384
BLOCK = 4 << 20
"""Bytes of a CSV file parsed at once; a longer row cannot be read."""
FIELDS = tuple(name for name in Post.__struct_fields__ if name != "meta")
FLAGS = frozenset(
    name for name in FIELDS if name.startswith("is_") or name in ("over_18", "promoted")
)
NUMBERS = frozenset({"score", "created_utc"})
FALSE = frozenset({"", "0", "0.0", "false", "f", "no", "n", "none", "null", "nan"})
NO_TABLE = (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OverflowError, KeyError)
"""The last three: dates and zones that Python does not know, columns of one name."""
SEPARATORS = (",", "\t", ";", "|")


def separator(head: str) -> str | None:
    """What separates the columns of a CSV file that begins with this line; None where no column is
    named `url`."""
    found = (sign for sign in SEPARATORS if "url" in _columns(_names(head, sign)))
    return next(found, None)


def csv(path: str, head: str, account: Account) -> Iterator[Posts]:
    """The rows of a CSV file whose first line is `head`, compressed or not, after the first
    `account.place` ones. BadInput where it cannot be read."""
    sign = separator(head) or ","
    columns = _columns(_names(head, sign))
    bad: list[int] = []

    def pass_over(row: Any) -> str:
        bad.append(row.number)
        return "skip"

    opened = Opened(Part(path))
    with closing(opened.stream), _told(path):
        content = _WholeLines(opened)
        reader = pc.open_csv(
            content,
            pc.ReadOptions(use_threads=False, block_size=BLOCK),
            pc.ParseOptions(delimiter=sign, newlines_in_values=True, invalid_row_handler=pass_over),
            pc.ConvertOptions(
                include_columns=list(columns.values()),
                column_types=dict.fromkeys(columns.values(), pa.binary()),
                strings_can_be_null=False,
            ),
        )
        row, begun = 1, account.place  # the first row is the head
        for batch in itertools.chain(reader, [None]):
            row += batch.num_rows if batch else 0
            while bad and (bad[0] <= row or batch is None):
                number = bad.pop(0)
                row += 1
                if row > begun:
                    fault(account, f"{path}: row {number:,}", LeftOut.MALFORMED)
            account.bytes_read = opened.bytes_read
            if row > begun:
                account.place = row
                if batch:
                    yield _posts(batch, columns)
        if content.failure:
            raise content.failure


def parquet(path: str, account: Account) -> Iterator[Posts]:
    """The rows of a Parquet file after the first `account.place` ones. BadInput where it has no
    column named `url`, or cannot be read."""
    raw = open_plain(path)
    with closing(raw), _told(path):
        file = pq.ParquetFile(raw)
        columns = _columns(file.schema_arrow.names)
        if "url" not in columns:
            raise BadInput(f"{path}: has no column named url")
        row, begun = 0, account.place
        for batch in file.iter_batches(ROWS, columns=list(columns.values())):
            row += batch.num_rows
            if row > begun:
                account.place, account.bytes_read = row, raw.tell()
                yield _posts(batch, columns)


class _WholeLines(io.RawIOBase):
    """The content of a file up to its last line end, where it breaks off: `failure` says why then,
    once all before it is read."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._ready = b""
        self._tail = b""
        self._ended = False
        self.failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            self._advance()
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _advance(self) -> None:
        try:
            some = self._opened.read_some()
        except (EOFError, *DAMAGE) as error:
            self._ended, self.failure = True, error
            return
        self._ended = not some
        whole = some.rfind(b"\n") + 1 if some else 0
        if whole or self._ended:
            self._ready, self._tail = self._tail + some[:whole], some[whole:]
        else:
            self._tail += some


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except BadInput:
        raise
    # The last: zones and dates that Python does not know, columns of one name.
    except (
        pa.ArrowInvalid,
        pa.ArrowNotImplementedError,
        ValueError,
        OverflowError,
        KeyError,
    ) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"{path}: cannot be read as a table: {said}") from error


def _names(head: str, sign: str) -> list[str]:
    return next(text_rows([head], delimiter=sign), [])


def _columns(names: Iterable[str]) -> dict[str, str]:
    """The file's own name of each field that it has."""
    known = {name.strip().lower(): name for name in reversed(list(names))}
    return {field: known[field] for field in FIELDS if field in known}


def _posts(batch: pa.RecordBatch, columns: Mapping[str, str]) -> Posts:
    read = {
        field: [_value(field, value) for value in _undecoded(batch[name]).to_pylist()]
        for field, name in columns.items()
    }
    rows = [
        Post(**{"id": ""} | dict(zip(read, row, strict=True)))
        for row in zip(*read.values(), strict=True)
    ]
    for post in rows:
        post.id = post.id or (_identity(post) if post.score is not None else "")
    return Posts(rows, scored="score" in columns, dated="created_utc" in columns)


def _undecoded(column: pa.Array) -> pa.Array:
    """The same column; text as bytes, since a file can say of any that they are UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_string_view(column.type):
        return column.cast(pa.binary())
    return column.cast(pa.large_binary()) if pa.types.is_large_string(column.type) else column


def _value(field: str, value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace").strip()
    if field in FLAGS:
        return str(value).lower() not in FALSE
    if field == "created_utc":
        return _moment(value)
    if field in NUMBERS:
        return _number(value)
    return str(value) if value not in (None, "") else None


def _moment(value: Any) -> int | float | None:
    """Seconds since 1970, of a number, or of a date or a time with the zone of Greenwich where it
    names none."""
    if isinstance(value, str) and (number := _number(value)) is None:
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return None
    elif isinstance(value, str):
        return number
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime.combine(value, datetime.time())
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=value.tzinfo or datetime.UTC).timestamp()
    return _number(value)


def _number(value: Any) -> int | float | None:
    try:
        return value if isinstance(value, int) else float(value)
    except (TypeError, ValueError):
        return None


def _identity(post: Post) -> str:
    """For a row without an id: two that say the same are the same post."""
    said = repr((post.url, post.score, post.created_utc, post.subreddit))
    return f"row-{blake2b(said.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"
