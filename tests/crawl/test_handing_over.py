"""Redirects that leave their domain, against the loopback web: each goes to the owner of the other,
round after round, is asked once, and obeys what it finds there; robots.txt files too."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from crawl import canonical, claims, observations, rounds, url
from tests import web

from .conftest import Owners, Settings

PAGE = "<html><body><p>Some text.</p></body></html>"


def test_a_link_is_asked_for_at_its_target_by_the_owner_of_that(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    site.route("a.test", "/1", web.redirect("http://www.b.test/2#x"))
    site.route("www.b.test", "/2", web.redirect("/3"))
    site.page("www.b.test", "/3", PAGE)
    owners = Owners(anywhere(), tmp_path, "http://a.test/1")
    (leaves,) = owners.round()
    assert (leaves["kind"], leaves["target"]) == ("page", "http://www.b.test/2")
    assert owners.pages()["http://a.test/1"]["outcome"] == "redirected_offsite"
    assert owners.round() == []
    page = owners.pages()["http://a.test/1"]
    assert (page["outcome"], page["final_url"]) == ("ok", "http://www.b.test/3")
    assert owners.crawl() == {"http://a.test/1": page}
    assert site.paths("a.test") == ["/robots.txt", "/1"]
    assert site.paths("www.b.test") == ["/robots.txt", "/2", "/3"]
    assert len(observations.read(tmp_path)) == 2


def test_each_hop_obeys_the_robots_txt_of_where_it_leads(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    site.route("a.test", "/", web.redirect("http://b.test/no"))
    site.robots("b.test", "User-agent: *\nDisallow: /no")
    site.route("c.test", "/", web.redirect("http://d.test/"))
    site.robots("d.test", "", 503)
    found = Owners(anywhere(retries=0), tmp_path, "http://a.test/", "http://c.test/").crawl()
    assert [found[f"http://{name}.test/"]["outcome"] for name in "ac"] == [
        "robots_disallowed", "robots_unreachable"
    ]  # fmt: skip
    assert set(site.paths("b.test") + site.paths("d.test")) == {"/robots.txt"}


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1/", "http://[::1]/", "http://2130706433/", "http://[::ffff:7f00:1]/",
     "http://169.254.169.254/latest/meta-data/", "http://localhost/", "http://printer.local/"],
)  # fmt: skip
def test_a_hop_to_a_private_address_is_refused_there(
    site: web.Site, anywhere: Settings, tmp_path: Path, target: str
) -> None:
    site.route("a.test", "/", web.redirect(target))
    page = Owners(anywhere(), tmp_path, "http://a.test/").crawl()["http://a.test/"]
    assert page["outcome"] == "private_address"
    assert {hit.host for hit in site.log} == {"a.test"}


@pytest.mark.parametrize(("hops", "outcome"), [(3, "ok"), (5, "ok"), (6, "redirected_offsite")])
def test_a_chain_goes_on_for_five_rounds_at_most(
    site: web.Site, anywhere: Settings, tmp_path: Path, hops: int, outcome: str
) -> None:
    for n in range(hops):
        site.route(f"d{n}.test", "/", web.redirect(f"http://d{n + 1}.test/"))
    site.page(f"d{hops}.test", "/", PAGE)
    page = Owners(anywhere(max_redirects=10), tmp_path, "http://d0.test/").crawl()[
        "http://d0.test/"
    ]
    assert page["outcome"] == outcome
    asked = [f"d{n}.test" for n in range(min(hops, 5) + 1)]
    assert [hit.host for hit in site.log if hit.path == "/"] == asked


def test_hops_between_domains_count_as_redirects(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    for n in range(4):
        site.route(f"d{n}.test", "/", web.redirect(f"http://d{n + 1}.test/"))
    page = Owners(anywhere(max_redirects=2), tmp_path, "http://d0.test/").crawl()["http://d0.test/"]
    assert (page["outcome"], page["final_url"]) == ("redirect_loop", "http://d2.test/")


def test_a_loop_between_domains_ends_and_comes_back_to_the_link_itself(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    site.route("a.test", "/", web.redirect("http://b.test/"))
    site.route("b.test", "/", web.redirect("http://a.test/"))
    config = anywhere()
    page = Owners(config, tmp_path, "http://a.test/").crawl()["http://a.test/"]
    assert page["outcome"] == "redirect_loop"
    asked = [hit.host for hit in site.log if hit.path == "/"]
    assert asked == ["a.test", "b.test", "a.test"]
    # nothing of it is asked again by another crawl
    assert Owners(config, tmp_path, "http://a.test/").crawl()["http://a.test/"] == page
    assert [hit.host for hit in site.log if hit.path == "/"] == asked


def test_a_server_that_sends_away_and_back_is_asked_as_often_as_it_sends(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    answers = iter([web.redirect("http://b.test/"), web.response(200, PAGE.encode())])

    async def at_last(writer: Any) -> None:
        writer.write(next(answers))
        await writer.drain()

    site.route("a.test", "/", at_last)  # as with a cookie wall, once passed
    site.route("b.test", "/", web.redirect("http://a.test/"))
    page = Owners(anywhere(), tmp_path, "http://a.test/").crawl()["http://a.test/"]
    assert (page["outcome"], page["final_url"]) == ("ok", "http://a.test/")


def test_a_round_that_is_asked_again_asks_nothing_twice(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    """Every task is tried again after each round, as if it had been killed when all was written,
    before what it hands on was."""
    site.route("a.test", "/", web.redirect("http://b.test/"))
    site.route("b.test", "/", web.redirect("http://c.test/"))
    site.route("c.test", "/", web.redirect("http://a.test/"))
    site.route("d.test", "/", web.redirect("http://a.test/x"))
    site.page("a.test", "/x", PAGE)
    config = anywhere(max_redirects=4)
    addresses = [f"http://{name}.test/" for name in "abcd"]
    owners = Owners(config, tmp_path, *addresses)
    for _ in range(1 + rounds.ROUNDS):
        before, handed = owners.handed, owners.round()
        asked = Counter((hit.host, hit.path) for hit in site.log if hit.path != "/robots.txt")
        owners.handed = before
        assert owners.round() == handed
        again = Counter((hit.host, hit.path) for hit in site.log if hit.path != "/robots.txt")
        assert again == asked
    once = Owners(config, tmp_path / "once", *addresses).crawl()
    columns = ("outcome", "final_url", "status")
    found = owners.pages()
    assert {u: [p[c] for c in columns] for u, p in found.items()} == {
        u: [p[c] for c in columns] for u, p in once.items()
    }


def robots_elsewhere(site: web.Site, rules: str = "User-agent: *\nDisallow: /no\n") -> None:
    """Three origins whose robots.txt stands at the third."""
    site.route("a.test", "/robots.txt", web.redirect("http://b.test/robots.txt", 301))
    site.route("b.test", "/robots.txt", web.redirect("https://c.test:1/x", 301))
    site.route("b.test", "/robots.txt", web.redirect("http://c.test/r", 301))
    site.route("c.test", "/r", web.response(200, rules.encode(), {"Content-Type": "text/plain"}))
    for name in "abc":
        site.page(f"{name}.test", "/yes", PAGE)
        site.page(f"{name}.test", "/no", PAGE)


def test_a_robots_txt_of_another_domain_is_asked_for_by_its_owner_and_obeyed(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    robots_elsewhere(site)
    addresses = [f"http://{name}.test/{path}" for name in "ab" for path in ("yes", "no")]
    found = Owners(anywhere(), tmp_path, *addresses).crawl()
    assert [found[one]["outcome"] for one in addresses] == ["ok", "robots_disallowed"] * 2
    paths = Counter((hit.host, hit.path) for hit in site.log)
    assert (paths["a.test", "/yes"], paths["b.test", "/yes"]) == (1, 1)
    assert (paths["a.test", "/no"], paths["b.test", "/no"]) == (0, 0)
    # the robots.txt itself: c.test was never asked for one of its own
    assert paths["c.test", "/robots.txt"] == 0


def test_a_visit_waits_for_a_robots_txt_that_stands_elsewhere(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    robots_elsewhere(site)
    site.route("d.test", "/yes", web.redirect("http://a.test/yes"))
    site.route("d.test", "/no", web.redirect("http://a.test/no"))
    addresses = ["http://d.test/yes", "http://d.test/no"]
    found = Owners(anywhere(), tmp_path, *addresses).crawl()
    assert [found[one]["outcome"] for one in addresses] == ["ok", "robots_disallowed"]
    assert site.paths("a.test").count("/yes") == 1


def test_a_link_whose_hop_waits_for_a_robots_txt_elsewhere_goes_on_there(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    site.route("www.a.test", "/1", web.redirect("http://a.test/yes"))
    robots_elsewhere(site)
    page = Owners(anywhere(), tmp_path, "http://www.a.test/1").crawl()["http://www.a.test/1"]
    assert (page["outcome"], page["final_url"]) == ("ok", "http://a.test/yes")


def test_a_link_that_waits_for_one_robots_txt_elsewhere_after_another_goes_on(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    for host in ("a.test", "www.a.test"):
        site.route(host, "/robots.txt", web.redirect(f"http://c.test/of-{host}"))
        site.route("c.test", f"/of-{host}", web.response(200, b"User-agent: *\nDisallow: /no"))
    site.route("a.test", "/1", web.redirect("http://www.a.test/2"))
    site.page("www.a.test", "/2", PAGE)
    page = Owners(anywhere(), tmp_path, "http://a.test/1").crawl()["http://a.test/1"]
    assert (page["outcome"], page["final_url"]) == ("ok", "http://www.a.test/2")


def test_a_crawl_delay_in_a_robots_txt_elsewhere_is_kept(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    site.route("a.test", "/robots.txt", web.redirect("http://c.test/r"))
    site.route("c.test", "/r", web.response(200, b"User-agent: *\nCrawl-delay: 0.25"))
    Owners(anywhere(), tmp_path, *(f"http://a.test/{n}" for n in range(3))).crawl()
    at = [hit.at for hit in site.log if hit.host == "a.test" and hit.path != "/robots.txt"]
    assert len(at) == 3 and all(after - before >= 0.25 for before, after in pairwise(at))


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (web.response(404), "ok"),
        (web.response(503), "robots_unreachable"),
        (web.slam, "robots_unreachable"),
        (web.redirect("mailto:x@c.test"), "robots_unreachable"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nAllow: /", "robots_unreachable"),
        (web.redirect("http://b.test/robots.txt"), "ok"),  # a loop: there is no file
        (web.gzipped("User-agent: *\nDisallow: /yes"), "robots_disallowed"),
    ],
)  # fmt: skip
def test_what_becomes_of_pages_whose_robots_txt_elsewhere_cannot_be_had(
    site: web.Site,
    anywhere: Settings,
    tmp_path: Path,
    answer: bytes | web.Handler,
    outcome: str,
) -> None:
    site.route("a.test", "/robots.txt", web.redirect("http://b.test/robots.txt"))
    site.route("b.test", "/robots.txt", web.redirect("http://c.test/r"))
    site.route("c.test", "/r", answer)
    site.page("a.test", "/yes", PAGE)
    page = Owners(anywhere(retries=0), tmp_path, "http://a.test/yes").crawl()["http://a.test/yes"]
    assert page["outcome"] == outcome


def test_a_killed_round_that_waited_for_a_robots_txt_hands_on_what_it_asked(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    robots_elsewhere(site)
    site.route("a.test", "/yes", web.redirect("http://d.test/"))
    site.page("d.test", "/", PAGE)
    owners = Owners(anywhere(), tmp_path, "http://a.test/yes")
    for _ in range(1 + rounds.ROUNDS):
        before, first = owners.handed, owners.round()
        owners.handed = before
        assert owners.round() == first
    assert owners.pages()["http://a.test/yes"]["outcome"] == "ok"
    assert site.paths("a.test").count("/yes") == 1


def test_owners_without_links_of_their_own_do_not_wait_for_each_other(
    site: web.Site, anywhere: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = [f"http://t{n}.test/" for n in range(8)]
    links = [f"http://a.test/{n}" for n in range(8)]
    for link, target in zip(links, targets, strict=True):
        site.route("a.test", f"/{url.path(link)[1:]}", web.redirect(target))
        site.page(url.host(target), "/", PAGE)
    owners = Owners(anywhere(), tmp_path, *links)
    owners.round()
    assert owners.handed and sum(map(bool, owners.handed)) >= 3
    held: list[int] = []
    claimed = claims.claimed

    def watched(folder: Path, low: bytes, high: bytes, *, label: str, **rest: Any) -> Any:
        rest["sleep"] = lambda seconds: held.append(1)
        return claimed(folder, low, high, label=label, wait_s=5.0, **rest)

    monkeypatch.setattr(claims, "claimed", watched)
    owners.round()
    assert held == []
    assert {page["outcome"] for page in owners.pages().values()} == {"ok"}


def test_a_host_that_many_links_lead_to_is_asked_within_its_budget(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    for n in range(6):
        site.route("short.test", f"/{n}", web.redirect(f"http://giant.test/{n}"))
        site.page("giant.test", f"/{n}", PAGE)
    site.page("giant.test", "/own", PAGE)
    links = [f"http://short.test/{n}" for n in range(6)]
    config = anywhere(max_pages_per_host=6)
    for most, good in ((6, 6), (3, 6), (6, 6)):
        config = anywhere(max_pages_per_host=most)
        found = Owners(config, tmp_path, *links, "http://giant.test/own").crawl()
        asked = [path for path in site.paths("giant.test") if path != "/robots.txt"]
        assert sorted(set(asked)) == sorted(asked) and len(asked) == good
    ends = Counter(found[link]["outcome"] for link in links)
    assert ends == {"ok": 5, "redirected_offsite": 1}


def test_a_retry_goes_where_the_first_time_led(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    site.route("a.test", "/", web.redirect("http://b.test/"))
    site.route("b.test", "/", web.response(500))
    found = Owners(anywhere(retries=0), tmp_path, "http://a.test/").crawl()
    assert found["http://a.test/"]["outcome"] == "http_error"
    site.page("b.test", "/", PAGE)
    assert Owners(anywhere(), tmp_path, "http://a.test/").crawl() == found
    found = Owners(anywhere(retry=("http_error",)), tmp_path, "http://a.test/").crawl()
    assert found["http://a.test/"]["outcome"] == "ok"
    assert (site.paths("a.test").count("/"), site.paths("b.test").count("/")) == (2, 2)


def test_a_visit_that_was_asked_for_and_is_not_in_the_ledger_is_our_failure(
    site: web.Site, anywhere: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.route("a.test", "/", web.redirect("http://b.test/"))
    owners = Owners(anywhere(), tmp_path, "http://a.test/")
    owners.round()
    monkeypatch.setattr(observations.Writer, "append", lambda *_: None)
    with pytest.raises(observations.Damaged, match=r"lacks 1 links that were handed over"):
        owners.round()


def test_a_visitor_who_was_killed_is_recovered_by_the_owner_of_the_range(
    site: web.Site, anywhere: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.route("a.test", "/", web.redirect("http://b.test/"))
    site.page("b.test", "/", PAGE)
    owners = Owners(
        anywhere(journal=str(tmp_path / "local")), tmp_path / "ledger", "http://a.test/"
    )
    owners.round()
    with monkeypatch.context() as killed:
        # as a killed process would, nobody ends its segments
        segment = observations.segments.Segment
        killed.setattr(segment, "finish", lambda one, _: segment.abandon(one))
        with pytest.raises(observations.Damaged, match="lacks 1 links that were handed over"):
            owners.ask(owners.of(canonical.domain_id("b.test")))
    assert list((tmp_path / "local").rglob("*.ndjson.open"))
    owners.round()
    assert owners.pages()["http://a.test/"]["outcome"] == "ok"
    assert site.paths("b.test").count("/") == 1
    assert not list((tmp_path / "local").rglob("*.open"))
