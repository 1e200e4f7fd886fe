"""What is written can be read by others; what others wrote can be read."""

import base64
import datetime
import errno
import gzip
import hashlib
import io
import itertools
import os
import random
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from crawl import capture, warc
from crawl.schema import BadInput
from tests import foreign

DATE = "2016-05-04T03:02:01.123Z"
MOMENT = datetime.datetime.fromisoformat(DATE)
REQUEST = warc.Request("GET /x HTTP/1.1", (("Host", "a.com"), ("User-Agent", "webtext/1")))


def answer(body: bytes = b"<p>text", *headers: tuple[str, str]) -> warc.Answer:
    return warc.Answer(200, "OK", (("Content-Type", "text/html"), *headers), body)


def write(path: Path, *answers: warc.Answer) -> list[warc.Place]:
    with path.open("wb") as file:
        return [
            capture.write(file, warc.Exchange(f"http://a.com/{n}", MOMENT, one, REQUEST)).place
            for n, one in enumerate(answers)
        ]


def test_any_record_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.warc.gz"
    answers = [answer(b"%d" % n * 1000, ("X-N", str(n))) for n in range(5)]
    for one, place in zip(answers, write(path, *answers), strict=True):
        found = warc.read(path, place)
        assert (found.status, found.reason, found.body) == (200, "OK", one.body)
        assert found.header("x-n") == one.header("X-N")
        member = path.read_bytes()[place.offset : place.offset + place.length]
        assert gzip.decompress(member).startswith(b"WARC/1.1\r\n")


@pytest.mark.parametrize("shift", [1, 7, 10_000])
def test_an_altered_file_is_an_error_that_names_it(tmp_path: Path, shift: int) -> None:
    path = tmp_path / "x.warc.gz"
    place = write(path, answer(), answer())[1]
    with pytest.raises(ValueError, match=r"x\.warc\.gz"):
        warc.read(path, warc.Place(place.offset + shift, place.length))


def test_headers_of_any_size_come_back(tmp_path: Path) -> None:
    long = answer(b"body", *((f"X-{n}", "\u00e9" * 60_000) for n in range(4)))
    (place,) = write(tmp_path / "x.warc.gz", long)
    assert warc.read(tmp_path / "x.warc.gz", place).body == b"body"
    found = list(warc.records(str(tmp_path / "x.warc.gz"), 10_000_000))
    assert [record.answer.body for record in found if record.answer] == [b"body"]


def test_a_long_header_of_a_record_ends_no_file(tmp_path: Path) -> None:
    with (tmp_path / "x.warc.gz").open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for number in range(2):
            writer.write_record(
                writer.create_warc_record(
                    f"http://a.com/{number}",
                    "resource",
                    payload=io.BytesIO(b"text"),
                    warc_headers_dict={"X-Long": "x" * 100_000},
                )
            )
    kinds = [record.kind for record in warc.records(str(tmp_path / "x.warc.gz"), 10_000)]
    assert kinds == ["resource", "resource"]


def chunked(path: Path, *bodies: bytes) -> list[warc.Record]:
    """The responses of an archive whose crawler says of each that it comes in chunks."""
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for n, body in enumerate(bodies):
            head = StatusAndHeaders("200 OK", [("Transfer-Encoding", "chunked")], "HTTP/1.1")
            writer.write_record(
                writer.create_warc_record(
                    f"http://a.com/{n}", "response", payload=io.BytesIO(body), http_headers=head
                )
            )
    return list(warc.records(str(path), 10_000))


def test_a_body_that_is_not_in_the_chunks_it_promises_costs_no_neighbour(tmp_path: Path) -> None:
    plain, cut = b"<p>text that was never in chunks", b"5\r\n<p>te\r\n40\r\nxt"
    unended = b"7\r\n<p>text\r\n"
    odd = b"3\nabc and so on, which is no chunk"
    good = b"3;x=1\r\n<p>\r\n4 \r\ntext\r\n0\r\nTrailer: x\r\n\r\n"
    found = chunked(tmp_path / "x.warc.gz", good, plain, cut, odd, b"", b"0\r\n\r\n", unended)
    assert [record.answer and record.answer.body for record in found] == [
        b"<p>text", plain, None, odd, b"", b"", b"<p>text",
    ]  # fmt: skip
    assert [n for n, record in enumerate(found) if record.kind == "unreadable"] == [2]
    assert not any(record.truncated for record in found)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_body_in_any_chunks_comes_back(body: bytes, size: int) -> None:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    assert warc._unchunked(coded) == body
    whole = [sum(map(len, pieces[:n])) for n in range(len(pieces) + 1)]
    for end in range(len(coded) - 5):
        found = warc._unchunked(coded[:end])
        # nothing, what was whole by then, or no chunk at all yet
        assert found is None or found in (coded[:end], *(body[:size] for size in whole))


