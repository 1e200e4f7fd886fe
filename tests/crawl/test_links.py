"""Submissions become links: karma, merging, and what is never followed."""

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl import canonical, links, refusals, submissions, url
from crawl.config import CrawlConfig
from crawl.schema import LINKS, OUTCOMES, SUBMISSIONS
from crawl.streams import Part
from pipeline.stage import Account

DAY = datetime.date(2015, 1, 1)


def submission(
    address: str,
    post_id: str,
    score: int | None = 5,
    day: datetime.date | None = DAY,
    subreddit: str | None = "a",
    crosspost_of: str | None = None,
) -> dict[str, Any]:
    key = canonical.url_key(address)
    return {
        "link_id": canonical.link_id(key), "url_key": key, "fetch_url": address,
        "post_id": post_id, "crosspost_of": crosspost_of, "score": score, "day": day,
        "subreddit": subreddit,
    }  # fmt: skip


def merge(rows: list[dict[str, Any]], size: int = 1000, **keys: Any) -> list[dict[str, Any]]:
    """Links of submissions, handed over so many links at a time, in the order the rows have."""
    ids = sorted({row["link_id"] for row in rows})
    batches = [
        pa.RecordBatch.from_pylist(
            [row for row in rows if row["link_id"] in ids[start : start + size]], SUBMISSIONS
        )
        for start in range(0, len(ids), size)
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(links, "BATCH_ROWS", size)
        merged = list(links.merge(batches, CrawlConfig(**keys)))
    assert all(batch.schema == LINKS for batch in merged)
    return [row for batch in merged for row in batch.to_pylist()]


def test_spellings_merge_into_one_link() -> None:
    (link,) = merge(
        [
            submission("http://www.a.com/x/", "3", 2, DAY, "b"),
            submission("https://a.com/x?utm_source=q", "1", 4, DAY.replace(year=2014), "a"),
            submission("http://a.com/x#frag", "2", 4, DAY.replace(year=2013), None),
        ]
    )
    assert link["url_key"] == "http://a.com/x"
    assert link["fetch_url"] == "http://a.com/x#frag"  # the best score, then the earliest
    assert link["karma"] == 10
    assert link["submissions"] == ["1", "2", "3"] and link["subreddits"] == ["a", "b"]
    assert link["first_seen"] == DAY.replace(year=2013)
    assert link["outcome"] == "kept"


@pytest.mark.parametrize(
    ("rule", "karma", "outcome"), [("sum", 4, "kept"), ("any", 2, "below_karma")]
)
def test_karma_rules(rule: str, karma: int, outcome: str) -> None:
    rows = [submission("http://a.com/", post_id, 2) for post_id in ("1", "2")]
    (link,) = merge(rows, karma_rule=rule)
    assert (link["karma"], link["outcome"]) == (karma, outcome)


def test_a_post_that_stands_in_two_dumps_counts_once() -> None:
    rows = [submission("http://a.com/", "1", 2), submission("http://a.com/", "1", 2)]
    (link,) = merge(rows)
    assert (link["karma"], link["submissions"], link["outcome"]) == (2, ["1"], "below_karma")


def test_a_post_that_stands_in_two_dumps_counts_with_its_highest_score() -> None:
    rows = [submission("http://a.com/", "1", score) for score in (1, 7, 4)]
    (link,) = merge(rows)
    assert (link["karma"], link["submissions"]) == (7, ["1"])


def test_a_post_of_a_known_day_comes_before_one_of_none() -> None:
    rows = [submission("http://a.com/#x", "1", 5, None), submission("http://www.a.com/", "2", 5)]
    (link,) = merge(rows)
    assert link["fetch_url"] == "http://www.a.com/"


def test_karma_has_room_for_the_highest_scores() -> None:
    (link,) = merge([submission("http://a.com/", str(n), 2**31 - 1) for n in range(2)])
    assert link["karma"] == 2**32 - 2


def test_a_listed_url_counts_as_the_karma_that_is_asked_for() -> None:
    rows = [submission("http://a.com/", "list-1", None, None, None)]
    (link,) = merge(rows, min_karma=9)
    assert (link["karma"], link["outcome"], link["first_seen"]) == (9, "kept", None)


@pytest.mark.parametrize(
    ("address", "outcome"),
    [
        ("http://a.com/x.html", "kept"),
        ("http://a.com/x.PDF?page=2", "file_type"),
        ("http://a.com/pic.jpeg", "file_type"),
        ("http://a.com/learn/zip", "kept"),  # a page about it
        ("http://a.com/?file=x.jpg", "kept"),
        ("http://a.jpg/", "kept"),
        ("http://i.imgur.com/abc", "media"),
        ("http://notimgur.com/abc", "kept"),
        ("https://old.reddit.com/r/x", "reddit"),
        ("http://redd.it/x", "reddit"),
        ("http://en.wikipedia.org/wiki/X", "refused_domain"),
        ("http://user:pw@a.com/", "credentials"),
        ("http://192.0.2.1/", "private_host"),
        ("http://8.8.8.8/", "private_host"),
        ("http://[::1]/", "private_host"),
        ("http://intranet/", "private_host"),
        ("http://printer.local/", "private_host"),
        ("http://a.com/" + "x" * 2048, "over_long"),
        ("http://a.com/" + "x" * 2035, "kept"),
        ("http://a.com/" + "x" * 2036, "over_long"),
    ],
)
def test_refusals(address: str, outcome: str) -> None:
    (link,) = merge([submission(address, "1")], refused_domains=("wikipedia.org",))
    assert link["outcome"] == outcome
    assert outcome in OUTCOMES["links"]


@pytest.mark.parametrize(
    ("address", "outcome"),
    [
        ("http://old.reddit.com/r/x", "kept"),
        ("http://redd.it/x", "reddit"),
        ("http://en.a.org/x", "kept"),
        ("http://en.a.org/x.pdf", "file_type"),
        ("http://de.a.org/x", "refused_domain"),
        ("http://old.en.a.org/x", "refused_domain"),
    ],
)
def test_the_closest_name_of_a_host_decides_whether_it_is_followed(
    address: str, outcome: str
) -> None:
    domains = {
        "followed_domains": ("reddit.com", "en.a.org"),
        "refused_domains": ("a.org", "old.en.a.org"),
    }
    (link,) = merge([submission(address, "1")], **domains)
    assert link["outcome"] == outcome


def test_below_karma_comes_before_every_refusal() -> None:
    (link,) = merge([submission("http://imgur.com/x", "1", 1)])
    assert link["outcome"] == "below_karma"


def test_nothing_makes_nothing() -> None:
    assert merge([]) == []


ROWS = st.lists(
    st.builds(
        submission,
        st.sampled_from(["http://a.com/", "http://www.a.com", "https://b.org/1", "http://c.de/#x"]),
        st.sampled_from(["1", "2", "3", "4"]),
        st.one_of(st.none(), st.integers(0, 4)),
        st.one_of(st.none(), st.sampled_from([DAY, DAY.replace(year=2012)])),
        st.one_of(st.none(), st.sampled_from("xy")),
    ),
    max_size=12,
)


@given(ROWS, st.randoms(use_true_random=False), st.integers(1, 5), st.sampled_from(["sum", "max"]))
def test_order_and_batches_change_nothing(
    rows: list[dict[str, Any]], random: Any, size: int, rule: str
) -> None:
    expected = merge(rows, karma_rule=rule)
    shuffled = [*rows, *rows]
    random.shuffle(shuffled)
    assert merge(shuffled, size, karma_rule=rule) == expected
    ids = [link["link_id"] for link in expected]
    assert ids == sorted(set(ids)) == sorted({row["link_id"] for row in rows})


def test_a_post_and_its_crossposts_count_once_with_their_best_score() -> None:
    rows = [
        submission("http://a.com/", "1", 5),
        submission("http://a.com/", "2", 9, crosspost_of="1"),
        submission("http://a.com/", "3", 4, crosspost_of="2"),
        submission("http://a.com/", "4", 7),
        submission("http://b.com/", "5", 6, crosspost_of="gone"),
        submission("http://b.com/", "6", 8, crosspost_of="gone"),
    ]
    karma = {link["url_key"]: link["karma"] for link in merge(rows)}
    assert karma == {"http://a.com": 9 + 7, "http://b.com": 8}
    assert [link["submissions"] for link in merge(rows[:4])] == [["1", "2", "3", "4"]]
    best = {link["url_key"]: link["karma"] for link in merge(rows, karma_rule="max")}
    assert best == {"http://a.com": 9, "http://b.com": 8}


def test_crossposts_that_name_each_other_end() -> None:
    rows = [
        submission("http://a.com/", "1", 2, crosspost_of="2"),
        submission("http://a.com/", "2", 3, crosspost_of="1"),
    ]
    assert 3 <= merge(rows)[0]["karma"] <= 5


POSTS = st.lists(
    st.builds(
        submission,
        st.sampled_from(
            ["http://a.com/", "http://www.a.com", "http://a.com/x.pdf", "http://b.org/1"]
        ),
        st.sampled_from("123456"),
        st.none() | st.integers(-5, 9),
        st.none() | st.dates(datetime.date(2005, 1, 1), datetime.date(2005, 1, 9)),
        st.sampled_from(["a", "b", None]),
    ),
    max_size=14,
)


@given(POSTS, st.sampled_from(["sum", "any", "max"]), st.randoms(use_true_random=False))
def test_a_merge_is_what_a_plain_loop_says_in_any_order(
    rows: list[dict[str, Any]], rule: str, chance: Any
) -> None:
    merged = merge(rows, karma_rule=rule)
    assert merge(chance.sample(rows, len(rows)), size=1, karma_rule=rule) == merged
    assert [link["link_id"] for link in merged] == sorted({row["link_id"] for row in rows})
    for link in merged:
        posts: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row["link_id"] == link["link_id"]:
                posts.setdefault(row["post_id"], []).append(row)
        scores = [
            max((-99 if p["score"] is None else p["score"]) for p in few) for few in posts.values()
        ]
        scores = [3 if score == -99 else score for score in scores]
        assert link["karma"] == (sum(scores) if rule == "sum" else max(scores))
        assert link["submissions"] == sorted(posts)
        low = link["karma"] < 3
        reason = refusals.refusal(link["fetch_url"], CrawlConfig())
        assert link["outcome"] == ("below_karma" if low else reason or "kept")


ADDRESSES = st.one_of(
    st.sampled_from(
        [
            "http://imgur.com/a", "http://x.imgur.com/a", "http://a.com/x.PDF", "http://a.com/x.pdf?y",
            "http://a.com/?x=.pdf", "http://a.com/x.html", "http://u:p@a.com/", "http://127.0.0.1/",
            "http://a.com:81/x.jpg", "http://localhost/", "http://[::1]/", "http://A.COM./x",
            "http://a.com?x.zip", "http://a.com#x.zip", "http://a.com/x.zip#y", "http://a.com/.zip",
            "http://reddit.com", "http://a.com/" + "x" * 2040, "http://a.com/x.mp3/", "http://a.com/zip",
        ]
    ),
    st.text(alphabet="abz./?#:@-%", max_size=20).map("http://a.b".__add__),
)  # fmt: skip


@given(st.lists(ADDRESSES, max_size=12))
def test_a_column_is_refused_as_each_of_it_is(some: list[str]) -> None:
    asked = [found for text in some if (found := url.fetch_url(text))]
    column = pa.array(asked, pa.string())
    for config in (
        CrawlConfig(),
        CrawlConfig(refused_domains=("a.b",), followed_domains=("imgur.com",)),
    ):
        expected = [refusals.refusal(one, config) for one in asked]
        assert refusals.reasons(column, config).to_pylist() == expected
    assert refusals.hosts(column).to_pylist() == [url.host(one) for one in asked]


@pytest.mark.parametrize(
    ("name", "posts", "keys"), [("RS_v2_2005-06.xz", 83, 83), ("RS_v2_2005-07.xz", 757, 754)]
)
def test_genuine_dumps(data: Path, name: str, posts: int, keys: int) -> None:
    config = CrawlConfig(karma_rule="any", min_karma=3)
    read = list(submissions.read(Part(str(data / "reddit" / name)), config, Account()))
    good = {row["post_id"] for batch in read for row in batch.to_pylist() if row["score"] >= 3}
    found = [row for batch in links.merge(read, config) for row in batch.to_pylist()]
    above = [row for row in found if row["outcome"] != "below_karma"]
    assert len(good) == posts and len(above) == keys
    assert good <= {post_id for row in above for post_id in row["submissions"]}
    assert all(canonical.link_id(row["url_key"]) == row["link_id"] for row in found)
