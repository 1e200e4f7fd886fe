"""What is written can be read by others: warcio, FastWARC and pywb's makers find nothing wrong."""

import argparse
import datetime
import gzip
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cdxj_indexer.main import CDXJIndexer
from fastwarc.warc import ArchiveIterator
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from warcio.checker import Checker

from crawl import capture, warc

MOMENT = datetime.datetime(2016, 5, 4, 3, 2, 1, 123000, tzinfo=datetime.UTC)
REQUEST = warc.Request("GET /x HTTP/1.1", (("Host", "a.com"), ("User-Agent", "webtext/1")))
NAME = "x.warc.gz"
HTML = ("Content-Type", "text/html; charset=utf-8")
PAGE = b"<html><p>text</p></html>" * 40
INFO = {"http-header-user-agent": "webtext/1.0 (+https://example.org)", "robots": "obeyed"}


def exchange(
    target: str = "http://a.com/x",
    body: bytes = PAGE,
    *headers: tuple[str, str],
    status: int = 200,
    reason: str = "OK",
    **more: Any,
) -> warc.Exchange:
    answer = warc.Answer(status, reason, headers or (HTML,), body)
    return warc.Exchange(target, MOMENT, answer, more.pop("request", REQUEST), **more)


def write(folder: Path, *exchanges: warc.Exchange, note: dict[str, str] | None = None) -> list[str]:
    """Makes x.warc.gz; returns the lines of its index, in order."""
    lines: list[str] = []
    with (folder / NAME).open("wb") as file:
        seen = capture.begin(file, NAME, MOMENT, INFO)
        for one in exchanges:
            written = capture.write(file, one, note or {}, seen)
            file.flush()
            assert warc.read(folder / NAME, written.place).body == one.answer.body
            lines += written.index
    return sorted(lines)


def found(path: Path) -> list[dict[str, str]]:
    """The headers of all records."""
    with path.open("rb") as file:
        return [dict(record.headers) for record in ArchiveIterator(file)]


CODED = gzip.compress(PAGE)
RULES = b"User-agent: *\nDisallow: /x\n"
MENAGERIE = (
    exchange(),
    exchange("https://www.A.com:443/x/?b=2&a=1", CODED, HTML, ("Content-Encoding", "gzip"),
             address="192.0.2.7", protocols=("http/1.1", "tls/1.3")),
    exchange("http://a.com/chunked", PAGE + b"1", HTML, ("Transfer-Encoding", "chunked")),
    exchange("http://a.com/length", PAGE + b"2", ("content-length", "7"), ("X", "y")),
    exchange("http://a.com/robots.txt", RULES, ("Content-Type", "text/plain")),
    exchange("http://b.com/robots.txt", RULES, ("Content-Type", "text/plain")),
    exchange("http://a.com/again"),
    exchange("http://a.com/coded-again", CODED, HTML, ("Content-Encoding", "gzip")),
    exchange("http://a.com/other-type", PAGE, ("Content-Type", "text/plain")),
    exchange("http://a.com/same", b"", HTML, status=304, reason="Not Modified"),
    exchange("http://a.com/none", b"", status=204, reason=""),
    exchange("http://a.com/cut", PAGE, truncated="length"),
    exchange("http://a.com/cut-too", PAGE, truncated="time"),
    exchange("http://a.com/late", PAGE + b"3", truncated="disconnect", request=None),
    exchange("http://a.com/gone", b"no", status=404, reason="Non trouv\u00e9"),
    exchange("http://a.com/injected", b"x", ("A", "b\r\nB: x\r\n\r\n"), reason="OK\r\nX: y"),
    exchange("http://a.com/names", b"names", HTML,
             (" folded", "x"), ("a:b", "c"), ("", "d"), ("\u00e9", "e")),
    exchange("http://a.com/values", b"values",
             ("Content-Type", ' text/html;\tx="\u65e5"'), ("X", "\ud800")),
    exchange("http://a.com/untyped", b"untyped", ("X", "y")),
    exchange("http://a.com/empty-type", b"empty", ("Content-Type", "")),
    exchange("http://a.com/nested", b"\r\n\r\nWARC/1.1\r\nWARC-Type: response\r\n\r\n"),
    exchange("http://a.com/large", bytes(3 << 20)),
    exchange("http://a.com/a b\u00e9%zz", b"odd"),
    exchange("http://a.com/odd", b"status", status=999, reason="\t?"),
    warc.Exchange("http://a.com/h2", MOMENT, warc.Answer(200, "", (HTML,), b"two", "HTTP/2")),
    warc.Exchange("http://a.com/h1", MOMENT, warc.Answer(200, "OK", (HTML,), b"old", "HTTP/1.0")),
)  # fmt: skip


