"""What is extracted before its documents are made: the rows are the same with it or without."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from crawl import documents, texts
from crawl.config import CrawlConfig
from crawl.extractor import Reply, Request
from crawl.schema import DocumentOutcome
from pipeline.stage import Account
from tests.crawl.shelf import CONFIG, SENTENCE, Shelf, article

PAGES = 6


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A segment of a few pages, and two of one."""
    made = Shelf(tmp_path / "ledger")
    with made.segment():
        for n in range(PAGES):
            made.put(str(n), article(f"Title {n}", SENTENCE * (4 + n)))
        made.put("empty", b"<html><body></body></html>")
        made.put("gone", b"", outcome="http_error")
        made.put("out", article(), said="meta: noai")
    made.put("gzip", gzip.compress(article()), ("Content-Encoding", "gzip"))
    made.put("bomb", gzip.compress(bytes(10**7)), ("Content-Encoding", "gzip"))
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a child was asked to read, from now on."""
    told: list[str] = []
    whole = documents.Child.ask

    def ask(child: documents.Child, request: Request) -> Reply:
        told.append(request.url.rpartition("/")[2])
        return whole(child, request)

    monkeypatch.setattr(documents.Child, "ask", ask)
    return told


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return tmp_path / "texts"


def prepare(shelf: Shelf, prepared: Path, config: CrawlConfig = CONFIG) -> Account:
    account = Account()
    for segment in sorted(shelf.folder.glob("*.parquet")):
        documents.prepare(str(segment), account, prepared=str(prepared), config=config)
    return account


def test_what_was_prepared_is_not_read_again_and_changes_no_row(
    shelf: Shelf, prepared: Path, asked: list[str]
) -> None:
    expected = shelf.documents()
    asked.clear()
    assert not prepare(shelf, prepared).left_out
    assert len(list(prepared.iterdir())) == 3
    assert sorted(asked) == sorted([*map(str, range(PAGES)), "empty", "gzip", "bomb"])
    asked.clear()
    assert shelf.documents(prepared=prepared) == expected
    assert asked == []
    outcomes = {name: row["outcome"] for name, row in expected.items()}
    assert (outcomes["empty"], outcomes["bomb"], outcomes["out"]) == (
        "empty",
        "too_large",
        "no_page",
    )


def test_a_segment_is_prepared_once(shelf: Shelf, prepared: Path, asked: list[str]) -> None:
    prepare(shelf, prepared)
    asked.clear()
    prepare(shelf, prepared)
    assert asked == []


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_what_is_missing_is_read_and_nothing_else(
    shelf: Shelf, prepared: Path, asked: list[str], lost: int
) -> None:
    expected = shelf.documents()
    prepare(shelf, prepared)
    path = sorted(prepared.iterdir())[lost]
    segment = shelf.folder / f"{path.stem}.warc.gz"
    path.unlink()
    asked.clear()
    pages = {page["url"].rpartition("/")[2]: page for b in shelf.pages() for page in b.to_pylist()}
    missing = {name for name, page in pages.items() if page["warc_file"] == segment.name}
    assert shelf.documents(prepared=prepared) == expected
    assert set(asked) == missing - {"gone", "out"}


def test_what_is_damaged_is_read_anew(shelf: Shelf, prepared: Path, asked: list[str]) -> None:
    expected = shelf.documents()
    prepare(shelf, prepared)
    first, second, third = sorted(prepared.iterdir())
    first.write_bytes(first.read_bytes()[:-7])
    second.write_bytes(b"")
    third.write_bytes(third.read_bytes().replace(b"PAR1", b"PAR2"))
    asked.clear()
    assert shelf.documents(prepared=prepared) == expected
    assert len(asked) == PAGES + 3


def test_of_a_page_whose_row_says_something_else_the_text_is_made_anew(
    shelf: Shelf, prepared: Path
) -> None:
    prepare(shelf, prepared)
    (batch,) = shelf.pages()
    rows = batch.to_pylist()
    wide = "text/html; charset=utf-16"
    other = [batch.from_pylist([row | {"content_type": wide}], batch.schema) for row in rows]
    assert shelf.documents(other, prepared) == shelf.documents(other)


Trouble = Callable[[Shelf], None]


def without_warc(shelf: Shelf) -> None:
    max(shelf.folder.glob("*.warc.gz"), key=lambda path: path.stat().st_size).unlink()


def torn_warc(shelf: Shelf) -> None:
    path = max(shelf.folder.glob("*.warc.gz"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1500])


def torn_rows(shelf: Shelf) -> None:
    path = max(shelf.folder.glob("*.parquet"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("trouble", [without_warc, torn_warc, torn_rows])
def test_what_cannot_be_read_is_told_and_left_to_the_documents(
    shelf: Shelf, prepared: Path, trouble: Trouble
) -> None:
    trouble(shelf)
    account = prepare(shelf, prepared)
    assert account.left_out["unreadable"] > 0
    assert account.faults and str(shelf.folder) in account.faults[0]
    assert texts.path_of(prepared, "x") not in prepared.iterdir()


def test_what_costs_a_process_is_not_kept(
    shelf: Shelf, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = documents.Child.ask

    def poor(child: documents.Child, request: Request) -> Reply:
        lost = {"1": DocumentOutcome.CRASH, "2": DocumentOutcome.TIMEOUT}
        outcome = lost.get(request.url.rpartition("/")[2])
        return Reply(outcome) if outcome else whole(child, request)

    expected = shelf.documents()
    with monkeypatch.context() as patched:
        patched.setattr(documents.Child, "ask", poor)
        account = prepare(shelf, prepared)
    assert account.left_out == {"crash": 1, "timeout": 1}
    assert shelf.documents(prepared=prepared) == expected


def test_what_is_not_obeyed_is_prepared(shelf: Shelf, prepared: Path, asked: list[str]) -> None:
    prepare(shelf, prepared, CrawlConfig(live=False, obey=()))
    assert "out" in asked


def test_the_response_of_another_link_with_the_same_bytes_is_read_as_each_of_them(
    tmp_path: Path, prepared: Path
) -> None:
    made = Shelf(tmp_path / "ledger")
    body = article(text='<a href="/x">' + SENTENCE * 8)
    with made.segment():
        made.put("one", body, ("Content-Type", "text/html"))
        made.put("two", body, ("Content-Type", "text/html"))
    places = {page["warc_offset"] for batch in made.pages() for page in batch.to_pylist()}
    assert len(places) == 1, "the second is a revisit of the first"
    expected = made.documents()
    prepare(made, prepared)
    assert made.documents(prepared=prepared) == expected
