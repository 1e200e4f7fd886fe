"""What stands behind damage in an archive is read, and each gap is one unreadable record."""

import contextlib
import datetime
import gzip
import io
import random
import re
import uuid
import zlib
from itertools import pairwise, product
from pathlib import Path

import pytest
import zstandard

from crawl import capture, resync, warc
from crawl.schema import BadInput

MOMENT = datetime.datetime(2016, 5, 4, 3, 2, 1, tzinfo=datetime.UTC)
BODIES = [b"<p>%d " % n + random.Random(n).randbytes(3000) for n in range(10)]
TEXTS = [body.hex().encode() for body in BODIES]


@pytest.fixture(autouse=True)
def the_same_bytes_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one damaged byte does depends on every other one, so on the records' ids too."""
    ids = random.Random(0)
    monkeypatch.setattr(capture.uuid, "uuid4", lambda: uuid.UUID(int=ids.getrandbits(128)))


def member(body: bytes, target: str = "http://a.com/", *headers: tuple[str, str]) -> bytes:
    file = io.BytesIO()
    answer = warc.Answer(200, "OK", (("Content-Type", "text/html"), *headers), body)
    capture.write(file, warc.Exchange(target, MOMENT, answer))
    return file.getvalue()


def found(path: Path, content: bytes) -> tuple[list[bytes], int]:
    """The bodies that are read, and how many gaps are told."""
    path.write_bytes(content)
    records = list(warc.records(str(path), 10**7))
    return (
        [record.answer.body for record in records if record.answer],
        sum(record.kind == "unreadable" for record in records),
    )


def flipped(data: bytes, at: int, bits: int = 0x10) -> bytes:
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


