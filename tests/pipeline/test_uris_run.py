"""Dumps at URIs, of servers and in archives, through the whole machinery."""

import os
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from crawl import parts
from pipeline import cli, failures, rebuild, state
from pipeline.failures import TaskFailed
from pipeline.local import Local
from pipeline.plan import plan
from tests.pipeline.dump_run import CONTENT, Counting, links, pack, plainly, recipe, told


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int, dict[str, int]]:
    return plainly(tmp_path_factory.mktemp("expected"))


@pytest.mark.parametrize("form", ["frames.zst", "zst_blocks", "gz", "csv", "parquet"])
@pytest.mark.parametrize("archive", ["zip", "tar.gz"])
def test_a_dump_within_an_archive_gives_the_same_links(
    tmp_path: Path, form: str, archive: str, expected, monkeypatch
):
    monkeypatch.setattr(parts, "PART_BYTES", 9000)
    (tmp_path / "in").mkdir()
    pack(tmp_path / "in" / f"RS.{form}")
    kind = {"zip": "zip", "tar.gz": "gztar"}[archive]
    shutil.make_archive(str(tmp_path / "all"), kind, tmp_path, "in")
    chain = f"{archive[:3]}://in/RS.*::file://{tmp_path}/all.{archive}"
    made = recipe(tmp_path, chain)
    links(made)
    assert told(made) == expected
    manifest = state.datasets(Path(made.root))["submissions"].manifest
    assert (manifest.tasks > 1) is (form in ("frames.zst", "zst_blocks"))


@pytest.mark.parametrize(
    "archive, words",
    [("zip", "cannot be read: Bad CRC-32 for file 'RS.ndjson'"), ("tar", "cannot be asked: unex")],
)
def test_a_member_of_an_archive_that_is_damaged_ends_in_one_line(
    tmp_path: Path, archive: str, words: str
):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "RS.ndjson").write_bytes(CONTENT)
    name = f"{tmp_path}/all.{archive}"
    if archive == "zip":
        with zipfile.ZipFile(name, "w") as members:
            members.writestr("RS.ndjson", CONTENT)
        Path(name).write_bytes(Path(name).read_bytes().replace(b"page-7", b"page-8", 1))
    else:
        shutil.make_archive(str(tmp_path / "all"), archive, tmp_path / "in")
        os.truncate(name, 100_000)
    with pytest.raises(failures.BadInput) as raised:
        links(recipe(tmp_path, f"{archive}://RS.ndjson::{name}"))
    assert re.search(rf"{archive}://RS.ndjson::{name}: {words}", str(raised.value))
    assert "\n" not in str(raised.value)


@contextmanager
def served(folder: Path, *, ranges: bool = True, sized: bool = True) -> Iterator[str]:
    """The files of a folder over HTTP on loopback, in ranges or whole, with a size or without."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            path = folder / self.path[1:]
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            asked = self.headers.get("Range", "") if ranges else ""
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
            start = int(span[1]) if span else 0
            end = min(int(span[2]) + 1 if span and span[2] else len(content), len(content))
            self.send_response(206 if span else 200)
            self.send_header("Accept-Ranges", "bytes" if ranges else "none")
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
            if span:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            if sized:
                self.send_header("Content-Length", str(end - start))
            self.close_connection = not sized
            self.end_headers()
            if with_body:
                with suppress(ConnectionError):
                    self.wfile.write(content[start:end])

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("form", ["frames.zst", "ndjson", "xz", "parquet"])
def test_a_dump_at_a_uri_is_read_where_it_lies(tmp_path: Path, form: str, expected, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 9000)
    pack(tmp_path / f"RS.{form}")
    with served(tmp_path) as address:
        made = recipe(tmp_path, f"{address}/RS.{form}")
        links(made)
        assert told(made) == expected
        executor = Counting()
        rebuild.rebuild(plan(made)[:2], Path(made.root), 4, executor, lambda *_: None)
        assert executor.ran == []


@pytest.mark.parametrize("cache", ["", "simplecache::"])
@pytest.mark.parametrize("form", ["frames.zst", "zst_blocks", "ndjson", "gz", "bz2", "csv"])
def test_a_server_that_gives_no_parts_is_read_from_the_beginning(
    tmp_path: Path, form: str, cache: str, expected, monkeypatch
):
    monkeypatch.setattr(parts, "PART_BYTES", 9000)
    pack(tmp_path / f"RS.{form}")
    with served(tmp_path, ranges=False) as address:
        made = recipe(tmp_path, f"{cache}{address}/RS.{form}")
        links(made)
    assert told(made) == expected
    manifest = state.datasets(Path(made.root))["submissions"].manifest
    assert (manifest.tasks > 1) is (bool(cache) and form in ("frames.zst", "zst_blocks", "ndjson"))


def test_a_server_that_gives_too_little_is_told_in_one_line(tmp_path: Path):
    pack(tmp_path / "RS.parquet")
    with served(tmp_path, ranges=False) as address:
        with pytest.raises(TaskFailed) as raised:
            links(recipe(tmp_path, f"{address}/RS.parquet"))
        said, ends_with = cli.verdict(raised.value)
        assert ends_with == 2 and "\n" not in said and "cannot be read as a table" in said, said
        links(recipe(tmp_path, f"simplecache::{address}/RS.parquet"))
    unsized = pytest.raises(failures.BadInput, match=r"RS\.parquet: the storage does not say how")
    with served(tmp_path, sized=False) as address, unsized:
        links(recipe(tmp_path, f"{address}/RS.parquet"))


@pytest.mark.parametrize("first, second", [("path", "uri"), ("uri", "path")])
def test_a_dump_may_move_between_a_path_and_a_uri(
    tmp_path: Path, expected, monkeypatch, first: str, second: str
):
    monkeypatch.setattr(parts, "PART_BYTES", 9000)
    dump = pack(tmp_path / "RS.frames.zst")
    names = {"path": str(dump), "uri": f"file://{dump}"}
    made = recipe(tmp_path, names[first])
    Path(made.root).mkdir()

    class Killed(Local):
        def wait(self, limit_s=None):
            if len(list(Path(made.root).glob("submissions/*/reports/*"))) == 2:
                raise KeyboardInterrupt
            return super().wait(limit_s)

    with pytest.raises(KeyboardInterrupt):
        rebuild.rebuild(plan(made)[:2], Path(made.root), 4, Killed(), lambda *_: None)
    links(recipe(tmp_path, names[second]))
    assert told(made) == expected
    hashes = state.datasets(Path(made.root))["submissions"].manifest.set_hash
    (tmp_path / "other").mkdir()
    other = recipe(tmp_path / "other", names[first])
    links(other)
    assert state.datasets(Path(other.root))["submissions"].manifest.set_hash == hashes


def test_a_password_in_a_uri_is_not_taken(tmp_path: Path):
    with pytest.raises(
        failures.BadInput, match=r"^crawl\.submissions: a URI must not hold a pass"
    ) as e:
        links(recipe(tmp_path, "http://me:secret@127.0.0.1:9/RS.zst"))
    assert "secret" not in str(e.value)
