"""What leaves its domain goes to the owner of the other, round after round, and is asked once."""

import datetime
import json
from collections import Counter
from typing import Any

import pyarrow as pa

from crawl import canonical, robots, rounds, url
from crawl.schema import OBSERVATIONS
from crawl.work import Fetched, Handed
from tests import web

PAGE = "<html><body><p>Some text.</p></body></html>"
TOKEN = "webtext"


def row(address: str, outcome: str, final_url: str, **told: Any) -> dict[str, Any]:
    (link,) = web.links_to(address).to_pylist()
    found = dict.fromkeys(OBSERVATIONS.names)
    found |= {"link_id": link["link_id"], "url_key": link["url_key"], "url": address}
    found |= {"outcome": outcome, "source": "live", "final_url": final_url}
    second = told.pop("second", 0)
    found["fetched_at"] = datetime.datetime(2026, 1, 1, 0, 0, second, tzinfo=datetime.UTC)
    return found | {"asked": json.dumps({"user_agent": "x"} | told)}


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), OBSERVATIONS)


A, B, C = "http://a.test/#x", "http://b.test/", "http://c.test/"
A_ID = canonical.link_id(canonical.url_key(A))


def test_what_has_left_is_known_from_the_ledger() -> None:
    found = rounds.leaving(
        table(
            row(A, "redirected_offsite", B, start=url.requested(A), hops=1),
            row(C, "ok", C),
            row("http://d.test/", "redirected_offsite", B, start="http://d.test/", hops=6),
            row("http://e.test/", "redirected_offsite", B) | {"source": "archive"},
        ),
        5,
    )
    assert found == [Handed(A_ID, A, B, 1)]


def test_as_often_as_a_link_was_led_somewhere_it_is_asked_there() -> None:
    twice = [row(A, "redirected_offsite", B, hops=n, second=n) for n in (2, 1)]
    (one,) = rounds.leaving(table(*twice), 5)
    assert one == Handed(A_ID, A, B, 2, times=2)
    visit = row(A, "ok", B, start=B, hops=1)
    assert rounds.unasked([one], table(visit)) == [one]
    assert rounds.unasked([one], table(visit, visit)) == []
    assert rounds.unasked([one], table(row(A, "ok", B), visit | {"link_id": b"\0" * 16})) == [one]


def test_what_is_handed_over_comes_to_the_owner_of_the_domain_that_is_to_act() -> None:
    step = robots.Step("http://o.test", TOKEN, "http://b.test/robots.txt", ("x", "y"))
    told = Fetched("http://o.test", 200, b"User-agent: *")
    leaving, nothing = Handed(A_ID, A, B, 1, 2), Fetched("http://p.test", None, b"")
    found = rounds.table([leaving], [step], [told, nothing])
    assert found.schema == rounds.HANDED
    owners = Counter(one["owner_id"][:4] for one in found.to_pylist())
    ids = {name: canonical.domain_id(f"{name}.test") for name in "bop"}
    assert owners == {ids["b"]: 2, ids["o"]: 1, ids["p"]: 1}
    read = rounds.read(found.to_batches(), TOKEN)
    assert read == ([leaving], [step], {told.origin: told, nothing.origin: nothing})
    assert rounds.table([leaving], [step], [nothing, told]).equals(found)


def test_a_link_that_two_hand_over_is_one() -> None:
    once, twice = Handed(A_ID, A, B, 1), Handed(A_ID, A, B, 3, times=2)
    batches = rounds.table([once, twice, once]).to_batches()
    assert rounds.read(batches, TOKEN)[0] == [twice]


def test_visits_have_what_room_the_own_links_of_a_host_leave() -> None:
    visits = [Handed(bytes([n]) * 16, f"http://x.test/{n}", f"{B}{n}", 1) for n in range(5)]
    visits.append(Handed(b"\7" * 16, "http://x.test/", C, 1))
    visited = table(
        row("http://y.test/", "ok", B, start=B, hops=1),
        row("http://y.test/", "ok", B, start=B, hops=1),
    )
    found = rounds.within(reversed(visits), visited, {"b.test": 2}, 5)
    assert found == [*visits[:2], visits[5]]
    assert rounds.within(visits, visited, {"b.test": 5}, 5) == [visits[5]]
    # who came before, and is to come again, has his room
    before = Handed(canonical.link_id(canonical.url_key("http://y.test/")), "", B, 1, times=3)
    assert rounds.within([before], visited, {"b.test": 5}, 5) == [before]