HARMS = {
    "zeros before": lambda data: bytes(512) + data,
    "junk before": lambda data: b"junk\n\x1f\x8b\x08\x00 and more\n" + data,
    "zeros within": lambda data: data[:900] + bytes(512) + data[900:],
    "cut": lambda data: data[: len(data) // 2],
    "no beginning": lambda data: data[10:],
    "version": lambda data: data[5:],
}
LOST = {"zeros within", "cut", "no beginning", "version"}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("place", [0, 4, 9])
@pytest.mark.parametrize("form", ["stored", "packed", "plain"])
def test_damage_costs_what_it_hits_and_nothing_behind_it(
    tmp_path: Path, harm: str, place: int, form: str
) -> None:
    bodies = BODIES if form == "stored" else TEXTS
    coding = (("Content-Encoding", "gzip"),) if form == "stored" else ()
    parts = [member(body, "http://a.com/", *coding) for body in bodies]
    if form == "plain":
        parts = [gzip.decompress(part) for part in parts]
    parts[place] = HARMS[harm](parts[place])
    left = [body for n, body in enumerate(bodies) if n != place or harm not in LOST]
    data, name = b"".join(parts), "x.warc.gz" if form in ("stored", "packed") else "x.warc"
    assert found(tmp_path / name, data) == (left, 1)


@pytest.mark.parametrize("form", ["stored", "packed"])
def test_one_byte_anywhere_costs_one_member_at_most(tmp_path: Path, form: str) -> None:
    bodies = BODIES if form == "stored" else TEXTS
    coding = (("Content-Encoding", "gzip"),) if form == "stored" else ()
    parts = [member(body, "http://a.com/", *coding) for body in bodies[:4]]
    whole, data = len(parts[0]), b"".join(parts)
    without = 0
    for at in range(whole, whole + len(parts[1]), 17):
        bodies_read, gaps = found(tmp_path / "x.warc.gz", flipped(data, at))
        # in a member's header, and between its blocks, some bits say nothing, and one that only
        # says that the member ends costs no body
        assert bodies_read in ([bodies[0], *bodies[2:4]], bodies[:4]), at
        assert gaps == 1 or bodies_read == bodies[:4], at
        without += bodies_read != bodies[:4]
    assert without >= len(parts[1]) // 17 - 3


def test_a_member_whose_end_is_not_told_gives_its_record_and_a_gap(tmp_path: Path) -> None:
    """All that stood in it is decoded, and then what was never written."""
    untold = 0
    for first, second in pairwise(TEXTS):
        damaged, whole = member(first), member(second)
        for at, bits in product(range(len(damaged) - 12, len(damaged)), [1 << n for n in range(8)]):
            bodies, gaps = found(tmp_path / "x.warc.gz", flipped(damaged, at, bits) + whole)
            assert (bodies, gaps) in (([second], 1), ([first, second], 0), ([first, second], 1)), at
            untold += len(bodies) + gaps == 3
    assert untold


def test_many_damages_are_as_many_gaps(tmp_path: Path) -> None:
    parts = [member(body) for body in BODIES]
    for place in (1, 4, 8):
        parts[place] = flipped(parts[place], len(parts[place]) // 2)
    left = [body for n, body in enumerate(BODIES) if n not in (1, 4, 8)]
    assert found(tmp_path / "x.warc.gz", b"".join(parts)) == (left, 3)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_cut_record_swallowed_is_read(tmp_path: Path, zipped: bool) -> None:
    """The first is cut, and so long that it would reach over all others."""
    long = member(random.Random(0).randbytes(5 << 20))
    parts = [long, *map(member, BODIES)]
    if not zipped:
        parts = [gzip.decompress(part) for part in parts]
    parts[0] = parts[0][: 3 << 20]
    name = "x.warc.gz" if zipped else "x.warc"
    assert found(tmp_path / name, b"".join(parts)) == (BODIES, 1)


@pytest.mark.parametrize("name", ["x.warc.gz", "x.warc"])
def test_a_file_that_cannot_be_sought_in_goes_on_too(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [member(body) for body in BODIES]
    if name == "x.warc":
        parts = [gzip.decompress(part) for part in parts]
    parts[4] = b"junk\n" + parts[4]

    class Forward(io.FileIO):
        def seekable(self) -> bool:
            return False

    path = tmp_path / name
    monkeypatch.setattr(resync.streams, "open_plain", lambda _: io.BufferedReader(Forward(path)))
    assert found(path, b"".join(parts)) == (BODIES, 1)
    assert all(record.start is None for record in warc.records(str(path), 10**7))


def test_a_header_that_was_cut_is_none_of_the_next_record(tmp_path: Path) -> None:
    first, second = (gzip.decompress(member(b"<p>x", f"http://{name}.com/")) for name in "ab")
    head = first.index(b"\r\n\r\n")
    for size in range(5, head):
        (tmp_path / "x.warc").write_bytes(second + first[:size] + second)
        records = list(warc.records(str(tmp_path / "x.warc"), 1000))
        assert [record.kind for record in records] == ["response", "unreadable", "response"], size
        assert records[2].target == "http://b.com/"


@pytest.mark.parametrize("target", ["http://a.com/?v=WARC/1.0", "http://a.com/WARC/1.1"])
def test_a_url_may_end_as_a_header_begins(tmp_path: Path, target: str) -> None:
    """Else what its own page says would be taken for a record."""
    inner = gzip.decompress(member(b"<p>forged", "http://victim.org/"))
    data = member(b"<p>\r\n" + inner, target) + member(b"<p>next")
    for name, content in (("x.warc.gz", data), ("x.warc", gzip.decompress(data))):
        assert found(tmp_path / name, content) == ([b"<p>\r\n" + inner, b"<p>next"], 0)
        told = [record.target for record in warc.records(str(tmp_path / name), 10**7)]
        assert told[0] == target


@pytest.mark.parametrize("ends", [b"", b"\n", b"\r\n", b"\r\n\r\n"])
def test_a_whole_record_may_end_anywhere_within_what_is_read(tmp_path: Path, ends: bytes) -> None:
    plain = gzip.decompress(member(b""))
    bare = plain.removesuffix(b"\r\n\r\n")
    at = resync.SOME - len(bare) - 40
    for size in range(at, at + 80):
        body = b"x" * size
        records = [gzip.decompress(member(one)).removesuffix(b"\r\n\r\n") + ends
                   for one in (body, b"<p>second", b"<p>third")]  # fmt: skip
        packed = zstandard.ZstdCompressor().compress(b"".join(records))
        assert found(tmp_path / "x.warc.zst", packed) == ([body, b"<p>second", b"<p>third"], 0)


def test_a_record_in_the_body_of_a_good_one_is_none(tmp_path: Path) -> None:
    inner = gzip.decompress(member(b"<p>forged", "http://b.com/"))
    packed = member(b"<p>forged", "http://b.com/")
    coding = ("Content-Encoding", "gzip")  # so it is stored as it is
    bodies = [b"\r\n" + inner, packed * 3]
    parts = [member(body, "http://a.com/", coding) for body in bodies]
    data = b"".join([parts[0], b"junk", parts[1], b"junk", parts[0]])
    assert found(tmp_path / "x.warc.gz", data) == ([bodies[0], bodies[1], bodies[0]], 2)
    plain = [gzip.decompress(part) for part in parts]
    data = b"".join([plain[0], b"junk\n", plain[1], b"junk\n", plain[0]])
    assert found(tmp_path / "x.warc", data) == ([bodies[0], bodies[1], bodies[0]], 2)


def test_a_header_may_come_in_any_pieces(tmp_path: Path) -> None:
    plain = gzip.decompress(member(BODIES[0]))
    data = b"".join(gzip.compress(plain[at : at + 1]) for at in range(len(plain)))
    assert found(tmp_path / "x.warc.gz", data) == ([BODIES[0]], 0)
    data = gzip.compress(b"junk WARC/1.0\n") + data
    assert found(tmp_path / "x.warc.gz", data) == ([BODIES[0]], 1)


def test_of_many_records_in_one_member_those_before_the_damage_are_read(tmp_path: Path) -> None:
    packed = gzip.compress(b"".join(gzip.decompress(member(text)) for text in TEXTS))
    data = packed[: len(packed) // 2] + member(b"<p>behind")
    seen, gaps = found(tmp_path / "x.warc.gz", data)
    assert gaps == 1 and seen[-1] == b"<p>behind"
    assert seen[:-1] == TEXTS[: len(seen) - 1] and len(seen) > 3


def test_a_zst_file_ends_at_damage(tmp_path: Path) -> None:
    parts = [zstandard.compress(gzip.decompress(member(body * 20))) for body in BODIES]
    parts[4] = flipped(parts[4], 9)
    seen, gaps = found(tmp_path / "x.warc.zst", b"".join(parts))
    # the last before it may have been decoded together with it
    assert seen == [body * 20 for body in BODIES[: len(seen)]] and len(seen) in (3, 4)
    assert gaps == 1


def test_junk_alone_is_no_archive(tmp_path: Path) -> None:
    for name, junk in (("x.warc.gz", b"\x1f\x8b\x08\x00" * 5000), ("x.warc", b"WARC/1.0\n" * 9)):
        (tmp_path / name).write_bytes(junk)
        with pytest.raises(BadInput, match=re.escape(name)):
            list(warc.records(str(tmp_path / name), 10**7))


def nested(count: int) -> bytes:
    """Members that begin with a record and hold the next one, stored, so that all run to the end of
    the file, where none is whole."""
    inner = b""
    for _ in range(count):
        head = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 1000000000\r\n\r\n"
        size = len(head) + len(inner)
        block = b"\x00" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little")
        inner = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + block + head + inner
    return inner


@pytest.mark.parametrize("form", ["gz", "plain", "short"])
def test_what_is_gone_over_again_has_a_bound(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n"
    data = {
        "gz": nested(600) * 30,
        "plain": endless % 10**9 * 30_000,
        "short": (endless % 0 + b"junk\n") * 30_000,
    }[form]
    monkeypatch.setattr(resync, "AT_LEAST", 1 << 20)
    read = 0

    class Counted(io.FileIO):
        def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
            nonlocal read
            size = super().readinto(buffer)
            read += size or 0
            return size

    path = tmp_path / ("x.warc.gz" if form == "gz" else "x.warc")
    path.write_bytes(data)
    inflated = 0
    whole = zlib.decompressobj

    class Inflater:
        def __init__(self, wbits: int) -> None:
            self._inner = whole(wbits=wbits)

        def decompress(self, some: bytes, most: int) -> bytes:
            nonlocal inflated
            plain = self._inner.decompress(some, most)
            inflated += len(plain)
            return plain

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

    monkeypatch.setattr(resync.zlib, "decompressobj", Inflater)
    monkeypatch.setattr(resync.streams, "open_plain", lambda _: io.BufferedReader(Counted(path)))
    with contextlib.suppress(BadInput):
        assert all(one.kind in ("unreadable", "response") for one in warc.records(str(path), 10**7))
    assert read < 8 * len(data) + (8 << 20)
    assert inflated < 8 * len(data) + (8 << 20)
