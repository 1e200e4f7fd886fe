"""Which documents lie in windows, against a walk over every id."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training import provenance, tokenizer, tokens
from training.config import BadInput
from training.provenance import Document
from training.schema import INDEX, SPLITS

Shard = Sequence[tuple[str, int]]
"""Split and length of one document after another."""


def name(shard: int, row: int) -> bytes:
    return hashlib.blake2b(f"{shard} {row}".encode(), digest_size=16).digest()


def rows_of(number: int, shard: Shard) -> list[dict[str, object]]:
    starts = dict.fromkeys(SPLITS, 0)
    rows: list[dict[str, object]] = []
    for row, (split, length) in enumerate(shard):
        row_id = name(number, row)
        rows.append(
            {"document_id": row_id, "url": f"http://{row}.test/{number}", "split": split}
            | {"start": starts[split], "length": length}
        )
        starts[split] += length
    return rows


def put(folder: Path, shards: Sequence[Shard], group: int = 1000) -> None:
    """Token files and indexes; of the ids only their number matters."""
    folder.mkdir(exist_ok=True)
    for number, shard in enumerate(shards):
        for split in SPLITS:
            length = sum(length for side, length in shard if side == split)
            np.zeros(length, "<u2").tofile(folder / f"{number:05d}.{split}.bin")
        table = pa.Table.from_pylist(rows_of(number, shard), INDEX)
        pq.write_table(table, folder / f"{number:05d}.parquet", row_group_size=group)


def walked(
    shards: Sequence[Shard], split: str, windows: Sequence[int], context: int
) -> list[Document]:
    """The same, id by id."""
    owners = [
        (number, row)
        for number, shard in enumerate(shards)
        for row, (side, length) in enumerate(shard)
        for _ in range(length)
        if side == split
    ]
    held: dict[tuple[int, int], set[int]] = {owner: set() for owner in owners}
    for window in windows:
        for place in range(window * context, window * context + context + 1):
            held[owners[place]].add(window)
    return [
        Document(f"http://{row}.test/{number}", name(number, row).hex(), sorted(found))
        for (number, row), found in held.items()
        if found
    ]


SHARD = st.lists(st.tuples(st.sampled_from(SPLITS), st.integers(1, 9)), max_size=8)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.lists(SHARD, min_size=1, max_size=5), st.integers(1, 12))
def test_any_windows_have_the_documents_that_a_walk_finds(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, shards: list[Shard], context: int
) -> None:
    folder = tmp_path_factory.mktemp("tokens")
    put(folder, shards, data.draw(st.integers(1, 4), "rows of a row group"))
    for split in SPLITS:
        count = tokens.open_split(folder, split).windows(context)
        windows = data.draw(st.lists(st.integers(0, count - 1), max_size=9)) if count else []
        found = provenance.documents(folder, split, iter(windows), context)
        assert found == walked(shards, split, windows, context)


def written(folder: Path, lengths: Sequence[Sequence[int]]) -> dict[str, list[int]]:
    """Shards of documents of one word each, as often as `lengths` says, made as the program makes
    them; the ids of each by its URL."""
    made: dict[str, list[int]] = {}
    for number, shard in enumerate(lengths):
        texts = [f" {'abcdef'[number]}{row}" * length for row, length in enumerate(shard)]
        ids = [name(number, row) for row in range(len(shard))]
        urls = [f"http://{each.hex()}.test/" for each in ids]
        documents = pa.table({"document_id": ids, "text": pa.array(texts, pa.string())})
        kept = ["kept"] * len(ids)
        corpus = documents.select(["document_id"]).append_column("url", pa.array(urls, pa.string()))
        corpus = corpus.append_column("verdict", pa.array(kept, pa.string()))
        corpus = corpus.append_column("split", pa.array(["train"] * len(ids), pa.string()))
        batches = tokens.encode(documents.to_batches(), corpus.to_batches()) if ids else []
        index = tokens.write(batches, folder, f"{number:05d}")
        pq.write_table(index, folder / f"{number:05d}.parquet")
        for url, text in zip(urls, texts, strict=True):
            made[url] = [*tokenizer.encode(text), tokenizer.END_OF_TEXT]
    return made


def test_the_documents_of_a_window_are_those_whose_ids_it_reads(tmp_path: Path) -> None:
    """Documents longer than a window, many in one, an empty shard, windows across files."""
    made = written(tmp_path, ([3, 40, 1, 7], [], [25, 1, 1, 1, 1], [1]))
    context = 8
    split = tokens.open_split(tmp_path, "train")
    sizes = []
    for window in range(split.windows(context)):
        found = provenance.documents(tmp_path, "train", [window], context)
        ids = split.window(window, context).tolist()
        assert contains([made[document.url] for document in found], ids)
        assert not contains([made[document.url] for document in found[1:]], ids)
        assert not contains([made[document.url] for document in found[:-1]], ids)
        sizes.append(len(found))
    assert min(sizes) == 1
    assert max(sizes) > 2
    every = provenance.documents(tmp_path, "train", range(split.windows(context)), context)
    assert sum(len(document.windows) for document in every) == sum(sizes)
    assert all(document.url == f"http://{document.document_id}.test/" for document in every)


def contains(documents: Sequence[Sequence[int]], part: Sequence[int]) -> bool:
    whole = [each for document in documents for each in document]
    return any(whole[at : at + len(part)] == part for at in range(len(whole)))


SHARDS: list[Shard] = [[("train", 9), ("validation", 3)], [("train", 9)], [("train", 9)]]


def test_an_index_that_no_window_touches_is_not_read(tmp_path: Path) -> None:
    put(tmp_path, SHARDS)
    (tmp_path / "00000.parquet").unlink()
    (tmp_path / "00002.parquet").unlink()
    (found,) = provenance.documents(tmp_path, "train", [3], 3)
    assert found.url == "http://0.test/1"
    assert provenance.documents(tmp_path, "train", [], 3) == []
    # Window 2 ends with the first id of file 1, window 5 with the first of file 2.
    for window, lost in ((2, "00000"), (5, "00002")):
        with pytest.raises(BadInput, match=rf"{lost}\.parquet: is missing; copy it"):
            provenance.documents(tmp_path, "train", [window], 3)


def test_a_window_that_is_not_there_is_no_other_windows(tmp_path: Path) -> None:
    put(tmp_path, SHARDS)
    for windows in ([0, 8, 3], [-1]):
        with pytest.raises(IndexError, match="of 8"):
            provenance.documents(tmp_path, "train", windows, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop_columns("url"), "has no column url"),
        (lambda table: table.slice(0, 1), "covers 3 of the 9 train ids"),
        (lambda table: table.slice(1), "leave gaps"),
        (lambda table: table.take([1, 0, 2]), "leave gaps"),
        (lambda table: table.take([0, 0, 1, 2]), "leave gaps"),
    ],
)
def test_an_index_of_other_ids_is_refused(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    put(tmp_path, [[("train", 3), ("train", 4), ("train", 2)]])
    path = tmp_path / "00000.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(BadInput, match=rf"00000\.parquet: .*{said}.*; make the tokens anew$"):
        provenance.documents(tmp_path, "train", [0], 3)


def test_a_torn_index_is_refused_in_one_line(tmp_path: Path) -> None:
    put(tmp_path, SHARDS)
    path = tmp_path / "00000.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadInput, match=r"00000\.parquet: is damaged") as raised:
        provenance.documents(tmp_path, "train", [0], 3)
    assert "\n" not in str(raised.value)
