"""Domains before and after, and beside a list of others: counts, ranks, and lists that are none."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl import url
from crawl.schema import LINKS
from pipeline import audit, config
from pipeline.failures import BadInput
from pipeline.report import domains, facts
from pipeline.report.domains import Listed, spearman
from pipeline.report.tables import opened
from pipeline.store import Dataset
from tests.pipeline import made_run

WEBTEXT = Path(__file__).parents[3] / "shared/data/reddit/webtext_top_domains.txt"
HOSTS = {
    # host: links, of them followed
    "www.bbc.co.uk": (4, 3),
    "news.bbc.co.uk": (3, 3),
    "bbc.com": (1, 0),
    "one.blogspot.com": (5, 2),
    "two.blogspot.com": (1, 1),
    "a.github.io": (2, 2),
    "imgur.com": (9, 0),
    "192.0.2.1": (1, 1),
}


def links(folder: Path, hosts: dict[str, tuple[int, int]]) -> dict[str, Dataset]:
    """A dataset of links on these hosts, the first ones of each followed."""
    rows: list[dict[str, Any]] = []
    for host, (all_, kept) in hosts.items():
        for number in range(all_):
            row = {"link_id": len(rows).to_bytes(16, "big"), "url_key": "u", "fetch_url": "u"}
            row |= {"host": host, "karma": 3, "submissions": ["p"], "subreddits": []}
            rows.append(row | {"outcome": "kept" if number < kept else "media"})
    pq.write_table(pa.Table.from_pylist(rows, LINKS), folder / "00000.parquet")
    return {"links": Dataset("links", "f", folder, 1)}


def found(folder: Path, listed: Listed | None, hosts: dict[str, tuple[int, int]] = HOSTS) -> Any:
    with opened(links(folder, hosts)) as tables:
        return domains.found(tables, listed)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "domains.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "host, name",
    [
        ("x.blogspot.com", "blogspot"),
        ("news.bbc.co.uk", "bbc"),
        ("bbc.co.uk", "bbc"),
        ("a.github.io", "github"),
        ("www.google.com", "google"),
        ("google.de", "google"),
        ("a.b.unknowntld", "b"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("localhost", "localhost"),
        ("co.uk", "co.uk"),
        ("xn--bcher-kva.de", "xn--bcher-kva"),
    ],
)
def test_a_domain_s_name_has_no_public_suffix(host: str, name: str) -> None:
    assert url.domain_name(host) == name


def test_hosts_fold_to_registrable_domains(tmp_path: Path) -> None:
    told = found(tmp_path, None)
    assert (told["domains"], told["links"]) == (7, 26)
    assert (told["domains_followed"], told["followed"]) == (5, 12)
    assert told["by_links"][:3] == [
        {"domain": "imgur.com", "links": 9, "followed": 0},
        {"domain": "bbc.co.uk", "links": 7, "followed": 6},
        {"domain": "one.blogspot.com", "links": 5, "followed": 2},
    ]
    assert [row["domain"] for row in told["by_followed"]] == [
        "bbc.co.uk", "a.github.io", "one.blogspot.com", "192.0.2.1", "two.blogspot.com"
    ]  # fmt: skip
    assert told["compared"] is None


def test_domains_of_a_run_are_those_of_its_rows(tmp_path: Path) -> None:
    run = made_run.make(tmp_path, links=400)
    told = facts.gather(run, None)["domains"]
    rows = [row for path in run["links"].files() for row in pq.read_table(path).to_pylist()]
    before = Counter(url.registrable_domain(row["host"]) for row in rows)
    after = Counter(url.registrable_domain(row["host"]) for row in rows if row["outcome"] == "kept")
    assert (told["domains"], told["links"]) == (len(before), before.total())
    assert (told["domains_followed"], told["followed"]) == (len(after), after.total())
    for key, by in (("by_links", before), ("by_followed", after)):
        assert [(row["domain"], row["links"], row["followed"]) for row in told[key]] == [
            (name, before[name], after[name])
            for name, _ in sorted(by.items(), key=lambda one: (-one[1], one[0]))
        ]
    assert max(before.values()) > 1 and set(after) < set(before)


def test_no_more_domains_are_shown_than_fit(tmp_path: Path) -> None:
    told = found(tmp_path, None, {f"host-{n}.test": (1, n % 2) for n in range(150)})
    assert (told["domains"], told["domains_followed"]) == (150, 75)
    assert len(told["by_links"]) == len(told["by_followed"]) == domains.DOMAINS == 50


def test_no_links_at_all(tmp_path: Path) -> None:
    told = found(tmp_path, Listed({"google": 3}, 3), {})
    assert (told["domains"], told["links"], told["by_links"]) == (0, 0, [])
    assert told["compared"]["correlation"] is None
    assert told["compared"]["top"][0]["our_share"] == 0


def test_a_list_stands_beside_the_links_that_are_followed(tmp_path: Path) -> None:
    listed = Listed({"google": 50, "blogspot": 30, "bbc": 30, "imgur": 9, "github": 1}, 150)
    told = found(tmp_path, listed)["compared"]
    assert told["top"] == [
        {"name": "google", "rank": 1, "count": 50, "share": 50 / 150,
         "our_rank": None, "followed": 0, "our_share": 0.0},
        {"name": "blogspot", "rank": 2, "count": 30, "share": 30 / 150,
         "our_rank": 2, "followed": 3, "our_share": 3 / 12},
        {"name": "bbc", "rank": 2, "count": 30, "share": 30 / 150,
         "our_rank": 1, "followed": 6, "our_share": 6 / 12},
        {"name": "imgur", "rank": 4, "count": 9, "share": 9 / 150,
         "our_rank": None, "followed": 0, "our_share": 0.0},
        {"name": "github", "rank": 5, "count": 1, "share": 1 / 150,
         "our_rank": 3, "followed": 2, "our_share": 2 / 12},
    ]  # fmt: skip
    assert (told["names"], told["shared"], told["first"], told["first_shared"]) == (5, 3, 5, 3)
    assert told["followed_share"] == 11 / 12
    # ranks 2.5, 2.5, 1 and 2, 3, 1, about their means: 1.5 / sqrt(1.5 * 2)
    assert told["correlation"] == pytest.approx(0.866025)


def test_the_first_hundred_and_all_are_told_apart(tmp_path: Path) -> None:
    listed = Listed({f"name-{n}": 1000 - n for n in range(200)}, 10**6)
    hosts = {f"name-{n}.com": (1, 1) for n in (0, 99, 100, 199)}
    told = found(tmp_path, listed, hosts)["compared"]
    assert (told["first"], told["first_shared"]) == (100, 2)
    assert (told["names"], told["shared"]) == (200, 4)
    assert len(told["top"]) == 50


@pytest.mark.parametrize(
    "one, other, correlation",
    [
        ([3, 2, 1], [30, 20, 10], 1.0),
        ([3, 2, 1], [1, 2, 3], -1.0),
        ([5, 4, 3, 2, 1], [50, 40, 10, 20, 30], 0.6),  # 1 - 6 * (0 + 0 + 4 + 0 + 4) / 120
        ([4, 3, 2, 1], [7, 7, 1, 1], 0.894427),  # 4 / sqrt(5 * 4)
        ([9, 9, 9, 1], [1, 2, 3, 4], -0.774597),  # -3 / sqrt(3 * 5)
        ([2, 2, 2], [1, 2, 3], None),
        ([2, 1], [2, 1], None),
        ([], [], None),
    ],
)
def test_rank_correlation(one: list[int], other: list[int], correlation: float | None) -> None:
    assert spearman(one, other) == correlation
    assert spearman(other, one) == correlation


PAIRS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=3)


@given(PAIRS)
def test_rank_correlation_is_the_plain_one_of_mean_ranks(pairs: list[tuple[int, int]]) -> None:
    def ranks(counts: Sequence[int]) -> list[float]:
        return [
            sum(c < one for c in counts) + (sum(c == one for c in counts) + 1) / 2 for one in counts
        ]

    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    x, y = ranks(one), ranks(other)
    mean = (len(pairs) + 1) / 2
    spread = sum((a - mean) ** 2 for a in x) * sum((b - mean) ** 2 for b in y)
    product = sum((a - mean) * (b - mean) for a, b in zip(x, y, strict=True))
    expected = pytest.approx(product / spread**0.5, abs=1e-6) if spread else None
    assert spearman(one, other) == expected


def test_webtexts_own_list() -> None:
    if not WEBTEXT.exists():
        pytest.skip(f"the real inputs are not here: {WEBTEXT}")
    listed = domains.read(WEBTEXT)
    # 1,000 lines; one is a count without a name
    assert (len(listed.names), listed.total) == (999, 21_793_666)
    assert list(listed.names.items())[:3] == [
        ("google", 1542261), ("archive", 596207), ("blogspot", 456344)
    ]  # fmt: skip
    assert listed.names["nytimes"] == 333160
    assert listed.names["twitch"] == 4937, "spelled Twitch there"


def test_lines_may_be_written_in_more_than_one_way(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbf  7\tGoogle\r\n\r\n5  \n5 b\xc3\xbccher\n5 a.b-c")
    assert domains.read(path) == Listed({"google": 7, "b\u00fccher": 5, "a.b-c": 5}, 22)


@pytest.mark.parametrize(
    "content, fault",
    [
        (b"", "holds no names"),
        (b"\n \n", "holds no names"),
        (b"17\n", "holds no names"),
        (b"google 17\n", "line 1: is not a count and a name"),
        (b"17,google\n", "line 1: is not a count and a name"),
        (b"9 a\n\n8 b c\n", "line 3: is not a count and a name"),
        (b"9 a\n-8 b\n", "line 2: is not a count and a name"),
        (b"9 a\n0 b\n", "line 2: is not a count and a name"),
        (b"9 a\n1_0 b\n", "line 2: is not a count and a name"),
        (b"9 \xff\n", "line 1: is not a count and a name"),
        (b"9 a\0b\n", "line 1: is not a count and a name"),
        ("9 \u202egoogle\n".encode(), "line 1: is not a count and a name"),
        ("9 google\n".encode("utf-16"), "line 1: is not a count and a name"),
        pytest.param(b"9" * 5000 + b" a", "line 1: is not a count and a name", id="digits"),
        pytest.param(b"9 " + b"a" * 5000, "line 1: is not a count and a name", id="long"),
        (b"8 a\n9 b\n", "line 2: counts more than the line before"),
        (b"9 a\n8 A\n", "line 2: a stands there twice"),
    ],
)
def test_what_is_no_list_is_refused_with_its_line(
    tmp_path: Path, content: bytes, fault: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(BadInput) as raised:
        domains.read(path)
    assert str(raised.value).startswith(f"compare_domains: {path}: {fault}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name, fault", [("none.txt", "No such file or directory"), ("", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, fault: str) -> None:
    with pytest.raises(BadInput, match=f"^compare_domains: .*{fault}$"):
        domains.read(tmp_path / name)


def test_the_audit_tells_of_a_bad_list_before_anything_else(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'root = "{tmp_path}/run"\n[crawl]\nuser_agent = "a/1 (+http://b/)"\n')
    path = written(tmp_path, b"garbled")
    with pytest.raises(BadInput, match=r"^compare_domains: .*domains\.txt: line 1: "):
        audit.audit(config.load(recipe, [f"compare_domains={path}"]))
    assert not (tmp_path / "run").exists()
