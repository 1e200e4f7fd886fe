"""Links are found in indexes of captures as in the archives themselves, and the nearest chosen."""

import datetime
import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl import archives, canonical, cdx, indexes, sought, url
from crawl.config import CrawlConfig
from crawl.schema import CANDIDATES, CHOSEN, LINKS, BadInput
from pipeline.stage import Account
from tests import web
from tests.common_crawl import FORMS, Archive, Capture, cdxj, columnar, day, moved
from tests.common_crawl import cdx as textual

A16 = day("2016-01-01")


def links_to(**posts: str | None) -> list[pa.RecordBatch]:
    """Links to `http://NAME.com/`, and the days of their posts."""
    batch = web.links_to(*(f"http://{name}.com/" for name in posts))
    rows = batch.to_pylist()
    for row in rows:
        post = posts[row["host"].removesuffix(".com")]
        row["first_seen"] = datetime.date.fromisoformat(post) if post else None
    return [pa.RecordBatch.from_pylist(rows, LINKS)]


def look(path: str, links: list[pa.RecordBatch]) -> tuple[list[dict[str, Any]], Counter[str]]:
    account = Account()
    batches = list(indexes.look(path, links, account))
    assert all(batch.schema == CANDIDATES for batch in batches)
    rows = [row for batch in batches for row in batch.to_pylist()]
    return sorted(rows, key=lambda row: (row["url"], row["captured_at"])), account.left_out


def positive(counts: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize("form", FORMS)
def test_captures_are_found_by_key_in_every_form(tmp_path: Path, form: str) -> None:
    good = Capture("https://www.a.com/x/?utm_source=q", A16, "X" * 32, offset=17, length=900)
    path = FORMS[form](
        tmp_path / form,
        [
            good,
            Capture("http://a.com/gone", A16, status=404),
            Capture("http://a.com/pdf", A16, mime="application/pdf"),
            Capture("http://a.com/x", A16, mime="warc/revisit"),
            Capture("http://a.com/other", A16),
            Capture("http://b.com/x", A16),
            Capture("http://z.org/x", A16),
            Capture("http://a.com/bare", A16, mime=None, digest=None),
        ],
    )
    asked = [f"http://a.com/{name}" for name in ("x", "gone", "pdf", "bare")]
    rows, counts = look(path, [web.links_to(*asked)])
    key = canonical.url_key("http://a.com/x")
    assert rows[1] == {
        "link_id": canonical.link_id(key),
        "first_seen": None,
        "url": good.url,
        "captured_at": A16,
        "is_truncated": False,
        "digest": "X" * 32,
        "file": Capture.file,
        "offset": 17,
        "length": 900,
    }
    assert (rows[0]["url"], rows[0]["digest"]) == ("http://a.com/bare", None)
    assert positive(counts) == {"not_200": 1, "not_html": 1, "revisit": 1, "no_link": 3}
    assert sum(counts.values()) + len(rows) == 8


@pytest.mark.parametrize("form", FORMS)
def test_a_row_that_cannot_be_fetched_is_counted(tmp_path: Path, form: str) -> None:
    bad = [
        {"file": "/etc/passwd"},
        {"file": "../../x.warc.gz"},
        {"file": "https://elsewhere.org/x.warc.gz"},
        {"length": 0},
    ]
    rows = [moved(Capture("http://a.com/", A16), **changed) for changed in bad]
    path = FORMS[form](tmp_path / form, [*rows, Capture("http://a.com/", A16)])
    found, counts = look(path, [web.links_to("http://a.com/")])
    assert len(found) == 1
    assert positive(counts) == {"unreadable": len(bad)}


def test_lines_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    good = textual(tmp_path / "x.cdx", [Capture("http://a.com/", A16)])
    lines = Path(good).read_text().splitlines()
    torn = [
        "com,a)/",
        "com,a)/ 20160101000000 {torn",
        'com,a)/ 20160101000000 {"url": 7}',
        "com,a)/ 20161301000000 http://a.com/ text/html 200 A - - 5 5 x.warc.gz",
        "com,a)/ 20160101000000 http://a.com/ text/html 200 A - - x y z.warc.gz",
        "com,a)/ 20160101000000 http://a.com/ text/html 200",
    ]
    (tmp_path / "x.cdx").write_text("".join(f"{line}\n" for line in [*lines, *torn]))
    account = Account()
    (batch,) = indexes.look(good, [web.links_to("http://a.com/")], account)
    assert len(batch) == 1
    assert positive(account.left_out) == {"unreadable": len(torn)}
    assert len(account.faults) == 6 and all("x.cdx" in fault for fault in account.faults)


@pytest.mark.parametrize(
    "key",
    ["com,a)/x", "com,a,www)/x", "a.com/x", "http://(com,a,)/x", "com,a:8080)/x", "com,a,)/x"],
)
def test_keys_of_other_tools_are_read(tmp_path: Path, key: str) -> None:
    line = f"{key} 20160101000000 http://www.a.com/x text/html 200 {'A' * 32} - - 5 7 x.warc.gz\n"
    (tmp_path / "x.cdx").write_text(line)
    rows, _ = look(str(tmp_path / "x.cdx"), [web.links_to("http://a.com/x")])
    assert [row["offset"] for row in rows] == [7]


HOSTS = ["a.com", "www.a.com", "m.a.com", "a-b.com", "a.com.br", "b.co.uk", "co.uk", "x.github.io",
         "blog.blogspot.com", "blog.blogspot.de", "blog.blogspot.co.uk", "blog.blogspot.com.br",
         "google.com", "xn--bcher-kva.de", "A.com", "1.2.3.4", "z.com"]  # fmt: skip
PATHS = ["", "/", "/x", "/x/", "/x?b=1&a=2", "/x?a=2&b=1", "/x?utm_source=q", "/%7Ex", "/url?q=http://a.com/x",
         "/x#!y"]  # fmt: skip
ADDRESSES = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https"]),
    st.sampled_from(HOSTS),
    st.sampled_from(["", ":80", ":8080"]),
    st.sampled_from(PATHS),
)


