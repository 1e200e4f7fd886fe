"""Copies of token files: whole, once, and what a store, a disk or a kill does to them."""

import errno
import resource
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from training import staging, tokens
from training.config import BadInput

ROOT = Path(__file__).parents[2]
DEADLINE_S = 180


def remote(folder: str, files: dict[str, bytes]) -> str:
    """Put files into memory's store; the folder's URI."""
    fsspec.filesystem("memory").pipe({f"{folder}/{name}": held for name, held in files.items()})
    return f"memory://{folder}"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


FILES = {
    "00000.train.bin": b"aabb",
    "00000.validation.bin": b"",
    "00000.parquet": b"PAR1",
    "manifest.json": b"{}",
}
OTHERS = {"begun.json": b"{}", "reports/00000.json": b"{}", "00001.bin/of/others.bin": b"no"}


def test_what_is_local_stays_where_it_is(tmp_path: Path) -> None:
    for folder in ("a/b", str(tmp_path), f"{tmp_path}/a b"):
        assert staging.stage(folder, tmp_path / "to") == Path(folder)
    for scheme in ("file", "local"):
        assert staging.stage(f"{scheme}://{tmp_path}/x", tmp_path / "to") == tmp_path / "x"
    assert list(tmp_path.iterdir()) == []


def test_the_token_files_of_a_folder_are_copied_and_no_others(tmp_path: Path) -> None:
    uri = remote(str(tmp_path), FILES | OTHERS)
    copy = staging.stage(uri, tmp_path / "to")
    assert copy == tmp_path / "to" / blake2b(uri.encode(), digest_size=8).hexdigest()
    assert contents(copy) == FILES
    assert len(tokens.open_split(copy, "train")) == 2


@pytest.mark.parametrize("inner", ["", "tokens"])
def test_a_folder_in_an_archive_is_copied(tmp_path: Path, inner: str) -> None:
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        for name, held in (FILES | OTHERS).items():
            archive.writestr(f"{inner}/{name}".lstrip("/"), held)
    uri = f"zip://{inner}::file://{tmp_path}/made.zip"
    assert contents(staging.stage(uri, tmp_path / "to")) == FILES


NAMES = [*FILES, "00001.train.bin", "begun.json", ".00000.train.bin.tmp", "00000.bin.part"]
HELD = st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=3))


@settings(max_examples=150, deadline=None)
@given(HELD, HELD)
def test_whatever_stands_there_becomes_what_the_store_has(
    tmp_path_factory: pytest.TempPathFactory, store: dict[str, bytes], before: dict[str, bytes]
) -> None:
    """All but a file of the same size, which is left as it is."""
    folder = tmp_path_factory.mktemp("staged")
    store |= {"00000.train.bin": b"abcd"}
    uri = remote(str(folder), store)
    copy = staging.stage(remote(str(folder), store), folder)
    for path in copy.iterdir():
        path.unlink()
    for name, held in before.items():
        (copy / name).write_bytes(held)
    marks = {path.name: path.stat().st_ino for path in copy.iterdir()}
    assert staging.stage(uri, folder) == copy
    wanted = {name: held for name, held in store.items() if name in {*FILES, "00001.train.bin"}}
    stay = {name for name in wanted if len(before.get(name, b".....")) == len(wanted[name])}
    assert contents(copy) == {
        name: before[name] if name in stay else held for name, held in wanted.items()
    }
    assert all((copy / name).stat().st_ino == marks[name] for name in stay)
    fsspec.filesystem("memory").rm(str(folder), recursive=True)


class Remembering(MemoryFileSystem):
    """A driver that lists a folder once, as those of object stores do."""

    protocol = "remembering"
    seen: dict[str, Any] = {}  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("remembering://")))

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        if path not in self.seen:
            self.seen[path] = super().ls(path, detail)
        return self.seen[path]

    def invalidate_cache(self, path: str | None = None) -> None:
        self.seen.clear()


def test_what_a_driver_remembers_of_a_folder_is_not_believed(tmp_path: Path) -> None:
    fsspec.register_implementation("remembering", Remembering, clobber=True)
    uri = remote(str(tmp_path), FILES).replace("memory", "remembering")
    staging.stage(uri, tmp_path)
    remote(str(tmp_path), {"00001.train.bin": b"ccdd"})
    assert len(contents(staging.stage(uri, tmp_path))) == len(FILES) + 1


