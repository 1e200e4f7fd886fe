"""The crawler meets the embedded web: every page ends as its fate says, every outcome occurs."""

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pytest

from crawl import documents, links, pages, submissions
from crawl.canonical import url_key
from crawl.config import CrawlConfig
from crawl.schema import LeftOut, LinkOutcome, PageOutcome
from crawl.streams import Part
from pipeline.demo import dump
from pipeline.demo.server import serve
from pipeline.demo.site import build
from pipeline.stage import Account

Outcomes = dict[str, tuple[str, str]]

# By fate: what the pages' and the documents' outcome may be.
MEANT = {
    "text": {("ok", "ok")},
    "not_english": {("ok", "ok")},
    "too_short": {("ok", "ok"), ("ok", "empty")},
    "no_text": {("ok", "empty")},
    "http_error": {("http_error", "no_page")},
    "robots": {("robots_disallowed", "no_page"), ("robots_unreachable", "no_page")},
    "not_html": {("not_html", "no_page")},
    "too_large": {("too_large", "no_page")},
    "timeout": {("timeout", "no_page")},
    "broken": {("protocol_error", "no_page")},
    "unreachable": {("unreachable", "no_page")},
    "redirect_loop": {("redirect_loop", "no_page")},
    "offsite": {("redirected_offsite", "no_page")},
}


@pytest.fixture(scope="module")
def crawled(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Counter[str], pa.Table, Outcomes]]:
    """What the dump left out, the links, and each followed URL's two outcomes by its key."""
    folder = tmp_path_factory.mktemp("crawled")
    site = build(90, 18)
    dump.write(site, folder / "RS.zst", seed=5)
    with serve(site) as served:
        config = CrawlConfig(
            user_agent="webtext-test/1.0 (+http://localhost/)",
            min_delay_s=0.0,
            back_off_s=0.01,
            retries=1,
            timeout_s=5.0,
            resolve={"*.test": served.address},
        )
        account = Account()
        posts = list(submissions.read(Part(str(folder / "RS.zst")), config, account))
        followed = list(links.merge(posts, config))
        list(pages.ask(followed, str(folder / "observations"), config))
        found = list(pages.fetch(followed, str(folder / "observations"), config))
        texts = list(documents.extract(found, str(folder / "observations"), config))
    fetched = pa.Table.from_batches(found).to_pylist()
    read = pa.Table.from_batches(texts).to_pylist()
    outcomes = {
        url_key(page["url"]): (page["outcome"], document["outcome"])
        for page, document in zip(fetched, read, strict=True)
    }
    yield account.left_out, pa.Table.from_batches(followed), outcomes


def test_every_page_ends_as_its_fate_says(
    crawled: tuple[Counter[str], pa.Table, Outcomes],
) -> None:
    outcomes = crawled[2]
    wrong = {}
    for url, fate in build(90, 18).fates().items():
        outcome = outcomes.get(url_key(url))
        if outcome is None:
            assert fate == "text", f"{url} was not followed"
        elif outcome not in MEANT[fate]:
            wrong[url] = (fate, outcome)
    assert wrong == {}


def test_every_reason_and_outcome_occurs(
    crawled: tuple[Counter[str], pa.Table, Outcomes],
) -> None:
    left_out, followed, outcomes = crawled
    settings = {
        LeftOut.AFTER_UNTIL, LeftOut.BEFORE_SINCE, LeftOut.SUBREDDIT, LeftOut.NOT_SAMPLED,
        LeftOut.TRUNCATED, LeftOut.REPEATED, LeftOut.NO_DATE,
        LeftOut.GALLERY, LeftOut.REDDIT_MEDIA,  # of later years than the dump
    }  # fmt: skip
    assert set(LeftOut) - set(left_out) <= settings
    assert set(LinkOutcome) - set(followed["outcome"].to_pylist()) <= {LinkOutcome.REFUSED_DOMAIN}
    elsewhere = {
        PageOutcome.TLS_ERROR,  # the web is http only
        PageOutcome.PRIVATE_ADDRESS,
        PageOutcome.OVER_HOST_BUDGET,  # by a setting
        PageOutcome.DENIED,
        PageOutcome.OPTED_OUT,
        PageOutcome.NOT_ARCHIVED,
    }
    assert set(PageOutcome) - {page for page, _ in outcomes.values()} <= elsewhere
