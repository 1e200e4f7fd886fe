"""Leaf files: found, known by content, read once."""

import json
import os
import shutil
import zipfile
from hashlib import sha256
from pathlib import Path

import fsspec
import pytest

from pipeline import leaf, leaves
from pipeline.failures import BadInput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("RS_1.zst", "one"), ("RS_2.zst", "two"), ("RS_3.zst", "one")):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_globs_and_paths_name_each_file_once(folder: Path):
    found = leaves.find([f"{folder}/RS_*.zst", f"{folder}/RS_1.zst"], "crawl.submissions")
    assert found == [f"{folder}/RS_{number}.zst" for number in (1, 2, 3)]


def test_a_name_that_looks_like_a_glob_is_a_name_if_it_exists(folder: Path):
    (folder / "a[1].zst").write_text("x")
    assert leaves.find([f"{folder}/a[1].zst"], "k") == [f"{folder}/a[1].zst"]


@pytest.mark.parametrize("pattern", ["none.zst", "none*.zst", "."])
def test_what_names_no_file_is_refused_with_its_key(folder: Path, pattern: str):
    with pytest.raises(BadInput, match=r"crawl\.archives: no such file"):
        leaves.find([f"{folder}/{pattern}"], "crawl.archives")


@pytest.mark.parametrize("pattern", ["**foo", "a" * 300, "a" * 300 + "*/b"])
def test_what_can_be_no_name_or_glob_is_refused_with_its_key(folder: Path, pattern: str):
    with pytest.raises(BadInput, match=r"^crawl\.submissions: ") as raised:
        leaves.find([f"{folder}/{pattern}"], "crawl.submissions")
    assert "\n" not in str(raised.value)


def test_a_name_that_is_not_utf_8_is_refused_with_its_key(folder: Path):
    try:
        (folder / "RS_\udcff.zst").write_text("x")
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(BadInput, match=r"^crawl\.archives: '.*udcff\.zst': its name is not UTF-8$"):
        leaves.find([f"{folder}/RS_*"], "crawl.archives")


MEMORY = Path("/proc/self/mem")


@pytest.mark.skipif(not MEMORY.exists(), reason="there is no /proc here")
def test_a_file_that_cannot_be_read_is_refused_with_its_key(folder: Path):
    with pytest.raises(BadInput, match=r"^crawl\.submissions: /proc/self/mem: cannot be read: In"):
        leaves.find([f"{folder}/RS_1.zst", str(MEMORY)], "crawl.submissions")
    with pytest.raises(BadInput, match=r"^/proc/self/mem: cannot be read: Input/output error$"):
        leaves.digest([str(MEMORY)], folder / "leaves.json")


def test_equal_contents_count_once_whatever_their_names(folder: Path):
    paths = [str(path) for path in folder.glob("RS_*")]
    found = leaves.digest(paths, folder / "leaves.json")
    assert len(found) == 2
    digests = [one.digest for one in found]
    assert digests == sorted(digests)


def test_an_unchanged_file_is_not_read_again(folder: Path, monkeypatch):
    paths = [str(path) for path in folder.glob("RS_*")]
    before = leaves.digest(paths, folder / "leaves.json")
    monkeypatch.setattr(leaf, "digest_of", lambda path: pytest.fail(f"{path} was read again"))
    assert leaves.digest(paths, folder / "leaves.json") == before


def test_a_changed_file_is_read_again(folder: Path):
    paths = [str(path) for path in folder.glob("RS_*")]
    before = leaves.digest(paths, folder / "leaves.json")
    (folder / "RS_2.zst").write_text("three")
    after = leaves.digest(paths, folder / "leaves.json")
    assert sha256((folder / "RS_2.zst").read_bytes()).hexdigest() in {one.digest for one in after}
    assert before != after


def test_a_file_changed_without_a_change_of_size_is_read_again(folder: Path):
    paths = [str(folder / "RS_1.zst")]
    leaves.digest(paths, folder / "leaves.json")
    path = folder / "RS_1.zst"
    path.write_text("two")
    os.utime(path, ns=(0, 0))
    (found,) = leaves.digest(paths, folder / "leaves.json")
    assert found.digest == sha256((folder / "RS_2.zst").read_bytes()).hexdigest()


def test_a_memory_of_digests_of_another_kind_is_not_believed(folder: Path):
    path = folder / "RS_1.zst"
    status = path.stat()
    known = {"bytes": status.st_size, "mark": str(status.st_mtime_ns), "digest": "00" * 16}
    (folder / "leaves.json").write_text(json.dumps({str(path): known}))
    (found,) = leaves.digest([str(path)], folder / "leaves.json")
    assert found.digest == sha256(b"one").hexdigest()


