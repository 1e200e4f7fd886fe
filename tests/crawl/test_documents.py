"""Pages become documents, one each, whatever the bytes do to the process that reads them."""

import gzip
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from crawl import documents
from crawl.config import CrawlConfig
from crawl.extractor import Request
from crawl.schema import DocumentOutcome
from tests import web_faults
from tests.crawl.shelf import CONFIG, SENTENCE, Shelf, article


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "ledger")


def test_text_and_what_is_known_of_it(shelf: Shelf) -> None:
    shelf.put("x", article())
    row = shelf.documents()["x"]
    assert row["outcome"] == "ok"
    assert SENTENCE.strip() in row["text"] and "Imprint" not in row["text"]
    assert (row["title"], row["date"], row["extractor"]) == (
        "A title", "2015-03-02", "trafilatura-fast"
    )  # fmt: skip


def test_every_page_is_one_document_with_its_outcome(shelf: Shelf) -> None:
    kind = ("Content-Type", "text/html; charset=latin-1")
    shelf.put("gzip", gzip.compress(article()), ("Content-Encoding", "gzip"))
    shelf.put("latin", article(text="caf\u00e9 " * 80).decode().encode("latin-1"), kind)
    shelf.put("empty", b"<html><body></body></html>")
    shelf.put("nothing", b"")
    shelf.put("bomb", gzip.compress(b"x" * 10_000_000), ("Content-Encoding", "gzip"))
    shelf.put("garbage", b"\xff\x00\x01", ("Content-Encoding", "br"))
    shelf.put("gone", b"", outcome="http_error")
    shelf.put("null", article(text="\x00" + SENTENCE * 5 + "&#xD800;"))
    found = shelf.documents()
    assert {name: row["outcome"] for name, row in found.items()} == {
        "gzip": "ok",
        "latin": "ok",
        "empty": "empty",
        "nothing": "empty",
        "bomb": "too_large",
        "garbage": "undecodable",
        "gone": "no_page",
        "null": "ok",
    }
    assert "caf\u00e9" in found["latin"]["text"]
    assert all((row["text"] is None) == (row["outcome"] != "ok") for row in found.values())


def test_what_grows_too_many_times_is_too_large_within_little_memory(tmp_path: Path) -> None:
    config = CrawlConfig(live=False, max_decoded_bytes=1 << 30, extract_memory_mb=512)
    shelf = Shelf(tmp_path / "ledger", config)
    for coding in ("gzip", "deflate", "br", "zstd"):
        body = web_faults.bomb(coding).partition(b"\r\n\r\n")[2]
        shelf.put(coding, body, ("Content-Encoding", coding))
    page = article(text="".join(f"<p>{number} {SENTENCE * 4}" for number in range(5000)))
    honest = gzip.compress(page)
    assert 50 < len(page) / len(honest) < 150
    shelf.put("honest", honest, ("Content-Encoding", "gzip"))
    found = shelf.documents()
    assert found.pop("honest")["outcome"] == "ok"
    assert {row["outcome"] for row in found.values()} == {"too_large"} and len(found) == 4


def test_neither_order_nor_batches_nor_repetition_change_a_text(shelf: Shelf) -> None:
    for n in range(6):
        shelf.put(str(n), article(f"Title {n}", SENTENCE * (4 + n % 2)))
    (batch,) = shelf.pages()
    expected = shelf.documents([batch])
    order = pa.array([3, 1, 5, 0, 2, 4])
    assert shelf.documents([batch.take(order)]) == expected
    assert shelf.documents([batch.slice(n, 1) for n in range(6)]) == expected
    again = documents.extract([batch] * 3, str(shelf.folder), CONFIG)
    texts = Counter(text for made in again for text in made.column("text").to_pylist())
    assert all(count % 3 == 0 for count in texts.values())


def test_rows_come_in_the_order_of_the_pages_and_in_bounded_batches(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "BATCH_ROWS", 2)
    for n in range(5):
        shelf.put(str(n), b"", outcome="http_error")
    (batch,) = shelf.pages()
    made = list(documents.extract([batch], str(shelf.folder), CONFIG))
    assert [len(one) for one in made] == [2, 2, 1]
    ids = [one for batch_ in made for one in batch_.column("document_id").to_pylist()]
    assert ids == batch.column("link_id").to_pylist()


def test_a_page_whose_response_is_lost_is_our_failure(shelf: Shelf) -> None:
    shelf.put("x", article())
    found = shelf.pages()
    (path,) = shelf.folder.glob("*.warc.gz")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"warc\.gz"):
        list(documents.extract(found, str(shelf.folder), CONFIG))


def request(body: bytes = b"", cpu_s: int = 20) -> Request:
    return Request(body, "http://a.com/", "text/html", None, 10**6, 200.0, cpu_s)


