"""Archives and indexes of them through the whole machinery: the nearest capture, then the web."""

import datetime
import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import config as settings
from pipeline import make, state
from pipeline.config import Config
from tests import web
from tests.common_crawl import FORMS, Archive, cdx, cdxj, columnar, moved

POSTS = {
    "http://a.test/1": "2016-05-04",
    "http://a.test/2": "2016-05-04",
    "http://b.test/": "2013-01-01",
    "http://c.test/?p=1": "2017-12-31",
    "http://none.test/": "2016-01-01",
}
NEAREST = {
    "http://a.test/1": ("2016-05-01", -3),
    "http://a.test/2": ("2016-06-01", 28),
    "http://b.test/": ("2012-12-25", -7),
    "http://c.test/?p=1": ("2018-01-01", 1),
}
FAR = {"http://a.test/1": ("2010-01-01", "2016-05-08"), "http://b.test/": ("2013-01-10",)}
"""Captures of the same pages that others are nearer than."""


def recipe(folder: Path, *words: str, posts: dict[str, str] = POSTS) -> Config:
    lines = [
        {
            "id": f"p{number}",
            "url": address,
            "score": 5,
            "subreddit": "books",
            "created_utc": int(datetime.datetime.fromisoformat(f"{day}T10:00Z").timestamp()),
        }
        for number, (address, day) in enumerate(posts.items())
    ]
    (folder / "RS.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = folder / "recipe.toml"
    path.write_text(
        f'root = "{folder}/run"\n[crawl]\nlive = false\nshards = 3\n'
        f'submissions = ["{folder}/RS.ndjson"]\narchive_base = "{folder}/cc"\n'
    )
    return settings.load(path, words)


def page(address: str, day: str) -> bytes:
    return f"<html><body><p>{address} on {day}</p></body></html>".encode()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Captures in three files, none of them in order."""
    made = Archive(tmp_path / "cc")
    days = [(address, day) for address, (day, _) in NEAREST.items()]
    days += [(address, day) for address, few in FAR.items() for day in few]
    for number, (address, day) in enumerate(sorted(days, key=lambda pair: pair[1])):
        dressed = address.replace("http://", "https://www.") if number % 2 else address
        made.add(dressed, day, page(address, day), name=f"crawl-data/{number % 3}.warc.gz")
    made.add("http://nobody.test/", "2016-01-01", name="crawl-data/0.warc.gz")
    return made


def rebuild(made: Config) -> dict[str, dict[str, Any]]:
    list(make.make(made, address=None, local=True, until="pages", remake=None))
    batches = state.datasets(Path(made.root))["pages"].all()
    return {row["url"]: row for batch in batches for row in batch.to_pylist()}


def named(*paths: object) -> str:
    return f"crawl.archives=[{', '.join(repr(str(path)) for path in paths)}]"


def told(made: Config) -> Counter[str]:
    """What became of all records and rows of indexes."""
    found: Counter[str] = Counter()
    folder = state.datasets(Path(made.root))["pages"].folder
    for path in folder.glob("before/*/reports/*.json"):
        found.update(json.loads(path.read_text())["left_out"])
    return found


def set_hash(made: Config) -> str:
    return state.datasets(Path(made.root))["pages"].manifest.set_hash


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.parametrize("form", [*FORMS, "whole", "both"])
def test_every_form_gives_the_capture_nearest_to_the_post_and_opens_no_socket(
    tmp_path: Path, archive: Archive, form: str
) -> None:
    files = sorted((archive.base / "crawl-data").iterdir())
    if form in FORMS:
        files = [Path(FORMS[form](tmp_path / form, archive.captures))]
    elif form == "both":
        files.append(Path(cdx(tmp_path / "all.cdx", archive.captures)))
    made = recipe(tmp_path, named(*files))
    pages = rebuild(made)
    assert sorted(pages) == sorted(POSTS)
    for address, (day, distance) in NEAREST.items():
        row = pages[address]
        assert (row["outcome"], row["source"]) == ("ok", "archive"), address
        assert row["fetched_at"].date().isoformat() == day
        assert row["days_from_post"] == distance
        assert row["bytes"] == len(page(address, day))
    missing = pages["http://none.test/"]
    assert (missing["outcome"], missing["days_from_post"]) == ("not_archived", None)
    counts = told(made)
    assert counts["copied"] == (7 if form in ("whole", "both") else 4)
    assert counts["already"] == (4 if form == "both" else 0)
    assert counts["farther"] == (0 if form == "whole" else 3)


def test_neither_order_nor_number_of_files_or_tasks_changes_a_row(
    tmp_path: Path, archive: Archive
) -> None:
    every = archive.captures
    halves = [
        columnar(tmp_path / "1.parquet", every[:4]),
        cdxj(tmp_path / "2.cdxj.gz", every[3:]),
    ]
    hashes = set()
    for number, (files, shards) in enumerate(
        [
            ([cdx(tmp_path / "all.cdx", every)], 1),
            (halves, 3),
            (halves[::-1], 7),
            ([*sorted((archive.base / "crawl-data").iterdir()), *halves], 2),
        ]
    ):
        root = f"root={tmp_path}/{number}"
        made = recipe(tmp_path, named(*files), root, f"crawl.shards={shards}")
        rebuild(made)
        hashes.add(set_hash(made))
    assert len(hashes) == 1


def test_a_file_that_is_gone_costs_its_links_alone(tmp_path: Path, archive: Archive) -> None:
    rows = [
        moved(one, file="crawl-data/gone.warc.gz") if "c.test" in one.url else one
        for one in archive.captures
    ]
    made = recipe(tmp_path, named(cdx(tmp_path / "all.cdx", rows)))
    pages = rebuild(made)
    assert Counter(row["outcome"] for row in pages.values()) == {"ok": 3, "not_archived": 2}
    counts = told(made)
    assert (counts["missing"], counts["copied"], counts["no_link"]) == (1, 3, 1)


def test_what_no_archive_has_is_asked_for_in_the_same_run(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "cc")
    archive.add("http://a.web.test/kept", "2016-05-01", page("kept", "then"))
    archive.add("http://a.web.test/gone", "2016-05-01", b"%PDF-1.4")
    index = cdxj(tmp_path / "x.cdxj.gz", archive.captures)
    posts = {f"http://a.web.test/{name}": "2016-05-04" for name in ("kept", "live", "none")}
    with web.serve() as site:
        for name in ("kept", "live"):
            site.page("a.web.test", f"/{name}", page(name, "now").decode())
        made = recipe(
            tmp_path,
            named(index),
            "crawl.live=true",
            "crawl.user_agent=webtext/1.0 (+https://example.org/bot)",
            f"crawl.resolve={{'*.web.test'='127.0.0.1:{site.port}'}}",
            "crawl.min_delay_s=0.01",
            posts=posts,
        )
        pages = rebuild(made)
        assert "/kept" not in site.paths("a.web.test")
    found = {url.rpartition("/")[2]: (row["source"], row["outcome"]) for url, row in pages.items()}
    assert found == {
        "kept": ("archive", "ok"),
        "live": ("live", "ok"),
        "none": ("live", "http_error"),
    }
    today = datetime.datetime.now(datetime.UTC).date()
    distance = pages["http://a.web.test/live"]["days_from_post"]
    assert abs(distance - (today - datetime.date(2016, 5, 4)).days) <= 1


def test_what_opts_out_of_ai_is_no_page_unless_another_capture_is(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "cc")
    out = (("X-Robots-Tag", "noai"),)
    archive.add("http://a.test/out", "2016-05-04", page("out", "now"), headers=out)
    archive.add("http://a.test/once", "2016-05-04", page("once", "now"), headers=out)
    archive.add("http://a.test/once", "2011-05-04", page("once", "then"))
    whole = archive.base / archive.captures[0].file
    posts = {f"http://a.test/{name}": "2016-05-04" for name in ("out", "once")}
    made = recipe(tmp_path, named(whole), posts=posts)
    found = rebuild(made)
    assert found["http://a.test/out"]["outcome"] == "opted_out"
    once = found["http://a.test/once"]
    assert (once["outcome"], once["fetched_at"].year) == ("ok", 2011)
    disobedient = rebuild(recipe(tmp_path, named(whole), "crawl.obey=[]", posts=posts))
    assert {row["outcome"] for row in disobedient.values()} == {"ok"}
    assert disobedient["http://a.test/once"]["fetched_at"].year == 2016


def test_the_ledger_of_one_run_is_an_archive_of_another(tmp_path: Path, archive: Archive) -> None:
    """Its own WARC files, by the index beside each."""
    first = recipe(tmp_path, named(*sorted((archive.base / "crawl-data").iterdir())))
    pages = rebuild(first)
    ledger = Path(first.root) / "observations"
    indexes = sorted(ledger.glob("*.cdxj"))
    assert indexes
    words = (named(*indexes), f"root={tmp_path}/second", f"crawl.archive_base={ledger}")
    again = rebuild(recipe(tmp_path, *words))
    same = ("outcome", "digest", "fetched_at", "final_url", "days_from_post")
    for address, row in pages.items():
        assert [row[name] for name in same] == [again[address][name] for name in same]


def test_a_page_is_archived_once_however_often_it_is_made(tmp_path: Path, archive: Archive) -> None:
    made = recipe(tmp_path, named(cdx(tmp_path / "all.cdx", archive.captures)))
    first = rebuild(made)
    list(make.make(made, address=None, local=True, until="pages", remake="pages"))
    assert told(made)["already"] == 4 and told(made)["copied"] == 0
    assert rebuild(made) == first
    ledger = list((Path(made.root) / "observations").glob("*.parquet"))
    assert sum(pa.parquet.read_metadata(path).num_rows for path in ledger) == 4