def test_a_damaged_memory_of_digests_costs_only_reading_again(folder: Path):
    paths = [str(path) for path in folder.glob("RS_*")]
    before = leaves.digest(paths, folder / "leaves.json")
    (folder / "leaves.json").write_text("{half a fil")
    assert leaves.digest(paths, folder / "leaves.json") == before


def test_digests_of_files_not_asked_for_are_remembered_too(folder: Path, monkeypatch):
    one, two = ([f"{folder}/RS_{number}.zst"] for number in (1, 2))
    for paths in (one, two):
        leaves.digest(paths, folder / "leaves.json")
    monkeypatch.setattr(leaf, "digest_of", lambda path: pytest.fail(f"{path} was read again"))
    assert leaves.digest(one, folder / "leaves.json")[0].path == one[0]


def test_files_at_a_uri_are_leaves_like_others(folder: Path):
    system = fsspec.filesystem("memory")
    for name, text in (("RS_1", b"one"), ("RS_2", b"two"), ("sub/RS_3", b"three")):
        system.pipe(f"/leaves/{name}", text)
    names = leaves.find(["memory://leaves/RS_*", "memory://leaves/sub/RS_3"], "k")
    assert names == [f"memory:///leaves/{name}" for name in ("RS_1", "RS_2")] + [
        "memory://leaves/sub/RS_3"
    ]
    one, two, three = leaves.digest([str(folder / "RS_1.zst"), *names[1:]], folder / "leaves.json")
    assert {one.digest, two.digest} >= {sha256((folder / "RS_1.zst").read_bytes()).hexdigest()}
    assert {one.bytes, two.bytes, three.bytes} == {3, 5}
    assert {found.digest for found in (one, two, three)} == {
        sha256(text).hexdigest() for text in (b"one", b"two", b"three")
    }


def test_a_file_at_a_uri_that_changes_is_another_leaf(folder: Path):
    system = fsspec.filesystem("memory")
    system.pipe("/leaves/RS", b"one")
    before = leaves.digest(["memory://leaves/RS"], folder / "leaves.json")
    assert leaves.digest(["memory://leaves/RS"], folder / "leaves.json") == before
    system.pipe("/leaves/RS", b"two")
    after = leaves.digest(["memory://leaves/RS"], folder / "leaves.json")
    assert after[0].digest != before[0].digest


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # all of one time
    return path


@pytest.mark.parametrize("place", ["file://", ""])
def test_a_glob_in_a_chain_of_uris_names_files_in_all_that_they_lie_in(folder: Path, place: str):
    rest = f"{place}{zipped(folder / 'a.zip', RS_1=b'one', RS_2=b'three', RC_1=b'')}"
    found = leaves.find([f"zip://RS_*::{rest}", f"zip://RS_2::{rest}"], "crawl.submissions")
    assert found == [f"zip://RS_1::{rest}", f"zip://RS_2::{rest}"]
    assert {(one.path, one.bytes, one.digest) for one in leaves.digest(found, folder / "x")} == {
        (found[0], 3, sha256(b"one").hexdigest()),
        (found[1], 5, sha256(b"three").hexdigest()),
    }
    cached = f"simplecache::zip://RS_*::{rest}"
    assert leaves.find([cached], "crawl.submissions") == [f"simplecache::{name}" for name in found]


CHAINS = [
    "zip://RS_1::file://{}/a.zip",
    "zip://RS_1::{}/a.zip",
    "simplecache::zip://RS_1::file://{}/a.zip",
    "zip://RS_1::simplecache::file://{}/a.zip",
    "simplecache://::file://{}/RS_1",
    "simplecache::file://{}/RS_1",
    "dir://RS_1::file://{}",
    "dir://RS_1::{}",
    "simplecache::dir://RS_1::file://{}",
    "zip://RS_1::dir://a.zip::file://{}",
]


@pytest.mark.parametrize("chain", CHAINS)
def test_a_file_at_a_chain_that_changes_is_another_leaf(folder: Path, monkeypatch, chain: str):
    zipped(folder / "a.zip", RS_1=b"one")
    (folder / "RS_1").write_bytes(b"one")
    found = leaves.find([chain.format(folder)], "k")
    before = leaves.digest(found, folder / "leaves.json")
    assert before[0].digest == sha256(b"one").hexdigest()
    with monkeypatch.context() as patched:
        patched.setattr(leaf, "digest_of", lambda path: pytest.fail(f"{path} was read again"))
        assert leaves.digest(found, folder / "leaves.json") == before
    zipped(folder / "a.zip", RS_1=b"two")
    (folder / "RS_1").write_bytes(b"two")
    for name in ("a.zip", "RS_1"):
        os.utime(folder / name, ns=(0, 10**18))
    after = leaves.digest(leaves.find(found, "k"), folder / "leaves.json")
    assert after[0].digest == sha256(b"two").hexdigest()
    assert after[0].mark not in ("", before[0].mark)


