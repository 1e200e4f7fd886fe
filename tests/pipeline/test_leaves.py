"""Leaf files: found, known by content, read once."""

import os
from pathlib import Path

import pytest

from pipeline import leaves, store
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
    assert [leaf.digest for leaf in found] == sorted(leaf.digest for leaf in found)


def test_an_unchanged_file_is_not_read_again(folder: Path, monkeypatch):
    paths = [str(path) for path in folder.glob("RS_*")]
    before = leaves.digest(paths, folder / "leaves.json")
    monkeypatch.setattr(leaves, "digest_of", lambda path: pytest.fail(f"{path} was read again"))
    assert leaves.digest(paths, folder / "leaves.json") == before


def test_a_changed_file_is_read_again(folder: Path):
    paths = [str(path) for path in folder.glob("RS_*")]
    before = leaves.digest(paths, folder / "leaves.json")
    (folder / "RS_2.zst").write_text("three")
    after = leaves.digest(paths, folder / "leaves.json")
    assert store.digest_of(folder / "RS_2.zst") in {leaf.digest for leaf in after}
    assert before != after


def test_a_file_changed_without_a_change_of_size_is_read_again(folder: Path):
    paths = [str(folder / "RS_1.zst")]
    leaves.digest(paths, folder / "leaves.json")
    path = folder / "RS_1.zst"
    path.write_text("two")
    os.utime(path, ns=(0, 0))
    (leaf,) = leaves.digest(paths, folder / "leaves.json")
    assert leaf.digest == store.digest_of(folder / "RS_2.zst")


def test_a_damaged_memory_of_digests_costs_only_reading_again(folder: Path):
    paths = [str(path) for path in folder.glob("RS_*")]
    before = leaves.digest(paths, folder / "leaves.json")
    (folder / "leaves.json").write_text("{half a fil")
    assert leaves.digest(paths, folder / "leaves.json") == before


def test_digests_of_files_not_asked_for_are_remembered_too(folder: Path, monkeypatch):
    one, two = ([f"{folder}/RS_{number}.zst"] for number in (1, 2))
    for paths in (one, two):
        leaves.digest(paths, folder / "leaves.json")
    monkeypatch.setattr(leaves, "digest_of", lambda path: pytest.fail(f"{path} was read again"))
    assert leaves.digest(one, folder / "leaves.json")[0].path == one[0]


def test_a_uri_is_refused_for_what_it_is():
    with pytest.raises(BadInput, match=r"crawl\.archives: s3://b/x: must be a file .* not a URI"):
        leaves.find(["s3://b/x"], "crawl.archives")
