"""Where tokens came from: the documents that lie in given windows of a split.

Only the index beside the ids is asked, and of it only the files that a window touches. Rule: an
index that does not cover its file from the first id to the last is refused, never guessed from.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training import tokens
from training.config import BadInput

_PLACES = ("split", "start", "length")
_NAMES = ("document_id", "url")


class Document(msgspec.Struct, frozen=True):
    """A document of which some ids lie in the windows asked for."""

    url: str
    document_id: str
    """Hexadecimal."""
    windows: list[int]
    """Those of the windows asked for in which it has ids, ascending."""


@dataclass(frozen=True)
class _Spans:
    """Windows and the ids they are, `begins` included, `ends` not; all three ascend."""

    windows: NDArray[np.int64]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]

    def touching(self, begin: int, end: int) -> slice:
        """Which of them have one of the ids from `begin` on and before `end`."""
        first = np.searchsorted(self.ends, begin, side="right")
        return slice(int(first), int(np.searchsorted(self.begins, end, side="left")))


def documents(
    folder: Path | str, split: str, windows: Iterable[int], context: int
) -> list[Document]:
    """The documents with an id in one of these windows of `split`, each once, in stream order.

    Window w is what `Tokens.window` reads: the ids w * `context` to (w + 1) * `context` of the
    stream, both included. IndexError for a window that is not there; BadInput where token files or
    the index of a touched one are missing, or where the two do not fit. Of an index one row group
    at a time is held.
    """
    lengths = tokens.shard_lengths(folder, split)
    spans = _spans(windows, context, sum(lengths.values()))
    found: list[Document] = []
    start = 0
    for path, length in lengths.items():
        few = spans.touching(start, start + length)
        here = _Spans(spans.windows[few], spans.begins[few] - start, spans.ends[few] - start)
        if len(here.windows):
            index = path.with_name(path.name.removesuffix(f".{split}.bin") + ".parquet")
            found += _of_file(index, split, length, here)
        start += length
    return found


def _spans(windows: Iterable[int], context: int, length: int) -> _Spans:
    found = np.unique(np.fromiter(windows, np.int64))
    count = max(0, (length - 1) // context)
    for window in (*found[:1], *found[-1:]):
        if not 0 <= window < count:
            raise IndexError(f"window {window} of {count}")
    return _Spans(found, found * context, found * context + context + 1)


def _of_file(index: Path, split: str, length: int, spans: _Spans) -> Iterator[Document]:
    """The documents in `spans` of one file of `length` ids."""
    known = 0
    with _reading(index), pq.ParquetFile(index) as file:
        missing = {*_PLACES, *_NAMES} - set(file.schema_arrow.names)
        if missing:
            raise BadInput(f"{index}: has no column {min(missing)}; make the tokens anew")
        for group in range(file.num_row_groups):
            rows, begins, ends = _places(file.read_row_group(group, list(_PLACES)), split)
            if (begins != np.insert(ends, 0, known)[:-1]).any() or (begins >= ends).any():
                raise BadInput(
                    f"{index}: its documents leave gaps or overlap; make the tokens anew"
                )
            known = int(ends[-1]) if len(ends) else known
            hit = _touched(begins, ends, spans)
            if len(hit):
                names = file.read_row_group(group, list(_NAMES)).take(rows[hit])
                yield from _documents(names, begins[hit], ends[hit], spans)
    if known != length:
        raise BadInput(
            f"{index}: covers {known} of the {length} {split} ids beside it; make the tokens anew"
        )


def _places(
    rows: pa.Table, split: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The rows of `split`, and where the ids of each begin and end."""
    ours = np.flatnonzero(pc.equal(rows["split"], split).to_numpy())
    begins, lengths = (rows[name].to_numpy()[ours] for name in ("start", "length"))
    return ours, begins, begins + lengths


def _touched(
    begins: NDArray[np.int64], ends: NDArray[np.int64], spans: _Spans
) -> NDArray[np.int64]:
    """The numbers of the documents that lie in any of `spans`, ascending."""
    first = np.searchsorted(ends, spans.begins, side="right")
    after = np.searchsorted(begins, spans.ends, side="left")
    return np.unique(np.concatenate([*map(np.arange, first, after)]))


def _documents(
    names: pa.Table, begins: NDArray[np.int64], ends: NDArray[np.int64], spans: _Spans
) -> Iterator[Document]:
    columns = (names[name].to_pylist() for name in _NAMES)
    for document_id, url, begin, end in zip(*columns, begins, ends, strict=True):
        windows = spans.windows[spans.touching(begin, end)].tolist()
        yield Document(url=url, document_id=document_id.hex(), windows=windows)


@contextmanager
def _reading(index: Path) -> Iterator[None]:
    """Arrow's complaints name no file, and what the disk says is not the index's fault."""
    try:
        yield
    except FileNotFoundError as error:
        raise BadInput(
            f"{index}: is missing; copy it beside the ids, or make the tokens anew"
        ) from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, os.strerror(error.errno), str(index)) from error
        why = str(error).partition("\n")[0]
        raise BadInput(f"{index}: is damaged ({why}); make the tokens anew") from error