def expected(captures: list[Capture], links: list[str]) -> list[str]:
    """Row by row: what has a link's key, under a host of the same domain."""
    wanted = {canonical.url_key(link) for link in links}
    found = []
    for one in captures:
        asked = url.fetch_url(one.url)
        if asked and (key := canonical.url_key(asked)) in wanted:
            here = canonical.domain_id(canonical.key_host(url.host(asked)))
            if canonical.link_id(key)[:4] == here:
                found.append(one.url)
    return sorted(found)


@given(
    st.lists(ADDRESSES, max_size=12),
    st.lists(ADDRESSES, min_size=1, max_size=6, unique_by=canonical.url_key),
    st.sampled_from(sorted(FORMS)),
)
def test_look_says_what_every_row_alone_would(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], links: list[str], form: str
) -> None:
    path = tmp_path_factory.mktemp("x") / form
    captures = [Capture(address, A16) for address in rows]
    if not captures:
        captures = [Capture("http://nobody.org/", A16)]
    found, counts = look(FORMS[form](path, captures), [web.links_to(*links)])
    assert sorted(row["url"] for row in found) == expected(captures, links)
    assert len(found) + sum(counts.values()) == len(captures)


def test_row_groups_of_other_domains_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures = [Capture(f"http://{a}{b}.com/", A16) for a in "abcdefgh" for b in "xyz"]
    path = columnar(tmp_path / "x.parquet", captures, rows=3)
    read = list[int]()
    whole = pq.ParquetFile.iter_batches

    def watched(file: pq.ParquetFile, *args: Any, row_groups: list[int], **named: Any) -> Any:
        read.extend(row_groups)
        return whole(file, *args, row_groups=row_groups, **named)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    rows, counts = look(path, [web.links_to("http://cy.com/", "http://sub.hz.com/")])
    assert read == [2, 7]
    assert [row["url"] for row in rows] == ["http://cy.com/"]
    assert counts["no_link"] == len(captures) - 1


def test_a_domain_is_found_between_those_that_its_name_begins(tmp_path: Path) -> None:
    """`com,a-b)` stands between `com,a)` and `com,a:8080)`."""
    captures = [Capture("http://a.com:8080/x", A16), Capture("http://a.com:8080/y", A16)]
    path = columnar(tmp_path / "x.parquet", captures, rows=1)
    rows, _ = look(path, [web.links_to("http://a-b.com/", "http://a.com:8080/y")])
    assert [row["url"] for row in rows] == ["http://a.com:8080/y"]