OBEDIENT = """
import os, signal, sys, time
from crawl import extractor

asked = 0

def obey(request):
    global asked
    asked += 1
    match request.body:
        case b"spin":
            while True:
                pass
        case b"sleep":
            time.sleep(60)
        case b"segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"raise":
            raise RecursionError
        case b"memory":
            bytearray(2**34)
        case b"gigabyte":
            bytearray(2**30)
        case b"allowed":
            return extractor.Reply(extractor.DocumentOutcome.OK, text=f"{request.cpu_s} seconds")
        case b"print":
            print("noise" * 10000, flush=True)
        case b"second":
            if asked > 1:
                os.kill(os.getpid(), signal.SIGSEGV)
    return answer(request)

answer, extractor.answer = extractor.answer, obey
extractor.main(int(sys.argv[1]), int(sys.argv[2]))
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[documents.Child]:
    """A child that does what the page says, instead of reading it."""
    script = tmp_path / "obedient.py"
    script.write_text(OBEDIENT)
    start = subprocess.Popen

    def obedient(arguments: list[str], **keys: Any) -> subprocess.Popen[bytes]:
        return start([arguments[0], str(script), *arguments[3:]], **keys)

    monkeypatch.setattr(subprocess, "Popen", obedient)
    with documents.Child(CONFIG) as made:
        yield made


@pytest.mark.parametrize(
    ("deed", "outcome"),
    [
        (b"segfault", DocumentOutcome.CRASH),
        (b"raise", DocumentOutcome.CRASH),
        (b"memory", DocumentOutcome.CRASH),
        (b"spin", DocumentOutcome.TIMEOUT),
        (b"print", DocumentOutcome.EMPTY),
    ],
)
def test_a_child_that_is_lost_costs_one_document(
    child: documents.Child, deed: bytes, outcome: DocumentOutcome
) -> None:
    assert child.ask(request(deed, cpu_s=1)).outcome == outcome
    assert child.ask(request(article())).outcome == DocumentOutcome.OK


def test_a_child_that_does_nothing_is_ended(
    child: documents.Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "WALL_FACTOR", 1)
    assert child.ask(request(b"sleep", cpu_s=1)).outcome == DocumentOutcome.TIMEOUT
    assert child.ask(request(b"")).outcome == DocumentOutcome.EMPTY


def test_a_page_is_not_blamed_for_what_its_neighbours_left(child: documents.Child) -> None:
    for _ in range(3):
        # every child dies of its second page: each page is read by a fresh one at last
        assert child.ask(request(b"second")).outcome == DocumentOutcome.EMPTY
    assert child.ask(request(article())).outcome == DocumentOutcome.OK
    assert child._process is not None
    child._process.kill()
    child._process.wait()
    assert child.ask(request(article())).outcome == DocumentOutcome.OK


def test_a_page_that_kills_a_used_child_and_a_fresh_one_is_to_blame(child: documents.Child) -> None:
    child.ask(request())
    assert child.ask(request(b"segfault")).outcome == DocumentOutcome.CRASH


def test_a_child_that_cannot_start_is_our_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def broken(arguments: list[str], **keys: Any) -> subprocess.Popen[bytes]:
        return start([arguments[0], "-c", "raise ImportError('lxml is not here')"], **keys)

    monkeypatch.setattr(subprocess, "Popen", broken)
    with (
        documents.Child(CONFIG) as made,
        pytest.raises(documents.CannotStart, match=r"(?s)cannot start .*lxml is not here"),
    ):
        made.ask(request(article()))


def test_the_least_memory_that_may_be_set_is_enough(shelf: Shelf) -> None:
    with documents.Child(CrawlConfig(live=False, extract_memory_mb=512)) as made:
        assert made.ask(request(article())).outcome == DocumentOutcome.OK


def test_a_limit_that_is_lower_already_is_kept() -> None:
    script = (
        "import resource\n"
        "from crawl import documents\n"
        "from crawl.config import CrawlConfig\n"
        "from crawl.extractor import Request\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1536 * 2**20, 1536 * 2**20))\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (3600, 3600))\n"
        "with documents.Child(CrawlConfig(live=False, extract_memory_mb=4096)) as child:\n"
        "    request = Request(b'<p>x', 'http://a.com/', 'text/html', None, 1000, 9.0, 9999)\n"
        "    assert child.ask(request).outcome in ('ok', 'empty')\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root)


def test_batches_of_long_texts_are_short(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        shelf.put(str(n), article(f"Title {n}"))
    monkeypatch.setattr(documents, "BATCH_CHARACTERS", 100)
    made = list(documents.extract(shelf.pages(), str(shelf.folder), CONFIG))
    assert [len(one) for one in made] == [1, 1, 1]


def test_a_page_may_take_as_much_memory_as_the_recipe_says(child: documents.Child) -> None:
    assert child.ask(request(b"gigabyte")).outcome == DocumentOutcome.EMPTY
    with documents.Child(CrawlConfig(live=False, extract_memory_mb=1024)) as poor:
        assert poor.ask(request(b"gigabyte")).outcome == DocumentOutcome.CRASH


def test_a_page_may_take_as_many_seconds_as_the_recipe_says(
    child: documents.Child, shelf: Shelf
) -> None:
    del child  # only its script is used
    shelf.put("x", b"allowed")
    config = CrawlConfig(live=False, extract_cpu_s=7)
    (batch,) = documents.extract(shelf.pages(), str(shelf.folder), config)
    assert batch.column("text").to_pylist() == ["7 seconds"]
