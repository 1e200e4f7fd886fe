"""The dataset `tokens`: kept documents as GPT-2 ids in flat uint16 files, and how to read them.

On disk a split is one stream: its files in the order of their names, each a run of whole
documents, every document ended by END_OF_TEXT, two bytes an id, little-endian, no header.
Invariant: documents of a shard stand in the order of a keyed hash of their ids, so that the pages
of one host do not follow each other.
"""

import errno
import hashlib
import os
import secrets
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training import tokenizer
from training.config import BadInput
from training.schema import INDEX, SPLITS, TOKENS

VERSION = 2
"""Raise it when the same documents give other rows."""

_ORDER_KEY = b"webtext/tokens/1"
_ID = np.dtype("<u2")
_ROWS_PER_BATCH = 4096
_TOKENS_PER_BATCH = 2**24
_PROBE_BYTES = 65_536


def encode(
    documents: Iterable[pa.RecordBatch], corpus: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """One shard's kept documents as TOKENS rows, in the order of a keyed hash of their ids.

    `documents` has document_id and text, `corpus` has document_id, url, verdict and split. All ids
    of the shard (two bytes each) and the URLs of its kept documents are held in memory. ValueError
    where the two do not fit together.
    """
    kept = _kept(corpus)
    ids: dict[bytes, NDArray[np.uint16]] = {}
    for batch in documents:
        for document_id, found in _encode_batch(batch, kept):
            if document_id in ids:
                raise ValueError(f"documents: {document_id.hex()} stands there twice")
            ids[document_id] = found
    missing = min(kept.keys() - ids.keys(), default=None)
    if missing is not None:
        raise ValueError(f"corpus keeps {missing.hex()}, which documents does not have")
    for part in _parts(sorted(ids, key=_place), ids):
        yield _rows(part, [kept[each] for each in part], [ids[each] for each in part])


def write(batches: Iterable[pa.RecordBatch], folder: Path, name: str) -> pa.Table:
    """Write `<name>.<split>.bin` for both splits, whole or not at all; the INDEX of what is there.

    A split without documents gets an empty file, so that a missing file is always a fault.
    Several attempts may write the same rows at once: whichever ends last, the files are the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # An attempt given up for lost may still be writing: its files are not this one's.
    attempt = f"{os.getpid()}-{secrets.token_hex(8)}"
    final = {split: folder / f"{name}.{split}.bin" for split in SPLITS}
    unfinished = {
        split: path.with_name(f".{path.name}.{attempt}.tmp") for split, path in final.items()
    }
    try:
        index = _write_all(batches, unfinished)
        for split in SPLITS:
            unfinished[split].replace(final[split])
    finally:
        for path in unfinished.values():
            path.unlink(missing_ok=True)
    return pa.Table.from_batches(index, schema=INDEX)


@dataclass(frozen=True)
class Tokens:
    """One split's ids as one stream over its files.

    They are read by offset, not mapped: where a mapped file fails or shrinks, the system ends the
    process without a word.
    """

    paths: tuple[Path, ...]
    starts: NDArray[np.int64]
    """Where each shard begins in the stream, and last the stream's length."""
    identity: str
    """A hash of the files' names, lengths, first and last bytes: says whether these are the
    tokens of before without reading them all."""

    def __len__(self) -> int:
        return int(self.starts[-1])

    def windows(self, context: int) -> int:
        """How many windows of `context` ids there are, each with an id after it to foretell."""
        return max(0, (len(self) - 1) // context)

    def window(self, number: int, context: int) -> NDArray[np.uint16]:
        """Window `number`: `context` + 1 ids, the last being the next window's first."""
        if not 0 <= number < self.windows(context):
            raise IndexError(f"window {number} of {self.windows(context)}")
        return self._read(number * context, number * context + context + 1)

    def _read(self, begin: int, end: int) -> NDArray[np.uint16]:
        shard = int(np.searchsorted(self.starts, begin, side="right")) - 1
        parts = []
        while begin < end:
            last = min(end, int(self.starts[shard + 1]))
            parts.append(_ids(self.paths[shard], begin - int(self.starts[shard]), last - begin))
            begin = last
            shard += 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def open_split(folder: Path | str, split: str) -> Tokens:
    """The ids of `split` in `folder`; BadInput where there are no files, one is cut in half, or one
    is nothing that may be read."""
    try:
        lengths = {path: n for path, n in shard_lengths(folder, split).items() if n}
        identity = _identity(list(lengths))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise BadInput(f"{error.filename}: {error.strerror}") from error
    starts = np.cumsum([0, *lengths.values()], dtype=np.int64)
    return Tokens(paths=tuple(lengths), starts=starts, identity=identity)


def _ids(path: Path, offset: int, count: int) -> NDArray[np.uint16]:
    """Some ids of a file; OSError where it cannot be read or has fewer than it had."""
    found = np.fromfile(path, dtype=_ID, count=count, offset=offset * _ID.itemsize)
    if len(found) < count:
        said = f"ends at id {offset + len(found)}, and was longer when it was opened"
        raise OSError(errno.EIO, said, str(path))
    return found


def shard_lengths(folder: Path | str, split: str) -> dict[Path, int]:
    """How many ids each file of `split` has, in the order of the stream. BadInput where there are
    none, or one is cut in half; OSError where one is no file."""
    try:
        # Not by glob: from Python 3.12 on, a disk that does not answer would have no files there.
        there = [path for path in Path(folder).iterdir() if path.name.endswith(f".{split}.bin")]
    except (FileNotFoundError, NotADirectoryError):
        there = []
    if folders := [path for path in there if path.is_dir()]:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folders[0]))
    sizes = {path: path.stat().st_size for path in sorted(there)}
    if not sizes:
        raise BadInput(f"{folder}: no token files (*.{split}.bin) there; make the tokens first")
    for path, size in sizes.items():
        if size % _ID.itemsize:
            raise BadInput(f"{path}: ends in the middle of a token; make the tokens anew")
    return {path: size // _ID.itemsize for path, size in sizes.items()}


class _Kept(NamedTuple):
    """What the corpus says of a document that it keeps."""

    url: str
    split: str


def _kept(corpus: Iterable[pa.RecordBatch]) -> dict[bytes, _Kept]:
    found: dict[bytes, _Kept] = {}
    names = ("document_id", "verdict", "url", "split")
    for batch in corpus:
        columns = [batch.column(name).to_pylist() for name in names]
        for document_id, verdict, url, split in zip(*columns, strict=True):
            if verdict != "kept":
                continue
            if split not in SPLITS:
                raise ValueError(f"corpus: {document_id.hex()} has the unknown split {split!r}")
            if url is None:
                raise ValueError(f"corpus: {document_id.hex()} has no url")
            found[document_id] = _Kept(url, split)
    return found


def _encode_batch(
    batch: pa.RecordBatch, wanted: Container[bytes]
) -> Iterator[tuple[bytes, NDArray[np.uint16]]]:
    kept = pa.array(
        [each in wanted for each in batch.column("document_id").to_pylist()], pa.bool_()
    )
    rows = batch.select(["document_id", "text"]).filter(kept)
    if rows.column("text").null_count:
        raise ValueError("documents: a document that corpus keeps has no text")
    document_ids: list[bytes] = rows.column("document_id").to_pylist()
    flat, lengths = tokenizer.encode_batch(rows.column("text").to_pylist())
    ends = np.cumsum(lengths)
    ended = np.insert(flat, ends, tokenizer.END_OF_TEXT)
    bounds = ends + np.arange(1, len(ends) + 1)
    # Not strict: without documents np.split still gives one (empty) part.
    return zip(document_ids, np.split(ended, bounds[:-1]), strict=False)


def _place(document_id: bytes) -> tuple[bytes, bytes]:
    return hashlib.blake2b(document_id, key=_ORDER_KEY, digest_size=8).digest(), document_id


def _parts(order: list[bytes], ids: dict[bytes, NDArray[np.uint16]]) -> Iterator[list[bytes]]:
    """Batches of bounded rows and ids: a list column cannot hold 2**31 of them."""
    part: list[bytes] = []
    held = 0
    for document_id in order:
        if part and (len(part) == _ROWS_PER_BATCH or held > _TOKENS_PER_BATCH):
            yield part
            part, held = [], 0
        part.append(document_id)
        held += len(ids[document_id])
    if part:
        yield part


def _rows(
    document_ids: list[bytes], kept: list[_Kept], ids: list[NDArray[np.uint16]]
) -> pa.RecordBatch:
    offsets = np.cumsum([0, *(len(each) for each in ids)], dtype=np.int64)
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(ids)))
    urls = pa.array([each.url for each in kept], pa.string())
    splits = pa.array([each.split for each in kept], pa.string())
    columns = [pa.array(document_ids, pa.binary(16)), urls, splits, lists]
    return pa.RecordBatch.from_arrays(columns, schema=TOKENS)