@pytest.mark.parametrize("form", FORMS)
def test_captures_in_caches_of_others_are_not_looked_for(tmp_path: Path, form: str) -> None:
    """Whether their own domain is that of another link or of none."""
    path = FORMS[form](tmp_path / form, [Capture("http://google.com/url?q=http://a.com/x", A16)])
    for others in ((), ("http://google.com/",)):
        rows, counts = look(path, [web.links_to("http://a.com/x", *others)])
        assert (rows, positive(counts)) == ([], {"no_link": 1})


def test_with_many_domains_nothing_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sought, "MAX_DOMAINS", 2)
    captures = [Capture(f"http://{name}.com/", A16) for name in "abcdef"]
    path = columnar(tmp_path / "x.parquet", captures, rows=1)
    rows, _ = look(path, [web.links_to(*(f"http://{name}.com/" for name in "ace"))])
    assert [row["url"] for row in rows] == [f"http://{name}.com/" for name in "ace"]


@pytest.mark.parametrize("form", FORMS)
def test_a_reader_that_was_killed_goes_on_after_its_place(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawl.lines.BLOCK", 512)
    monkeypatch.setattr("crawl.columnar.BATCH_ROWS", 2)
    captures = [Capture(f"http://a.com/{n}", A16, status=200 + n % 2) for n in range(20)]
    path = FORMS[form](tmp_path / form, captures)
    links = [web.links_to(*(f"http://a.com/{n}" for n in range(0, 20, 3)))]
    everything, counts = look(path, links)
    assert len(everything) == 4
    steps = sum(1 for _ in indexes.look(path, links, Account()))
    assert steps > 3
    for stop in range(steps):
        account = Account()
        reader = indexes.look(path, links, account)
        rows = [row for _ in range(stop + 1) for row in next(reader).to_pylist()]
        kept = Account(Counter(account.left_out), place=account.place)
        for batch in indexes.look(path, links, kept):
            rows += batch.to_pylist()
        assert sorted(row["url"] for row in rows) == [row["url"] for row in everything]
        assert positive(kept.left_out) == positive(counts)


def test_without_links_no_index_is_read(tmp_path: Path) -> None:
    refused = web.links_to("http://a.com/", outcome="media")
    assert look(str(tmp_path / "none.parquet"), [refused]) == ([], Counter())


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none.cdx", None, "no such file"),
        ("empty.cdx", b"", "is empty"),
        ("page.cdx", b"<html>no index", "is no index"),
        ("nine.cdx", b" CDX N b a m s k r V g\n", "lack the columns S"),
        ("bare9.cdx", b"com,a)/ 20160101000000 http://a.com/ text/html 200 A - 5 x.warc.gz\n",
         "lack the columns S"),
        ("torn.cdx.gz", gzip.compress(b"com,a)/ 20160101000000 {}\n" * 9, mtime=0)[:-9], "damaged"),
        ("plain.cdx.gz", b"com,a)/ 20160101000000 {}\n", "does not begin as its name says"),
        ("torn.parquet", b"PAR1 and no more", "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_index_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=rf"{name}.*{told}"):
        look(str(tmp_path / name), [web.links_to("http://a.com/")])


def test_a_table_without_places_is_refused(tmp_path: Path) -> None:
    path = columnar(tmp_path / "x.parquet", [Capture("http://a.com/", A16)], less=["warc_filename"])
    with pytest.raises(BadInput, match="has no column warc_filename"):
        look(path, [web.links_to("http://a.com/")])


def test_indexes_and_archives_are_told_apart(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    captures = [archive.add("http://a.com/", "2016-01-01", name="x.warc.gz")]
    plain = gzip.decompress((tmp_path / "x.warc.gz").read_bytes())
    assert not indexes.is_index(str(tmp_path / "none.warc.gz"))  # by its name alone
    assert indexes.is_index("s3://bucket/none.parquet")
    for name, is_one in (("x", True), ("y.gz", False), ("z", False), ("w.gz", True)):
        path = tmp_path / name
        if name == "x":
            columnar(path, captures)
        elif name == "w.gz":
            cdxj(path, captures)
        else:
            path.write_bytes(gzip.compress(plain) if name.endswith("gz") else plain)
        assert indexes.is_index(str(path)) == is_one, name
    for made in FORMS:
        assert indexes.is_index(FORMS[made](tmp_path / made, captures))
    assert cdx.is_index(b"!meta {}\n") and not cdx.is_index(b"a b c\n")


def choose(*batches: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Counter[str]]:
    account = Account()
    made = [pa.RecordBatch.from_pylist(rows, CANDIDATES) for rows in batches]
    found = list(indexes.choose(made, account, observations="no ledger yet"))
    assert all(batch.schema == CHOSEN for batch in found)
    return [row for batch in found for row in batch.to_pylist()], account.left_out


def candidate(n: int = 0, **changed: Any) -> dict[str, Any]:
    return {
        "link_id": bytes([n]) * 16,
        "first_seen": datetime.date(2016, 1, 10),
        "url": "http://a.com/",
        "captured_at": day("2016-01-10"),
        "is_truncated": False,
        "digest": None,
        "file": "x.warc.gz",
        "offset": 0,
        "length": 1,
    } | changed


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"captured_at": day("2016-01-12")}, {"captured_at": day("2016-01-07")}),
        ({"captured_at": day("2016-01-08")}, {"captured_at": day("2016-01-13")}),
        ({"captured_at": day("2016-01-08")}, {"captured_at": day("2016-01-12")}),
        ({"captured_at": day("2013-01-08")}, {"is_truncated": True}),
        ({"first_seen": None, "captured_at": day("2009-01-08")}, {"first_seen": None}),
        ({"digest": "A"}, {"digest": "B", "file": "a.warc.gz"}),
        ({"offset": 5}, {"offset": 6}),
    ],
)
def test_the_nearest_capture_is_chosen(better: dict[str, Any], worse: dict[str, Any]) -> None:
    good, bad = candidate(**better), candidate(**worse)
    for rows in ([good, bad], [bad, good]):
        (found,), counts = choose(rows)
        assert found.pop("file_id") == indexes.file_id(found["file"])
        assert found == good
        assert positive(counts) == {"farther": 1}