@pytest.fixture(scope="module")
def menagerie(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A file of ordinary and hostile exchanges, and its index."""
    folder = tmp_path_factory.mktemp("menagerie")
    note = {"link-id": "00" * 16, "robots": "allowed", "ai-signals": "noai\r\nX: \u65e5"}
    return folder / NAME, write(folder, *MENAGERIE, note=note)


def tool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True)


def test_warcio_check_finds_nothing(menagerie: tuple[Path, list[str]]) -> None:
    check = tool("-m", "warcio.cli", "check", "-v", str(menagerie[0]))
    assert check.returncode == 0, check.stdout
    said = Counter(line.strip() for line in check.stdout.splitlines() if "offset" not in line)
    assert (
        said["digest pass"] == 1 + len(MENAGERIE) * 3 - 3 - 3
    )  # no request thrice, revisit thrice
    assert said["digest present but not checked (revisit)"] == 3


def test_fastwarc_check_finds_nothing(menagerie: tuple[Path, list[str]]) -> None:
    command = "-c", "from fastwarc.cli import main; main()", "check", "-q", "-o", "-"
    check = tool(*command, str(menagerie[0]))
    assert check.returncode == 0 and "FAIL" not in check.stdout
    assert check.stdout.count(": OK\n") == len(found(menagerie[0]))
    # Of a revisit it hashes the payload that is not there, in anyone's file; all others are right.
    check = tool(*command, "-p", str(menagerie[0]))
    failed = {line.split(": ")[0] for line in check.stdout.splitlines() if "FAIL" in line}
    revisits = [one for one in found(menagerie[0]) if one["WARC-Type"] == "revisit"]
    assert failed == {one["WARC-Record-ID"] for one in revisits}
    assert check.stdout.count("OK, PAYLOAD_OK\n") == len(MENAGERIE) * 2 - 3 - len(revisits)


def test_the_index_is_what_cdxj_indexer_says(menagerie: tuple[Path, list[str]]) -> None:
    path, lines = menagerie
    said = tool("-c", "from cdxj_indexer.main import main; main()", "--sort", str(path))
    assert said.returncode == 0 and not said.stderr
    theirs = said.stdout.replace('"mime": "", ', "")  # of a header that says nothing
    assert theirs.splitlines() == [as_cdxj_indexer_says(line) for line in lines]


@pytest.mark.skipif(not shutil.which("cdx-indexer"), reason="pywb is not installed")
def test_the_index_is_pywbs_own_to_the_byte(menagerie: tuple[Path, list[str]]) -> None:
    path, lines = menagerie
    said = subprocess.run(["cdx-indexer", "-j", "-s", str(path)], capture_output=True)
    assert said.stdout.decode() == "".join(f"{line}\n" for line in lines), said.stderr


def as_cdxj_indexer_says(line: str) -> str:
    """The same line in the words of pywb's makers' other indexer: it names the digest's algorithm
    and no type where there is none, and gives a revisit the status of its headers."""
    key, moment, rest = line.split(" ", 2)
    said = json.loads(rest)
    said["digest"] = "sha1:" + said["digest"]
    if said["mime"] == "warc/revisit":
        said = dict(list(said.items())[:2]) | {"status": "200"} | dict(list(said.items())[2:])
    elif said["mime"] == "unk":
        del said["mime"]
    return f"{key} {moment} {json.dumps(said)}"


TEXT = st.text(max_size=12)
BODIES = st.sampled_from([b"", b"same", b"same too", CODED]) | st.binary(max_size=40)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["Content-Encoding", "transfer-encoding", "Content-Length", "X"]), TEXT
    )
    | st.tuples(TEXT.filter(lambda name: name.strip().lower() != "content-type"), TEXT)
    | st.tuples(st.just("Content-Type"), st.sampled_from(["text/html", "a/b; c=d", "x", "\u00e9"])),
    max_size=5,
)
ANSWERS = st.builds(
    warc.Answer,
    st.integers(100, 999).filter(lambda status: status != 204),
    TEXT,
    HEADERS.map(tuple),
    BODIES,
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2"]),
)
EXCHANGES = st.builds(
    warc.Exchange,
    st.text(max_size=8).map(lambda path: "http://a.com/" + path.replace("#", "")),
    st.datetimes(min_value=datetime.datetime(1900, 1, 1)).map(
        lambda moment: moment.replace(tzinfo=datetime.UTC)
    ),
    ANSWERS,
    st.none()
    | st.builds(warc.Request, TEXT.map(lambda text: f"GET /{text} HTTP/1.1"), HEADERS.map(tuple)),
    st.sampled_from([None, None, "length", "time"]),
    st.none() | st.just("2001:db8::1"),
    st.sampled_from([(), ("http/1.1",), ("h2", "tls/1.2")]),
)


@given(
    st.lists(EXCHANGES, max_size=6),
    st.dictionaries(st.from_regex(capture.NAME, fullmatch=True), TEXT, max_size=3),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_was_exchanged_can_be_written_read_and_indexed(
    tmp_path: Path, exchanges: list[warc.Exchange], note: dict[str, str]
) -> None:
    lines = write(tmp_path, *exchanges, note=note)
    checker = Checker(argparse.Namespace(inputs=[str(tmp_path / NAME)], verbose=False))
    assert checker.process_all() == 0
    with (tmp_path / NAME).open("rb") as file:
        for record in ArchiveIterator(file, parse_http=False):
            assert record.verify_block_digest(consume=False)
            if record.is_http and record.headers["WARC-Type"] != "revisit":
                record.parse_http()
                assert record.verify_payload_digest()
    indexed = io.StringIO()
    CDXJIndexer(indexed, [str(tmp_path / NAME)]).process_all()
    theirs = [without_status(line) for line in indexed.getvalue().splitlines()]
    ours = [without_status(as_cdxj_indexer_says(line)) for line in lines]
    assert sorted(theirs, key=place) == sorted(ours, key=place)


def place(said: dict[str, str]) -> int:
    return int(said["offset"])


def without_status(line: str) -> dict[str, str]:
    said = json.loads(line.split(" ", 2)[2])
    if said.get("mime") == "warc/revisit":
        del said["status"]
    return said | {"key": line.split(" ")[0], "moment": line.split(" ")[1]}


def test_a_file_says_first_who_made_it_and_how(menagerie: tuple[Path, list[str]]) -> None:
    path, _ = menagerie
    first = next(iter(ArchiveIterator(path.open("rb"))))
    assert first.headers["WARC-Type"] == "warcinfo" and first.headers["WARC-Filename"] == NAME
    fields = dict(line.split(": ", 1) for line in first.reader.read().decode().splitlines())
    assert fields["software"].startswith("webtext")
    assert fields["format"] == "WARC File Format 1.1"
    assert fields["conformsTo"].endswith("/warc-1.1/")
    assert {name: fields[name] for name in INFO} == INFO


def test_an_exchange_is_request_response_and_metadata(tmp_path: Path) -> None:
    one = exchange(address="192.0.2.7", protocols=("http/1.1", "tls/1.3"))
    write(
        tmp_path, one, note={"link-id": "ab", "robots": "allowed: 2 rules\nx", "signal": "\u65e5"}
    )
    with (tmp_path / NAME).open("rb") as file:
        _, request, response, metadata = ArchiveIterator(file, parse_http=False)
        read = list(metadata.headers)
    assert request.headers["WARC-Concurrent-To"] == response.record_id
    assert metadata.headers["WARC-Concurrent-To"] == response.record_id
    protocols = [value for name, value in response.headers if name == "WARC-Protocol"]
    assert protocols == ["http/1.1", "tls/1.3"]
    assert request.headers["WARC-IP-Address"] == response.headers["WARC-IP-Address"] == "192.0.2.7"
    assert {one.headers["WARC-Target-URI"] for one in (request, response, metadata)} == {
        "http://a.com/x"
    }
    assert ("Content-Type", "application/warc-fields") in read
    plain = gzip.decompress((tmp_path / NAME).read_bytes()).decode()
    assert plain.endswith(
        "\r\n\r\nlink-id: ab\r\nrobots: allowed: 2 rules x\r\nsignal: \u65e5\r\n\r\n\r\n"
    )


def test_a_note_has_names_that_can_be_read_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'a: b': is no name"):
        write(tmp_path, exchange(), note={"a: b": "x"})


def test_a_payload_is_written_once_in_a_file(tmp_path: Path) -> None:
    first, other = exchange("http://a.com/1"), exchange("http://b.com/2", status=404)
    with (tmp_path / NAME).open("wb") as file:
        seen = capture.begin(file, NAME, MOMENT)
        places = [capture.write(file, one, {}, seen).place for one in (first, other, first)]
        alone = capture.write(file, first).place
    assert places[0] == places[1] == places[2] != alone
    assert places[0].file == NAME and places[0].digest == warc.digest(PAGE)
    records = [one for one in found(tmp_path / NAME) if one["WARC-Type"] in ("response", "revisit")]
    assert [one["WARC-Type"] for one in records] == ["response", "revisit", "revisit", "response"]
    response, revisit = records[:2]
    assert revisit["WARC-Profile"].endswith("/warc/1.1/revisit/identical-payload-digest")
    assert revisit["WARC-Refers-To"] == response["WARC-Record-ID"]
    assert revisit["WARC-Refers-To-Target-URI"] == "http://a.com/1"
    assert revisit["WARC-Refers-To-Date"] == response["WARC-Date"]
    assert revisit["WARC-Payload-Digest"] == response["WARC-Payload-Digest"]
    assert revisit["WARC-Target-URI"] == "http://b.com/2"
    with (tmp_path / NAME).open("rb") as file:
        kept = next(one for one in ArchiveIterator(file) if one.headers["WARC-Type"] == "revisit")
        assert kept.http_headers.status_code == 404


@pytest.mark.parametrize(
    "other",
    [
        exchange(body=b""),
        exchange(body=PAGE + b"x"),
        exchange(truncated="length"),
        exchange("http://a.com/y", PAGE, ("Content-Type", "text/plain")),
        exchange("http://a.com/y", PAGE, HTML, ("Content-Encoding", "gzip")),
    ],
)
def test_only_a_whole_payload_of_one_type_and_coding_is_a_revisit(
    tmp_path: Path, other: warc.Exchange
) -> None:
    for pair in ((exchange(), other), (other, exchange()), (other, other)):
        write(tmp_path, *pair)
        kinds = [one["WARC-Type"] for one in found(tmp_path / NAME)]
        is_twice = pair[0] is pair[1] and other.truncated is None and other.answer.body != b""
        assert kinds.count("revisit") == is_twice


def test_headers_of_the_transfer_are_kept_aside(tmp_path: Path) -> None:
    body = gzip.compress(b"<p>text")
    one = exchange(
        "http://a.com/",
        body,
        ("Transfer-Encoding", "chunked"),
        ("content-length", "999"),
        ("Content-Encoding", "gzip"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
    )
    read = read_back(tmp_path, one)
    assert read.body == body
    assert read.header("Transfer-Encoding") is None
    assert read.header("X-Crawler-Transfer-Encoding") == "chunked"
    assert read.header("Content-Length") == str(len(body))
    assert read.header("X-Crawler-content-length") == "999"
    assert read.header("Content-Encoding") == "gzip"
    assert [value for name, value in read.headers if name == "Set-Cookie"] == ["a=1", "b=2"]


def read_back(folder: Path, one: warc.Exchange) -> warc.Answer:
    with (folder / NAME).open("wb") as file:
        place = capture.write(file, one).place
    return warc.read(folder / NAME, place)


def test_a_header_that_is_not_ascii_stays_readable(tmp_path: Path) -> None:
    said = 'text/html;\tcharset="100%"; \u65e5=1'
    read = read_back(tmp_path, exchange("http://a.com/", b"x", ("X-Type", said))).header("X-Type")
    assert read == 'text/html;\tcharset="100%"; %E6%97%A5=1'


def test_a_reason_that_is_not_ascii_is_kept_aside(tmp_path: Path) -> None:
    read = read_back(tmp_path, exchange(status=404, reason="Non trouv\u00e9"))
    assert (read.status, read.reason, read.body) == (404, "Non trouv?", PAGE)
    assert read.header("X-Crawler-Reason") == "Non trouv%C3%A9"


def test_a_name_of_a_header_is_none_of_another(tmp_path: Path) -> None:
    odd = ((" folded", "x"), ("a:b", "c"), ("", "d"), ("X\r\nY", "e"), ("\u00e9", "f"))
    read = read_back(tmp_path, exchange("http://a.com/", b"x", HTML, *odd)).headers
    assert read[:-1] == (
        HTML,
        ("?folded", "x"),
        ("a?b", "c"),
        ("?", "d"),
        ("X??Y", "e"),
        ("?", "f"),
    )


def test_a_version_that_readers_stumble_over_is_told_beside(tmp_path: Path) -> None:
    answer = warc.Answer(200, "", (), b"x", "HTTP/2")
    read = read_back(tmp_path, warc.Exchange("http://a.com/", MOMENT, answer))
    assert read.protocol == "HTTP/1.1"
    assert found(tmp_path / NAME)[0]["WARC-Protocol"] == "h2"


@given(BODIES, HEADERS, TEXT)
@example(b"body", [("x", "\u00e9; a=b")], ";\x1f=0")
def test_any_body_comes_back_whatever_the_headers(
    body: bytes, headers: list[tuple[str, str]], reason: str
) -> None:
    file = io.BytesIO()
    answer = warc.Answer(404, reason, tuple(headers), body)
    capture.write(file, warc.Exchange("http://a.com/", MOMENT, answer))
    assert gzip.decompress(file.getvalue()).startswith(b"WARC/1.1\r\n")
    record = next(iter(ArchiveIterator(io.BytesIO(file.getvalue()), parse_http=True)))
    assert warc._answer(record, record.reader.read()).body == body
