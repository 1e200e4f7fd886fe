"""The embedded web: its size, its outcomes, its determinism, and that its text can be read."""

import gzip
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import pytest
import trafilatura

from pipeline.demo.answers import Fate, Site
from pipeline.demo.articles import Article, collect, edition
from pipeline.demo.site import build

ROOT = Path(__file__).parents[2]
FATES = set(get_args(Fate)) - {"none"}


def digest(site: Site) -> str:
    return hashlib.sha256(repr(site).encode()).hexdigest()


def text_of(body: bytes) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", body.decode("utf-8", "replace")).split())


@pytest.mark.parametrize(("pages", "hosts"), [(90, 18), (100, 20), (1200, 150)])
def test_has_just_so_many_pages_and_hosts_and_every_fate(pages: int, hosts: int) -> None:
    site = build(pages, hosts)
    assert len(site.fates()) == pages
    assert len(site.hosts) == hosts
    assert set(site.fates().values()) == FATES


def test_hosts_are_mostly_domains_of_their_own_under_test() -> None:
    domains = {".".join(host.split(".")[-2:]) for host in build().hosts}
    assert all(host.endswith(".test") for host in build().hosts)
    assert 130 <= len(domains) < 150, "and a few sub-domains of one"


def test_refuses_a_size_that_cannot_hold_every_outcome() -> None:
    with pytest.raises(ValueError, match="90 pages on 18 hosts"):
        build(50, 10)


def test_another_process_builds_the_same_bytes() -> None:
    code = (
        "import hashlib; from pipeline.demo.site import build;"
        "print(hashlib.sha256(repr(build(100, 20)).encode()).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT), "LANG": "C"}
    other = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == digest(build(100, 20))


def test_holds_no_address_of_an_object() -> None:
    for paths in build().hosts.values():
        for answer in paths.values():
            found = re.search(rb"(?:object|function \S+|method \S+) at 0x[0-9a-f]{6,}", answer.body)
            assert found is None, found


def test_an_extractor_reads_the_text_and_leaves_the_clutter() -> None:
    clutter = (
        "partners use cookies",
        "visitor number",
        "Similar threads",
        "Read next",
        "Never miss",
    )
    read = lost = 0
    for paths in build(100, 20).hosts.values():
        for answer in paths.values():
            if answer.fate != "text" or answer.status != 200:
                continue
            packed = ("Content-Encoding", "gzip") in answer.headers
            body = gzip.decompress(answer.body) if packed else answer.body
            text = trafilatura.extract(body, include_comments=False, deduplicate=False) or ""
            read += len(text.split()) >= 30
            lost += any(phrase in text for phrase in clutter)
    assert read >= 60
    assert lost == 0


def test_pages_without_main_text_really_have_none() -> None:
    for paths in build(100, 20).hosts.values():
        for answer in paths.values():
            if answer.fate == "no_text":
                assert not answer.body or not trafilatura.extract(answer.body)


def test_redirects_lead_where_their_fate_says() -> None:
    site = build(100, 20)
    for host, paths in site.hosts.items():
        for path, answer in paths.items():
            target = dict(answer.headers).get("Location")
            if target is None:
                continue
            there = urlsplit(target)
            found = site.hosts[there.netloc or host][
                there.path + (f"?{there.query}" if there.query else "")
            ]
            assert (there.netloc not in ("", host)) == (answer.fate == "offsite"), path
            assert answer.fate == "offsite" or found.fate == answer.fate, path


def test_licences_and_editions_are_near_duplicates() -> None:
    one = next(article for article in collect() if len(article.html.split()) > 300)
    light, heavy = edition(one, 200, "Seen."), edition(one, 16, "Seen.")

    def shingles(article: Article) -> set[tuple[str, ...]]:
        words = re.sub(r"<[^>]*>", " ", article.html).lower().split()
        return set(zip(*(words[start:] for start in range(5)), strict=False))

    def jaccard(other: Article) -> float:
        left, right = shingles(one), shingles(other)
        return len(left & right) / len(left | right)

    assert 0.85 < jaccard(light) < 1
    assert 0.2 < jaccard(heavy) < 0.75


def test_an_edition_leaves_markup_alone() -> None:
    one = Article("own", "k", "T", "<p class='important'>some words here <b>strong</b> text</p>")
    tags = re.findall(r"<[^>]*>", edition(one, 1, "New.").html)
    assert tags == ["<p class='important'>", "<b>", "</b>", "</p>", "<p>", "</p>"]


def test_texts_of_all_kinds_are_there() -> None:
    kinds = {article.kind for article in collect()}
    assert {"module", "class", "function", "topic", "readme", "licence"} <= kinds
    assert not any(article.key.startswith("webtext") for article in collect())


def test_the_page_of_a_module_says_what_pydoc_says() -> None:
    page = next(one for one in collect() if one.kind == "module" and one.key == "heapq")
    assert "Heap queue algorithm" in text_of(page.html.encode())


def test_hosts_differ_as_on_the_real_web() -> None:
    hosts = build().hosts
    with_rules = sum("/robots.txt" in paths for paths in hosts.values())
    assert 0.3 < with_rules / len(hosts) < 0.7
    dead = [
        host
        for host, paths in hosts.items()
        if any(one.status == 404 for one in paths.values())
        and sum(one.status == 200 for one in paths.values()) > 20
    ]
    assert dead, "a link dies now and then even on a good host"
    looks = {
        frozenset.intersection(*(classes(one.body) for one in texts))
        for paths in hosts.values()
        if len(texts := [one for one in paths.values() if one.fate == "text"]) > 3
    }
    assert len({look for look in looks if look}) >= 5, "templates of several kinds"


def classes(body: bytes) -> frozenset[bytes]:
    return frozenset(re.findall(rb'class="([^"]*)"', body))
