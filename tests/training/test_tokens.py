import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training import tokenizer, tokens
from training.config import BadInput
from training.schema import INDEX, TOKENS


def name(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def documents(texts: dict[bytes, str | None]) -> pa.RecordBatch:
    ids = sorted(texts)
    found = [texts[each] for each in ids]
    outcome = ["ok" if text else "empty" for text in found]
    arrays = [pa.array(ids, pa.binary(16)), pa.array(found, pa.large_string()), pa.array(outcome)]
    return pa.RecordBatch.from_arrays(arrays, ["document_id", "text", "outcome"])


def url(document_id: bytes) -> str:
    return f"http://{document_id[0]}.test/{document_id.hex()}"


def corpus(rows: Sequence[tuple[bytes, str, str | None]]) -> pa.RecordBatch:
    ids, verdicts, splits = zip(*sorted(rows), strict=True)
    arrays = [pa.array(ids, pa.binary(16)), pa.array([url(each) for each in ids])]
    arrays += [pa.array(verdicts), pa.array(splits, pa.string())]
    return pa.RecordBatch.from_arrays(arrays, ["document_id", "url", "verdict", "split"])


def _rows(batches: Iterator[pa.RecordBatch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.to_pylist()]


def shard(count: int) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Documents of which every third is dropped and every fifth is held out."""
    texts: dict[bytes, str | None] = {name(i): f"document {i}, " * (i % 7) for i in range(count)}
    texts |= {name(-1): None}
    rows: list[tuple[bytes, str, str | None]] = [
        (name(i), "dropped" if i % 3 == 0 else "kept", "validation" if i % 5 == 0 else "train")
        for i in range(count)
    ]
    return documents(texts), corpus(rows)


def test_only_kept_documents_are_there_each_ended_once() -> None:
    rows = pa.Table.from_batches(tokens.encode(*([each] for each in shard(40))), TOKENS).to_pylist()
    found = {row["document_id"]: row for row in rows}
    assert found.keys() == {name(i) for i in range(40) if i % 3}
    for i in range(40):
        if i % 3:
            row = found[name(i)]
            assert row["split"] == ("validation" if i % 5 == 0 else "train")
            assert row["url"] == url(name(i))
            expected = tokenizer.encode(f"document {i}, " * (i % 7))
            assert row["tokens"] == [*expected, tokenizer.END_OF_TEXT]


def test_the_order_is_not_that_of_ids_and_does_not_depend_on_batches() -> None:
    whole_documents, whole_corpus = shard(40)
    whole = pa.Table.from_batches(tokens.encode([whole_documents], [whole_corpus]), TOKENS)
    cut = pa.Table.from_batches(
        tokens.encode(
            [whole_documents.slice(0, 7), whole_documents.slice(7)],
            [whole_corpus.slice(0, 30), whole_corpus.slice(30)],
        ),
        TOKENS,
    )
    ids = whole.column("document_id").to_pylist()
    assert cut.equals(whole)
    assert ids != sorted(ids)


def test_rows_come_in_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pa.Table.from_batches(tokens.encode(*([each] for each in shard(40))), TOKENS)
    monkeypatch.setattr(tokens, "_ROWS_PER_BATCH", 5)
    parts = list(tokens.encode(*([each] for each in shard(40))))
    assert max(part.num_rows for part in parts) == 5
    assert pa.Table.from_batches(parts).equals(whole)
    monkeypatch.setattr(tokens, "_TOKENS_PER_BATCH", 0)
    parts = list(tokens.encode(*([each] for each in shard(40))))
    assert [part.num_rows for part in parts] == [1] * whole.num_rows
    assert pa.Table.from_batches(parts).equals(whole)


def test_an_empty_shard_gives_no_rows() -> None:
    assert list(tokens.encode([], [])) == []
    empty = documents({}).slice(0, 0)
    assert list(tokens.encode([empty], [])) == []


def test_a_kept_document_that_is_not_there_is_named() -> None:
    rows = corpus([(name(1), "kept", "train"), (name(2), "kept", "train")])
    with pytest.raises(ValueError, match=name(2).hex()):
        list(tokens.encode([documents({name(1): "a"})], [rows]))


def test_a_kept_document_without_text_is_refused() -> None:
    with pytest.raises(ValueError, match="no text"):
        list(tokens.encode([documents({name(1): None})], [corpus([(name(1), "kept", "train")])]))


def test_a_document_that_comes_twice_or_has_no_split_is_refused() -> None:
    batch = documents({name(1): "a"})
    with pytest.raises(ValueError, match="twice"):
        list(tokens.encode([batch, batch], [corpus([(name(1), "kept", "train")])]))
    with pytest.raises(ValueError, match="split None"):
        list(tokens.encode([batch], [corpus([(name(1), "kept", None)])]))


def test_only_a_dropped_document_may_be_without_url() -> None:
    rows = corpus([(name(1), "kept", "train"), (name(2), "dropped", None)])
    batch = documents({name(1): "a", name(2): "b"})
    for lacking, told in ((name(1), True), (name(2), False)):
        urls = [None if each == lacking else "u" for each in rows.column("document_id").to_pylist()]
        less = rows.set_column(1, "url", pa.array(urls, pa.string()))
        if told:
            with pytest.raises(ValueError, match=f"{lacking.hex()} has no url"):
                list(tokens.encode([batch], [less]))
        else:
            assert [each["url"] for each in _rows(tokens.encode([batch], [less]))] == ["u"]


def test_the_index_finds_each_document(tmp_path: Path) -> None:
    rows = list(tokens.encode(*([each] for each in shard(60))))
    index = tokens.write(rows, tmp_path, "00007")
    assert index.schema == INDEX
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["00007.train.bin", "00007.validation.bin"]
    streams = {
        split: np.fromfile(tmp_path / f"00007.{split}.bin", "<u2").tolist()
        for split in ("train", "validation")
    }
    for row, place in zip(pa.Table.from_batches(rows).to_pylist(), index.to_pylist(), strict=True):
        end = place["start"] + place["length"]
        assert streams[place["split"]][place["start"] : end] == row["tokens"]
        for column in ("document_id", "url", "split"):
            assert place[column] == row[column]
    assert sum(index.column("length").to_pylist()) == sum(map(len, streams.values()))
    ends = sum(stream.count(tokenizer.END_OF_TEXT) for stream in streams.values())
    assert ends == index.num_rows


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        tokens.write(tokens.encode(*([each] for each in shard(30))), tmp_path / folder, "0")
    for split in ("train", "validation"):
        a, b = ((tmp_path / folder / f"0.{split}.bin").read_bytes() for folder in "ab")
        assert a == b


def test_a_write_that_fails_leaves_no_file_of_the_final_name(tmp_path: Path) -> None:
    def rows() -> object:
        yield from tokens.encode(*([each] for each in shard(10)))
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        tokens.write(rows(), tmp_path, "0")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("inner_rows", [30, 6])
def test_attempts_that_overlap_neither_cut_nor_lose_each_others_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner_rows: int
) -> None:
    monkeypatch.setattr(tokens, "_ROWS_PER_BATCH", inner_rows)
    rows = list(tokens.encode(*([each] for each in shard(30))))
    expected = tokens.write(rows, tmp_path / "alone", "0")
    found = []

    def outer() -> Iterator[pa.RecordBatch]:
        """An attempt given up for lost, during which another begins and ends."""
        yield from rows[: len(rows) // 2]
        found.append(tokens.write(rows, tmp_path / "shared", "0"))
        yield from rows[len(rows) // 2 :]

    found.append(tokens.write(outer(), tmp_path / "shared", "0"))
    assert found == [expected, expected]
    alone, shared = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        for folder in ("alone", "shared")
    )
    assert shared == alone


def test_an_empty_shard_is_written_and_read(tmp_path: Path) -> None:
    assert tokens.write([], tmp_path, "0").num_rows == 0
    found = tokens.open_split(tmp_path, "train")
    assert (len(found), found.windows(8)) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 12))
def test_windows_cross_the_borders_of_files(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], context: int
) -> None:
    folder = tmp_path_factory.mktemp("split")
    stream = np.arange(sum(lengths), dtype="<u2")
    for number, part in enumerate(np.split(stream, np.cumsum(lengths)[:-1])):
        part.tofile(folder / f"{number:05d}.train.bin")
    found = tokens.open_split(folder, "train")
    assert len(found) == len(stream)
    for i in range(found.windows(context)):
        expected = stream[i * context : (i + 1) * context + 1]
        assert found.window(i, context).tolist() == expected.tolist()
        assert len(expected) == context + 1
    assert len(stream) - found.windows(context) * context <= context
    with pytest.raises(IndexError):
        found.window(found.windows(context), context)


def test_missing_and_cut_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\*\.train\.bin"):
        tokens.open_split(tmp_path, "train")
    (tmp_path / "0.train.bin").write_bytes(b"abc")
    with pytest.raises(BadInput, match=r"0\.train\.bin: ends in the middle"):
        tokens.open_split(tmp_path, "train")


@pytest.mark.parametrize("kind", ["folder", "dangling"])
def test_what_is_no_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "00000.train.bin"
    path.mkdir() if kind == "folder" else path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=rf"^{path}: (Is a directory|No such file)"):
        tokens.open_split(tmp_path, "train")


def test_the_identity_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "0.train.bin"
    path.write_bytes(b"abcd")
    before = tokens.open_split(tmp_path, "train").identity
    assert tokens.open_split(tmp_path, "train").identity == before
    path.write_bytes(b"abce")
    assert tokens.open_split(tmp_path, "train").identity != before


@pytest.mark.parametrize("place", [0, -1])
def test_the_identity_of_a_long_file_follows_both_its_ends(tmp_path: Path, place: int) -> None:
    content = bytearray(300_000)
    (tmp_path / "0.train.bin").write_bytes(content)
    before = tokens.open_split(tmp_path, "train").identity
    content[place] = 1
    (tmp_path / "0.train.bin").write_bytes(content)
    assert tokens.open_split(tmp_path, "train").identity != before


def test_the_order_is_pinned() -> None:
    """A change here changes every token file: raise tokens.VERSION with it."""
    texts: dict[bytes, str | None] = {bytes([n]) * 16: "a" for n in range(8)}
    rows = corpus([(each, "kept", "train") for each in texts])
    (batch,) = tokens.encode([documents(texts)], [rows])
    assert [each[0] for each in batch.column("document_id").to_pylist()] == [0, 4, 2, 7, 5, 1, 3, 6]
