"""Rows of a columnar index of captures: Parquet with the columns of Common Crawl's table.

What is read is what can hold a link: row groups whose SURT keys meet no domain that is sought are
passed over by their statistics, and of the others only rows of such domains are handed on.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crawl.account import Account
from crawl.cdx import ROWS
from crawl.schema import BadInput, Capture
from crawl.sought import Sought
from crawl.streams import open_plain

BATCH_ROWS = 1 << 16
MAGIC = b"PAR1"
NEEDED = {
    "url": "url",
    "captured_at": "fetch_time",
    "file": "warc_filename",
    "offset": "warc_record_offset",
    "length": "warc_record_length",
}
"""The columns without which nothing can be found, by the names that ROWS gives them."""
HELPFUL = ("url_host_name", "fetch_status", "content_mime_detected", "content_mime_type",
           "content_digest", "content_truncated")  # fmt: skip
KEY = "url_surtkey"


def rows(path: str, sought: Sought, account: Account) -> Iterator[pa.RecordBatch]:
    """The rows of the domains that are sought, in batches of ROWS, after the first `account.place`
    rows. Raises BadInput where the file is no such table or cannot be read."""
    raw = open_plain(path)
    with closing(raw), _told(path):
        file = pq.ParquetFile(raw)
        names = file.schema_arrow.names
        lacking = sorted(set(NEEDED.values()) - set(names))
        if lacking:
            raise BadInput(f"{path}: is no index of captures: has no column {', '.join(lacking)}")
        columns = [name for name in (*NEEDED.values(), *HELPFUL) if name in names]
        place = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            is_read = place + count <= account.place
            if not is_read and not _may_hold(file, group, sought):
                account.left_out[Capture.NO_LINK] += count
                account.place, is_read = place + count, True
            for batch in () if is_read else _batches(file, group, columns):
                place += len(batch)
                if place > account.place:
                    found = _of_domains(batch, sought)
                    account.left_out[Capture.NO_LINK] += len(batch) - len(found)
                    account.place, account.bytes_read = place, raw.tell()
                    yield _named(found)
            place += count if is_read else 0


def _may_hold(file: pq.ParquetFile, group: int, sought: Sought) -> bool:
    """Whether a row group can hold a row of a domain that is sought, by its statistics."""
    names = file.schema_arrow.names
    if KEY not in names:
        return True
    found = file.metadata.row_group(group).column(names.index(KEY)).statistics
    if found is None or not found.has_min_max:
        return True
    first, last = (_text(value) for value in (found.min, found.max))
    return first is None or last is None or sought.may_be_between(first, last)


def _text(value: str | bytes) -> str | None:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:  # cut within a character
        return None


def _batches(file: pq.ParquetFile, group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    yield from file.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns))


def _of_domains(batch: pa.RecordBatch, sought: Sought) -> pa.RecordBatch:
    if "url_host_name" not in batch.schema.names:
        return batch
    hosts = batch["url_host_name"].cast(pa.string()).dictionary_encode()
    wanted = [name is None or sought.is_of_domain(name) for name in hosts.dictionary.to_pylist()]
    verdicts = pa.array(wanted, pa.bool_()).take(hosts.indices).fill_null(True)
    return batch.filter(verdicts)


def _named(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns by our names, in our types; null for what the table does not have."""
    names = batch.schema.names

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return batch[name].cast(kind) if name in names else pa.nulls(len(batch), kind)

    found = {name: column(theirs, ROWS.field(name).type) for name, theirs in NEEDED.items()}
    detected, said = (column(f"content_mime_{one}", pa.string()) for one in ("detected", "type"))
    # A table without the column is a selection of good captures, as a query makes one.
    status = column("fetch_status", pa.int64())
    found["status"] = status if "fetch_status" in names else status.fill_null(200)
    found["mime"] = pc.coalesce(detected, said)
    found["digest"] = column("content_digest", pa.string())
    found["is_truncated"] = column("content_truncated", pa.string()).is_valid()
    return pa.RecordBatch.from_arrays([found[name] for name in ROWS.names], schema=ROWS)


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except BadInput:
        raise
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, KeyError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"{path}: cannot be read as an index of captures: {said}") from error
