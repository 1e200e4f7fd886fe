"""A robots.txt that cannot be had for thirty days allows everything (RFC 9309, 2.3.1.4): over many
crawls, also where the file stands at another owner's."""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from crawl import steering
from crawl.steering import Steering
from tests import web

from .conftest import Owners, Settings

PAGE = "<html><body><p>Some text.</p></body></html>"
BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
OnDay = Callable[[int], str]


@pytest.fixture
def on_day(site: web.Site, anywhere: Settings, tmp_path: Path) -> OnDay:
    """How a page of a.test ends that is first asked for on a day."""

    def asked(day: int) -> str:
        site.page("a.test", f"/{day}", PAGE)
        now = lambda: BEGIN + datetime.timedelta(days=day)  # noqa: E731
        link = f"http://a.test/{day}"
        found = Owners(anywhere(retries=0), tmp_path / "ledger", link, now=now).crawl()
        return str(found[link]["outcome"])

    return asked


def elsewhere(site: web.Site, answer: bytes) -> None:
    """The robots.txt of a.test stands at c.test."""
    site.route("a.test", "/robots.txt", web.redirect("http://c.test/r"))
    site.route("c.test", "/r", answer)


def test_rules_from_elsewhere_end_the_time_of_being_unreachable(
    site: web.Site, on_day: OnDay
) -> None:
    site.robots("a.test", "", 503)
    assert on_day(0) == "robots_unreachable"
    elsewhere(site, web.response(200, b"User-agent: *\nDisallow: /"))
    assert on_day(15) == "robots_disallowed"
    site.robots("a.test", "", 503)
    assert on_day(31) == "robots_unreachable"


def test_a_file_elsewhere_that_cannot_be_had_is_unreachable_since_then(
    site: web.Site, on_day: OnDay
) -> None:
    elsewhere(site, web.response(503))
    assert on_day(0) == "robots_unreachable"
    assert on_day(29) == "robots_unreachable"
    assert on_day(31) == "ok"


def test_a_file_elsewhere_that_the_operator_denies_is_not_unreachable_for_that(
    site: web.Site, on_day: OnDay, tmp_path: Path
) -> None:
    elsewhere(site, web.response(503))
    steering.write(tmp_path / steering.FILE, Steering(deny=("c.test",)))
    assert on_day(0) == "robots_unreachable"
    steering.write(tmp_path / steering.FILE, Steering())
    assert on_day(31) == "robots_unreachable"
    assert site.paths("c.test") == ["/r"]