def test_a_disk_that_fails_is_no_damaged_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x.warc.gz", *(answer(os.urandom(100_000)) for _ in range(9)))

    class Failing(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            if self.tell() > 200_000:
                raise OSError(errno.EIO, "Input/output error")
            return super().readinto(buffer)

    opened = io.BufferedReader(Failing(tmp_path / "x.warc.gz"))
    monkeypatch.setattr(warc.streams, "open_plain", lambda path: opened)
    with pytest.raises(OSError, match="Input/output") as raised:
        list(warc.records(str(tmp_path / "x.warc.gz"), 10**7))
    assert raised.value.errno == errno.EIO


@pytest.mark.parametrize("more", [-1, 1])
def test_a_place_is_one_whole_record_and_nothing_else(tmp_path: Path, more: int) -> None:
    path = tmp_path / "x.warc.gz"
    place = write(path, answer(), answer())[0]
    with pytest.raises(ValueError, match=r"x\.warc\.gz"):
        warc.read(path, warc.Place(place.offset, place.length + more))


def test_records_of_our_own_files(tmp_path: Path) -> None:
    path = tmp_path / "x.warc.gz"
    write(path, answer())
    request, response = warc.records(str(path), 10_000)
    assert request.kind == "request" and request.answer is None
    assert (response.kind, response.target, response.date) == ("response", "http://a.com/0", DATE)
    assert response.answer is not None and response.answer.body == b"<p>text"
    (_, long) = warc.records(str(path), -warc.RECORD_HEADER_BYTES)
    assert long.answer is None and long.truncated == "length"


@pytest.mark.parametrize("content", [b"not a warc file", b"\x1f\x8b\x08\x00"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.warc"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"x\.warc: ") as raised:
        list(warc.records(str(path), 1000))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "kinds", "bodies"),
    [
        ("example.warc.gz", {"warcinfo": 2, "response": 1, "request": 2, "revisit": 1}, [606]),
        ("example.warc", {"warcinfo": 2, "response": 1, "request": 2, "revisit": 1}, [606]),
        ("example-trunc.warc", {"warcinfo": 2, "request": 1, "unreadable": 1}, []),
        ("example-iana.org-chunked.warc", {"warcinfo": 1, "response": 1, "request": 1}, [7223]),
        ("example-wrong-chunks.warc.gz", {"response": 1, "request": 1}, [1270]),
        ("example-resource.warc.gz", {"warcinfo": 2, "resource": 1}, []),
        ("clipped.warc.gz", {"unreadable": 1}, []),
    ],
)
def test_odd_and_broken_archives(
    data: Path, name: str, kinds: dict[str, int], bodies: list[int]
) -> None:
    found = list(warc.records(str(data / "warc" / name), 10**7))
    assert Counter(record.kind for record in found) == kinds
    assert [len(record.answer.body) for record in found if record.answer] == bodies


def test_no_archive_at_hand_is_a_crash(data: Path) -> None:
    for path in sorted((data / "warc").iterdir()):
        for record in warc.records(str(path), 10**7):
            assert record.answer is None or record.answer.status > 0


@pytest.mark.parametrize("name", ["example.warc.gz", "example.warc.zst", "example.warc"])
def test_an_archive_may_lie_in_another(data: Path, tmp_path: Path, name: str) -> None:
    plain = (data / "warc" / "example.warc").read_bytes()
    if name.endswith(".zst"):
        frames = (zstandard.compress(plain[at : at + 500]) for at in range(0, len(plain), 500))
        passed_over = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"  # FastWARC alone does not
        (tmp_path / name).write_bytes(passed_over + b"".join(frames))
    else:
        shutil.copy(data / "warc" / name, tmp_path)
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.write(tmp_path / name, name)
    path = f"zip://{name}::file://{tmp_path}/all.zip"
    found = Counter(record.kind for record in warc.records(path, 10**7))
    assert found == {"warcinfo": 2, "response": 1, "request": 2, "revisit": 1}


def test_a_body_that_its_crawler_cut_is_known_as_such(tmp_path: Path) -> None:
    path = tmp_path / "x.warc.gz"
    with path.open("wb") as file:
        for word in ("length", "TIME ", "because", "disconnect", None):
            foreign.write(file, "http://a.com/", DATE, answer(), truncated=word)
    found = [record.truncated for record in warc.records(str(path), 1000)]
    assert found == ["length", "time", "unspecified", "disconnect", None]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_anywhere_gives_its_whole_records_and_no_part_of_one(
    tmp_path: Path, zipped: bool
) -> None:
    path = tmp_path / "x.warc.gz"
    bodies = [random.Random(n).randbytes(300) for n in range(3)]
    with path.open("wb") as file:
        ends = []
        for body in bodies:
            capture.write(file, warc.Exchange("http://a.com/", MOMENT, answer(body)))
            ends.append(file.tell())
    data = path.read_bytes()
    if not zipped:
        path = tmp_path / "x.warc"
        starts = [0, *ends[:-1]]
        members = [gzip.decompress(data[a:b]) for a, b in zip(starts, ends, strict=True)]
        ends, data = list(itertools.accumulate(map(len, members))), b"".join(members)
    for size in range(ends[0], len(data)):
        path.write_bytes(data[:size])
        found = list(warc.records(str(path), 10_000))
        whole = [record.answer.body for record in found if record.answer]
        # a record's last bytes are two line ends, or a checksum, that its body can do without
        assert whole in (bodies[: sum(end <= size for end in ends)],
                         bodies[: sum(end - 12 <= size for end in ends)])  # fmt: skip
        assert all(record.answer or record.kind == "unreadable" for record in found)
        if size + 300 < ends[2] and size > ends[1] + 100:
            assert len(whole) == 2


def test_headers_that_end_in_a_bare_line_feed(data: Path) -> None:
    found = list(warc.records(str(data / "warc" / "clueweb-quirk.warc.gz"), 10**7))
    answers = [record.answer for record in found if record.answer]
    assert len(answers) == 29
    assert answers[0].reason == "OK" and answers[0].body.startswith(b"<html>")


def test_a_body_of_just_the_most_bytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.warc.gz"
    write(path, answer(b"<p>text"))
    (_, found) = warc.records(str(path), 7)
    assert found.answer is not None and found.answer.body == b"<p>text"


def test_a_target_in_angle_brackets_is_the_address_in_them(tmp_path: Path) -> None:
    path = tmp_path / "x.warc"  # as wget writes it
    path.write_bytes(
        b"WARC/1.0\r\nWARC-Type: metadata\r\nWARC-Target-URI: <http://a.com/>\r\n"
        b"Content-Length: 1\r\n\r\nx\r\n\r\n"
    )
    assert [found.target for found in warc.records(str(path), 1000)] == ["http://a.com/"]


@pytest.mark.parametrize(
    "form", ["frames", "stream", "packed", "no dictionary", "not needed", "no content"]
)
def test_an_archive_may_begin_with_the_dictionary_of_its_frames(tmp_path: Path, form: str) -> None:
    (tmp_path / "x.warc.zst").write_bytes(with_dictionary(form))
    found = list(warc.records(str(tmp_path / "x.warc.zst"), 10_000))
    assert [record.answer.body for record in found if record.answer] == BODIES


def with_dictionary(form: str) -> bytes:
    """An archive of `BODIES`, as the IIPC's proposal has it."""
    plain = [written(body) for body in BODIES]
    dictionary = zstandard.train_dictionary(4096, plain * 8, dict_id=7)
    content = dictionary.as_bytes()
    content = {
        "packed": zstandard.compress(content),
        "no dictionary": b"a note",
        "no content": b"",
    }.get(form, content)
    head = b"\x5d\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content
    needed = None if form.startswith("no") else dictionary
    context = zstandard.ZstdCompressor(dict_data=needed)
    if form == "stream":
        return head + context.compress(b"".join(plain))
    return head + b"".join(map(context.compress, plain))


def written(body: bytes) -> bytes:
    file = io.BytesIO()
    capture.write(file, warc.Exchange("http://a.com/", MOMENT, answer(body)))
    return gzip.decompress(file.getvalue())


BODIES = [b"<p>%d %b" % (n, bytes(range(n, n + 40)) * 3) for n in range(20)]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("missing", "Dictionary mismatch"),
        ("torn", "decompress"),
        ("another", "Dictionary mismatch"),
        ("too large", "the dictionary is too large"),
        ("unending", "breaks off"),
    ],
)
def test_an_archive_whose_dictionary_is_harmed_is_refused(
    tmp_path: Path, harm: str, said: str
) -> None:
    whole = with_dictionary("frames")
    size = int.from_bytes(whole[4:8], "little")
    dictionary, frames = whole[8 : 8 + size], whole[8 + size :]
    content = {
        "torn": dictionary[: size // 2],
        "another": dictionary[:4] + bytes([dictionary[4] ^ 1]) + dictionary[5:],
        "too large": zstandard.compress(dictionary + bytes(17 << 20)),
        "unending": zstandard.compress(dictionary)[:-9],
    }.get(harm, b"")
    head = b"\x5d\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content
    (tmp_path / "x.warc.zst").write_bytes(frames if harm == "missing" else head + frames)
    with pytest.raises(BadInput, match=rf"x\.warc\.zst: is no WARC .*{said}"):
        list(warc.records(str(tmp_path / "x.warc.zst"), 10_000))


def test_whole_members_are_told_from_others(tmp_path: Path) -> None:
    path = tmp_path / "x.warc.gz"
    one, two = write(path, answer(), answer(b"x" * 99))
    end = two.offset + two.length
    assert end == path.stat().st_size
    assert warc.is_whole(path, 0, end) and warc.is_whole(path, one.offset, end)
    assert warc.is_whole(path, end, end)
    assert not warc.is_whole(path, 0, end - 1) and not warc.is_whole(path, 0, end + 1)
    assert not warc.is_whole(path, 1, end)
    data = path.read_bytes()
    for at in range(two.offset, end):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        is_flag_or_time = two.offset + 3 <= at < two.offset + 10
        assert not warc.is_whole(path, two.offset, end) or is_flag_or_time


@given(st.binary(max_size=40))
def test_digests_are_those_that_others_write(body: bytes) -> None:
    judged = base64.b32encode(hashlib.sha1(body).digest()).decode()
    assert warc.digest(body) == f"sha1:{judged}"
