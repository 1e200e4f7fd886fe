"""Datasets on disk: whole or not at all.

Every file is written under a temporary name, synced and renamed, so that a reader never sees half
of one. A dataset is a folder of Parquet files; whether a file is an id range or a task's rows in
a row group for every range (`scattered`), a reader asks for a range and gets its rows.
"""

import errno
import itertools
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.failures import Damaged
from pipeline.manifest import Manifest
from pipeline.windows import keys_of, order_of, windows

Shape = TypeVar("Shape")

ROW_GROUP_BYTES = 64 << 20
"""Arrow bytes in a row group: large enough to compress, small enough to hold beside others."""
PARTITIONS = b"webtext.partitions"
"""Key of the file's metadata that maps a range to its row groups."""
FORMAT: dict[str, Any] = {"compression": "zstd"}
GLOB = re.compile(r"[*?\[]")
UNSYNCED = (errno.EINVAL, errno.ENOTSUP)
"""What file systems answer that cannot sync a folder, some network and FUSE mounts among them."""


def range_of(identifier: bytes, shards: int) -> int:
    """The shard whose id range holds this id: ranges split the first four bytes evenly."""
    return int.from_bytes(identifier[:4], "big") * shards >> 32


def write_bytes(path: Path, content: bytes) -> None:
    """Put a file in place, whole."""
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:  # nobody knows the temporary name; and a full disk names none
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, value: Any) -> None:
    """Put a JSON document in place, whole; keys in the order given."""
    write_bytes(path, json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")


def read_json(path: Path) -> Any:
    """The JSON document at this path."""
    return json.loads(path.read_bytes())


def read_as(
    path: Path, shape: type[Shape], remedy: str | None = None, maker: str = "rebuild"
) -> Shape:
    """Our own JSON document at this path. `Damaged` where it is gone or is none of this shape, with
    what to remove, the file alone if no `remedy` says otherwise, before the command `maker` makes
    it again."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=shape)
    except FileNotFoundError as error:
        raise _gone(path, remedy, maker) from error
    except ValueError as error:
        raise _damaged(path, error, remedy or "remove it", maker) from error


def _gone(path: Path, remedy: str | None, maker: str = "rebuild") -> Damaged:
    first = f"{remedy} and " if remedy else ""
    return Damaged(f"{path}: is gone; {first}run `webtext {maker}`")


def _damaged(path: Path, why: object, remedy: str, maker: str = "rebuild") -> Damaged:
    return Damaged(f"{path}: is damaged ({why}); {remedy} and run `webtext {maker}`")


def size(count: float) -> str:
    """Bytes for a person, in powers of 1000: 1.2 MB."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.3g} {units[0]}"


def digest_of(path: Path) -> str:
    """blake2b-128 of a file's bytes, hexadecimal."""
    content = blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            content.update(chunk)
    return content.hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it, both synced, when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two machines can have a process of one number, and one task where one is taken for lost.
    attempt = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{attempt}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what killed tasks left half written in a folder that nobody else writes."""
    for left in folder.rglob("*.tmp"):
        left.unlink(missing_ok=True)


def write_rows(path: Path, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write rows in the order given, in row groups of about `ROW_GROUP_BYTES`."""
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, **FORMAT) as writer:
        held: list[pa.RecordBatch] = []
        for batch in batches:
            held.append(batch)
            if sum(b.nbytes for b in held) >= ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(held, schema))
                held.clear()
        if held:
            writer.write_table(pa.Table.from_batches(held, schema))


@contextmanager
def scattered_writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[int, pa.Table], None]]:
    """A function that writes rows of one id range as a row group; ranges come in order, rows sorted
    by the first column."""
    groups: dict[int, list[int]] = {}
    count = itertools.count()
    # Without dictionaries: of ids and addresses they cost more, to read above all, than they save.
    with pq.ParquetWriter(path, schema, use_dictionary=False, **FORMAT) as writer:

        def write(shard: int, rows: pa.Table) -> None:
            if len(rows):
                groups.setdefault(shard, []).append(next(count))
                writer.write_table(rows, row_group_size=len(rows))

        yield write
        writer.add_key_value_metadata({PARTITIONS: json.dumps(groups).encode()})


