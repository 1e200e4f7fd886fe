"""The demo's dump: Pushshift's form, every quirk, every page, the same bytes each time."""

import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import zstandard

from pipeline.demo import dump
from pipeline.demo.site import build

GENUINE = Path(__file__).parents[2] / "../shared/data/reddit/mixed_era_submissions.ndjson"


def lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(file)
        return reader.read().decode().splitlines()


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return dump.records(build(100, 20), seed=3)


def plain(url: str) -> str:
    """The page's address under all the dump's spellings."""
    parts = urlsplit(url.replace("&amp;", "&"))
    query = "&".join(pair for pair in parts.query.split("&") if pair and not pair.startswith("utm"))
    host = parts.netloc.lower().removeprefix("www.")
    return f"{host}{parts.path.rstrip('/')}" + (f"?{query}" if query else "")


def test_is_one_zstd_frame_with_a_two_gigabyte_window(tmp_path: Path) -> None:
    count = dump.write(build(100, 20), tmp_path / "RS.zst", seed=3)
    frame = zstandard.get_frame_parameters((tmp_path / "RS.zst").read_bytes())
    assert frame.window_size == 2**31
    assert frame.content_size == zstandard.CONTENTSIZE_UNKNOWN
    assert len(lines(tmp_path / "RS.zst")) == count
    with (
        pytest.raises(zstandard.ZstdError, match="memory"),
        (tmp_path / "RS.zst").open("rb") as file,
    ):
        zstandard.ZstdDecompressor().stream_reader(file).read()


def test_same_seed_same_bytes_other_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        dump.write(build(100, 20), tmp_path / name, seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_exactly_one_line_is_torn(tmp_path: Path) -> None:
    dump.write(build(100, 20), tmp_path / "RS.zst", seed=3)
    torn = 0
    for line in lines(tmp_path / "RS.zst"):
        try:
            json.loads(line)
        except json.JSONDecodeError:
            torn += 1
    assert torn == 1


def test_every_page_is_linked_and_every_trouble_is_asked_for(records: list[dict[str, Any]]) -> None:
    karma: Counter[str] = Counter()
    for one in records:
        if one["url"] and one["score"] and not (one["over_18"] or one.get("removed_by_category")):
            karma[plain(one["url"])] += one["score"]
    fates = build(100, 20).fates()
    for url, fate in fates.items():
        assert fate == "text" or karma[plain(url)] >= 3, url
    text = [url for url, fate in fates.items() if fate == "text"]
    unloved = [url for url in text if karma[plain(url)] < 3]
    assert 0.03 < len(unloved) / len(text) < 0.4


def test_some_pages_reach_three_only_by_the_sum() -> None:
    scores: dict[str, list[int]] = {}
    for one in dump.records(build(), seed=3):
        if one["url"] and one["score"] is not None and not one["over_18"]:
            scores.setdefault(plain(one["url"]), []).append(one["score"])
    assert any(sum(few) >= 3 > max(few) for few in scores.values())


def test_quirks_of_the_real_dumps_are_there(records: list[dict[str, Any]]) -> None:
    assert {type(one["created_utc"]) for one in records} == {int, str}
    assert any(one["score"] is None for one in records)
    assert any(one["url"] is None for one in records)
    assert any(one["is_self"] and one["domain"].startswith("self.") for one in records)
    assert any(one["over_18"] for one in records)
    assert any(one.get("promoted") and "subreddit" not in one for one in records)
    assert any(one.get("removed_by_category") for one in records)
    urls = [one["url"] or "" for one in records]
    for part in ("&amp;", "utm_source", "#part", "i.imgur.com", "reddit.com", "ftp://", "10.0.0."):
        assert any(part in url for url in urls), part


def test_dates_rise_from_2012_to_2017_and_ids_with_them(records: list[dict[str, Any]]) -> None:
    times = [int(one["created_utc"]) for one in records]
    assert times == sorted(times)
    assert times[0] >= 1325376000
    assert times[-1] < 1514764800
    ids = [int(one["id"], 36) for one in records]
    assert ids == sorted(set(ids))


def test_each_record_is_of_its_time(records: list[dict[str, Any]]) -> None:
    for one in records:
        written_as_text = 1388534400 <= int(one["created_utc"]) < 1448928000  # 2014 to 2015-11
        assert isinstance(one["created_utc"], str) is written_as_text
        assert ("is_video" in one) is (int(one["created_utc"]) >= 1483228800)  # from 2017 on


def test_field_names_are_those_of_genuine_records(records: list[dict[str, Any]]) -> None:
    if not GENUINE.exists():
        pytest.skip("../shared/data is not here: the genuine records cannot be compared")
    genuine = {key for line in GENUINE.read_text().splitlines() for key in json.loads(line)}
    ours = {key for one in records for key in one} - {"promoted", "crosspost_parent"}
    assert ours <= genuine