CANDIDATE = st.builds(
    candidate,
    st.integers(0, 2),
    captured_at=st.sampled_from([day("2016-01-0" + n) for n in "123"] + [day("2016-01-20")]),
    is_truncated=st.booleans(),
    file=st.sampled_from(["a", "b"]),
    offset=st.integers(0, 2),
)


@given(st.lists(CANDIDATE, max_size=9), st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_choice_depends_on_the_set_of_rows_alone(
    rows: list[dict[str, Any]], cut: int, random: Any
) -> None:
    """In whatever order, and first chosen among those of each file."""
    whole, _ = choose(rows)
    assert [row["link_id"] for row in whole] == sorted({row["link_id"] for row in rows})
    shuffled = random.sample(rows, len(rows))
    account = Account()
    first = [
        indexes.nearest(pa.Table.from_pylist(few, CANDIDATES), account).to_pylist()
        for few in (shuffled[:cut], shuffled[cut:])
    ]
    again, counts = choose([row for few in first for row in few])
    assert again == whole
    assert account.left_out.total() + counts.total() + len(whole) == len(rows)


def test_what_the_ledger_holds_is_not_handed_on(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "cc")
    for name in "abc":
        # the index tells seconds, the archive more
        archive.add(f"http://{name}.com/", "2016-01-02T03:04:05.678+00:00", name.encode())
    links = links_to(a="2016-01-01", b=None, c=None)
    rows, _ = look(textual(tmp_path / "x.cdx", archive.captures), links)
    made = pa.Table.from_pylist(rows, CANDIDATES).sort_by("link_id").to_batches()
    ledger = tmp_path / "ledger"
    counts: Counter[str] = Counter()
    few = web.links_to("http://a.com/", "http://b.com/")
    archives.replay(str(archive.base / Capture.file), [few], str(ledger), CrawlConfig(), counts)
    assert counts["copied"] == 2
    account = Account()
    (batch,) = indexes.choose(made, account, observations=str(ledger))
    assert batch["url"].to_pylist() == ["http://c.com/"]
    assert positive(account.left_out) == {"already": 2}
    fresh = list(indexes.choose(made, Account(), observations=str(tmp_path / "none")))
    assert sum(map(len, fresh)) == 3


def test_a_choice_that_was_stopped_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "TOGETHER", 3)
    batches = [
        pa.RecordBatch.from_pylist([candidate(n), candidate(n, offset=1)], CANDIDATES)
        for n in range(7)
    ]
    for stop in range(1, 4):
        account = Account()
        begun = indexes.choose(batches, account, observations="none")
        rows = [row for _ in range(stop) for row in next(begun).to_pylist()]
        for batch in indexes.choose(batches, account, observations="none"):
            rows += batch.to_pylist()
        assert [row["link_id"][0] for row in rows] == list(range(7))
        assert positive(account.left_out) == {"farther": 7}