@dataclass(frozen=True)
class Dataset:
    """One generation of a dataset, to be read."""

    name: str
    fingerprint: str
    folder: Path
    shards: int
    scattered: bool = False

    @property
    def manifest(self) -> Manifest:
        """The fold of its reports; `Damaged` if it is gone or torn: a rebuild folds them anew."""
        return read_as(self.folder / "manifest.json", Manifest)

    def require_files(self) -> None:
        """`Damaged` where a file of the manifest is gone or has another length."""
        for file in self.manifest.files:
            path = self.folder / file.name
            if not path.exists():
                raise _gone(path, f"remove {self.folder}")
            if path.stat().st_size != file.bytes:
                raise _damaged(path, "not as long as written", f"remove {self.folder}")

    def files(self) -> list[Path]:
        """Its Parquet files, in order."""
        return sorted(self.folder.glob("[0-9]*.parquet"))

    def patterns(self) -> list[str]:
        """The same for duckdb, which takes every name for a glob."""
        return [GLOB.sub(r"[\g<0>]", str(path)) for path in self.files()]

    def read(self, shard: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of one id range, in the order they were written; if scattered, the tasks' rows
        merged by key, and all rows of a key in one batch."""
        if not self.scattered:
            yield from _batches(self.folder / f"{shard:05d}.parquet", columns, None)
            return
        streams = [
            _batches(path, columns, groups[shard])
            for path in self.files()
            if shard in (groups := range_groups(path))
        ]
        if streams:
            schema = pq.read_schema(self.files()[0])
            wanted = pa.schema([schema.field(name) for name in columns or schema.names])
            for window in windows(streams, wanted.names[0], wanted):
                if len(streams) > 1:
                    window = window.take(pa.array(order_of(keys_of(window[wanted.names[0]]))))
                yield from window.combine_chunks().to_batches()

    def all(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Every row, shard by shard."""
        for path in self.files():
            yield from _batches(path, columns, None)

    def rows(self, ids: Sequence[bytes], columns: Sequence[str]) -> pa.Table:
        """The rows of these ids, sorted by id; the id column is the first of the schema.

        Reads only the files whose range holds one of the ids.
        """
        wanted: dict[int, list[bytes]] = {}
        for identifier in sorted(set(ids)):
            wanted.setdefault(range_of(identifier, self.shards), []).append(identifier)
        found = [self._rows_of(shard, few, columns) for shard, few in sorted(wanted.items())]
        return pa.concat_tables(found) if found else self._rows_of(0, [], columns)

    def _rows_of(self, shard: int, ids: Sequence[bytes], columns: Sequence[str]) -> pa.Table:
        path = self.folder / f"{shard:05d}.parquet"
        with _reading(path):
            key = pq.read_schema(path).field(0)
            wanted = pc.field(key.name).isin(pa.array(ids, key.type))
            return pq.read_table(path, columns=list(columns), filters=wanted)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Arrow's complaints name no file: `Damaged` does, and so does what the disk itself says."""
    try:
        yield
    except FileNotFoundError as error:
        raise _gone(path, f"remove {path.parent}") from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise _damaged(path, error, f"remove {path.parent}") from error


def range_groups(path: Path) -> dict[int, list[int]]:
    """The row groups of each id range that a scattered file has rows of."""
    with _reading(path):
        known = pq.read_metadata(path).metadata or {}
    try:
        return msgspec.json.decode(known[PARTITIONS], type=dict[int, list[int]])
    except (KeyError, msgspec.DecodeError) as error:
        raise _damaged(path, "no id ranges", f"remove {path.parent}") from error


def _batches(
    path: Path, columns: Sequence[str] | None, groups: list[int] | None
) -> Iterator[pa.RecordBatch]:
    with _reading(path), pq.ParquetFile(path) as file:
        yield from file.iter_batches(
            batch_size=1024, columns=list(columns) if columns else None, row_groups=groups
        )