def test_a_folder_in_an_archive_has_no_mark_but_what_is_read(folder: Path):
    (folder / "in").mkdir()
    (folder / "in" / "RS_1").write_bytes(b"one")
    shutil.make_archive(str(folder / "a"), "tar", folder, "in")
    (found,) = leaves.digest([f"dir://RS_1::tar://in::file://{folder}/a.tar"], folder / "x")
    assert (found.mark, found.digest) == ("", sha256(b"one").hexdigest())


@pytest.mark.parametrize(
    "told",
    [{"ETag": "x"}, {"Last-Modified": "x"}, {"LastModified": "x"}, {"Content-MD5": "x"},
     {"content_md5": "x"}, {"mtime": 7.5}, {"generation": 7}],
)  # fmt: skip
def test_whatever_a_storage_tells_of_a_change_marks_it(monkeypatch, told: dict[str, object]):
    class Storage:
        def info(self, name: str) -> dict[str, object]:
            return {"name": name, "size": 3, "type": "file", **told}

    monkeypatch.setattr(leaf, "url_to_fs", lambda path: (Storage(), path))
    found = leaf.look("s3://bucket/RS")
    assert found and found.bytes == 3 and found.mark.endswith(f" {next(iter(told.values()))}")


@pytest.mark.parametrize(
    "uri",
    ["sftp://me:word@host/RS", "sftp://me:a::word@host/RS", "zip://RS::sftp://me:word@host/a.zip",
     "simplecache::sftp://me:word@host/RS"],
)  # fmt: skip
def test_a_uri_with_a_password_is_refused_without_saying_it(uri: str):
    with pytest.raises(BadInput, match=r"^k: a URI must not hold a password") as raised:
        leaves.find([uri], "k")
    assert "word@" not in str(raised.value)


@pytest.mark.parametrize(
    "uri, said",
    [
        ("memory://gone/RS_1", "no such file: memory://gone/RS_1"),
        ("memory://gone/RS_*", "no such file: memory://gone/RS_"),
        ("zip://RS::memory://gone/a.zip", "no such file: zip://RS::memory://gone/a.zip"),
        ("zip://RS*::memory://gone/a.zip", "no such file: zip://RS*::memory://gone/a.zip"),
        ("zip://RS::memory://leaves/no.zip", "zip://RS::memory://leaves/no.zip: cannot be asked"),
        ("zip://RS::nosuch://a.zip", "zip://RS::nosuch://a.zip: Protocol not known"),
        ("nosuch://a/b", "nosuch://a/b: Protocol not known"),
        ("http://127.0.0.1:9/RS.zst", "no such file: http://127.0.0.1:9/RS.zst"),
    ],
)
def test_a_uri_that_leads_nowhere_is_told_in_one_line(uri: str, said: str):
    fsspec.filesystem("memory").pipe("/leaves/no.zip", b"no archive")
    with pytest.raises(BadInput) as raised:
        leaves.find([uri], "crawl.submissions")
    assert str(raised.value).startswith(f"crawl.submissions: {said}")
    assert "\n" not in str(raised.value)


def test_a_storage_that_is_not_installed_is_named_with_what_to_install(monkeypatch):
    def absent(*_: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(leaf, "url_to_fs", absent)
    with pytest.raises(BadInput, match=r"^k: s3://b/x: Install s3fs to access S3"):
        leaves.find(["s3://b/x"], "k")


def test_where_a_file_can_be_cut_is_asked_once_for_each_rule(folder: Path):
    asked: list[str] = []

    def places(path: str, size: int) -> list[int]:
        asked.append(Path(path).name)
        return [size - 1]

    found = leaves.digest([f"{folder}/RS_1.zst", f"{folder}/RS_2.zst"], folder / "leaves.json")
    for rule in ("1", "1", "2"):
        cut = leaves.cut(found, folder / "leaves.json", rule, places)
        assert cut == {f"{folder}/RS_{n}.zst": [2] for n in (1, 2)}
    assert sorted(asked) == ["RS_1.zst", "RS_1.zst", "RS_2.zst", "RS_2.zst"]
    (folder / "RS_1.zst").write_text("longer")
    again = leaves.digest([f"{folder}/RS_1.zst"], folder / "leaves.json")
    assert leaves.cut(again, folder / "leaves.json", "2", places) == {f"{folder}/RS_1.zst": [5]}