def _write_all(
    batches: Iterable[pa.RecordBatch], paths: Mapping[str, Path]
) -> list[pa.RecordBatch]:
    with ExitStack() as stack:
        files = {split: stack.enter_context(path.open("xb")) for split, path in paths.items()}
        starts = dict.fromkeys(paths, 0)
        index = [_append(batch, files, starts) for batch in batches]
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    return index


def _append(
    batch: pa.RecordBatch, files: Mapping[str, BinaryIO], starts: dict[str, int]
) -> pa.RecordBatch:
    """Append a batch's ids to the files, move `starts` on; the batch's INDEX rows."""
    lists = batch.column("tokens")
    ids = lists.flatten().to_numpy().astype(_ID, copy=False)
    bounds = np.cumsum([0, *lists.value_lengths().to_pylist()], dtype=np.int64)
    lengths = np.diff(bounds)
    splits: list[str] = batch.column("split").to_pylist()
    begins = []
    for row, split in enumerate(splits):
        files[split].write(ids[bounds[row] : bounds[row + 1]].tobytes())
        begins.append(starts[split])
        starts[split] += int(lengths[row])
    columns = [*map(batch.column, ("document_id", "url", "split")), pa.array(begins, pa.int64())]
    return pa.RecordBatch.from_arrays([*columns, pa.array(lengths)], schema=INDEX)


def _identity(paths: list[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(_PROBE_BYTES)
            file.seek(max(0, size - _PROBE_BYTES))
            digest.update(f"{path.name} {size} ".encode() + first + file.read(_PROBE_BYTES))
    return digest.hexdigest()