def refused(uri: str, to: Path, said: str) -> None:
    with pytest.raises(BadInput, match=said) as raised:
        staging.stage(uri, to)
    assert str(raised.value).startswith(f"{uri}: ")
    assert "\n" not in str(raised.value)


def test_a_uri_that_names_no_token_files_is_refused_in_one_line(tmp_path: Path) -> None:
    refused("nosuch://a/b", tmp_path, "cannot be opened: .*nosuch")
    refused(f"memory://{tmp_path}/none", tmp_path, "there is no such folder")
    refused(f"zip://::file://{tmp_path}/none.zip", tmp_path, "there is no such folder")
    (tmp_path / "torn.zip").write_bytes(b"PK")
    refused(f"zip://::file://{tmp_path}/torn.zip", tmp_path, "cannot be opened: .*zip")
    refused(
        remote(str(tmp_path), OTHERS | {"0.parquet": b""}), tmp_path, r"no token files \(\*\.bin\)"
    )


@pytest.mark.skipif(find_spec("s3fs") is not None, reason="the driver is installed here")
def test_a_driver_that_is_not_installed_is_named(tmp_path: Path) -> None:
    refused("s3://bucket/tokens", tmp_path, "s3fs.*pip install")


def test_a_full_disk_is_no_fault_of_the_input(tmp_path: Path) -> None:
    uri = remote(str(tmp_path), FILES | {"00001.train.bin": b"ab" * 5000})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            staging.stage(uri, tmp_path / "to")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.filename == uri
    copy = Path(raised.value.filename2)
    assert all(FILES[name] == held for name, held in contents(copy).items())
    assert staging.stage(uri, tmp_path / "to") == copy
    assert len(contents(copy)) == len(FILES) + 1


class Down(Exception):
    """What a driver may raise, of no common kind."""


DOWN = [Down("503 SlowDown"), ConnectionResetError("by peer"), OSError(errno.EIO, "Input/output")]


@pytest.mark.parametrize("error", DOWN)
def test_a_store_that_is_down_is_no_wrong_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The next start may find it up, and what was copied is there still."""
    uri = remote(str(tmp_path), FILES)
    copy = staging.stage(uri, tmp_path)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(MemoryFileSystem, "ls", fail)
    with pytest.raises(OSError, match="cannot be listed: ") as raised:
        staging.stage(uri, tmp_path)
    assert str(raised.value).startswith(f"{uri}: ") and "\n" not in str(raised.value)
    monkeypatch.undo()
    assert len(contents(copy)) == len(FILES) == len(contents(staging.stage(uri, tmp_path)))


def test_what_is_not_on_the_disk_is_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = remote(str(tmp_path), FILES)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="Input/output error") as raised:
        staging.stage(uri, tmp_path)
    assert contents(Path(raised.value.filename2)) == {}


def test_who_has_an_old_file_open_keeps_reading_it(tmp_path: Path) -> None:
    copy = staging.stage(remote(str(tmp_path), {"00000.train.bin": b"aabb"}), tmp_path)
    with (copy / "00000.train.bin").open("rb") as old:
        staging.stage(remote(str(tmp_path), {"00000.train.bin": b"ccddee"}), tmp_path)
        assert old.read() == b"aabb"
    assert contents(copy) == {"00000.train.bin": b"ccddee"}


class Served(ThreadingHTTPServer):
    """Serves a folder, tells of it on a page without sizes, and misbehaves where told to."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.folder = folder
        self.asked: list[str] = []
        self.stuck = ""
        """The file of which half is sent until `go`."""
        self.half, self.go = threading.Event(), threading.Event()
        self.torn = self.growing = ""

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Whoever asked is gone: the tests kill them."""


class Handler(SimpleHTTPRequestHandler):
    server: Served

    def do_GET(self) -> None:
        self.server.asked.append(self.path.rpartition("/")[2])
        super().do_GET()

    def do_HEAD(self) -> None:
        super().do_HEAD()
        self.wfile.flush()
        if self.server.growing and self.path.endswith(self.server.growing):
            with Path(self.translate_path(self.path)).open("ab") as file:
                file.write(b"more")

    def copyfile(self, source: Any, outputfile: Any) -> None:
        name = self.path.rpartition("/")[2]
        if not name or name not in (self.server.stuck, self.server.torn):
            super().copyfile(source, outputfile)
            return
        held = source.read()
        outputfile.write(held[: len(held) // 2])
        outputfile.flush()
        self.server.half.set()
        if name == self.server.stuck:
            self.server.go.wait(DEADLINE_S)
            outputfile.write(held[len(held) // 2 :])

    def log_message(self, *_: object) -> None:
        """Not on the tests' own output."""


SHARDS = 5
LAST = f"{SHARDS - 1:05d}.validation.bin"
"""The shortest file: among the last to be copied."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    folder = tmp_path / "served"
    folder.mkdir()
    for number in range(SHARDS):
        for end, length in (("train.bin", 9000), ("parquet", 500), ("validation.bin", 90 - number)):
            (folder / f"{number:05d}.{end}").write_bytes(bytes([number]) * length * 2)
    server = Served(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.go.set()
    server.shutdown()
    server.server_close()


def test_a_web_server_whose_listing_has_no_sizes_is_a_store_too(
    served: Served, tmp_path: Path
) -> None:
    copy = staging.stage(served.uri, tmp_path)
    assert contents(copy) == contents(served.folder)
    assert staging.stage(served.uri, tmp_path) == copy
    assert {name: n for name, n in Counter(served.asked).items() if name} == dict.fromkeys(
        contents(served.folder), 1
    )


def test_a_file_that_grows_under_the_copy_is_refused(served: Served, tmp_path: Path) -> None:
    served.growing = LAST
    with pytest.raises(BadInput, match=rf"{LAST}: listed with 172 bytes, but 176 came") as raised:
        staging.stage(served.uri, tmp_path)
    assert "\n" not in str(raised.value)
    served.growing = ""
    copy = staging.stage(served.uri, tmp_path)
    assert contents(copy) == contents(served.folder)


def test_a_store_that_fails_underway_leaves_whole_files_alone(
    served: Served, tmp_path: Path
) -> None:
    served.torn = LAST
    with pytest.raises(OSError, match="cannot be copied to") as raised:
        staging.stage(served.uri, tmp_path)
    assert "\n" not in str(raised.value)
    expected = contents(served.folder)
    (copy,) = (path for path in tmp_path.iterdir() if path.is_dir() and path != served.folder)
    assert contents(copy).items() < expected.items()
    served.torn = ""
    assert contents(staging.stage(served.uri, tmp_path)) == expected


STAGE = """
import sys
from pathlib import Path
from training import staging
print(staging.stage(sys.argv[1], Path(sys.argv[2])))
"""


def started(uri: str, to: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STAGE, uri, str(to)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_copy_killed_half_way_is_finished_by_the_next_call(
    served: Served, tmp_path: Path
) -> None:
    served.stuck = LAST
    with started(served.uri, tmp_path) as process:
        assert served.half.wait(DEADLINE_S)
        process.kill()
    expected = contents(served.folder)
    (copy,) = (path for path in tmp_path.iterdir() if path.is_dir() and path != served.folder)
    whole = {name: held for name, held in contents(copy).items() if not name.startswith(".")}
    assert LAST not in whole
    assert len(whole) >= 8
    assert whole.items() < expected.items()
    served.stuck = ""
    served.go.set()
    assert staging.stage(served.uri, tmp_path) == copy
    assert contents(copy) == expected
    asked = Counter(served.asked)
    assert {asked[name] for name in whole} == {1}
    assert asked[LAST] == 2


LOCKS = Path("/proc/locks")


@pytest.mark.slow
@pytest.mark.skipif(not LOCKS.exists(), reason="only Linux tells who waits for a lock")
def test_of_several_processes_one_copies_and_the_others_wait(
    served: Served, tmp_path: Path
) -> None:
    served.stuck = LAST
    several = [started(served.uri, tmp_path) for _ in range(3)]
    assert served.half.wait(DEADLINE_S)
    (lock,) = tmp_path.glob("*.lock")

    def waiting() -> int:
        lines = [line for line in LOCKS.read_text().splitlines() if "-> FLOCK" in line]
        return sum(f":{lock.stat().st_ino} " in line for line in lines)

    def twice() -> bool:
        return max(Counter(filter(None, served.asked)).values()) > 1

    until(lambda: waiting() == 2 or twice())
    served.go.set()
    told = {process.communicate(timeout=DEADLINE_S)[0] for process in several}
    assert [process.returncode for process in several] == [0, 0, 0]
    (folder,) = told
    assert contents(Path(folder.strip())) == contents(served.folder)
    asked = Counter(served.asked)
    assert asked.pop("") == 3
    assert set(asked.values()) == {1}
