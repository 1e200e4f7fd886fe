"""How far a crawl is: what processes tell, added up, whoever of them has ended or died."""

import os
from pathlib import Path

import pytest

from crawl import status
from crawl.status import Rates, Status

NOW = 1_700_000_000.0


def tell(folder: Path, name: str, at: float = NOW, **told: object) -> None:
    status.write(folder, name, Status(**told))  # type: ignore[arg-type]
    os.utime(folder / status.FOLDER / f"{name}.json", (at, at))


def test_processes_are_added_up(tmp_path: Path) -> None:
    tell(tmp_path, "a", pages=3, received=10, left=5, active=1, waiting=2, in_flight=1,
         outcomes={"ok": 2, "timeout": 1}, bound_s=9.0, longest="a.org", left_s=4.0,
         pages_per_s=0.5, seconds=7.0)  # fmt: skip
    tell(tmp_path, "b", pages=4, received=20, left=6, outcomes={"ok": 4}, bound_s=30.0,
         longest="b.org", left_s=3.0, pages_per_s=1.5, seconds=8.0)  # fmt: skip
    found = status.total(tmp_path, NOW)
    assert found == Status(
        pages=7, received=30, left=11, active=1, waiting=2, in_flight=1,
        outcomes={"ok": 6, "timeout": 1}, bound_s=30.0, longest="b.org", left_s=4.0,
        pages_per_s=2.0, seconds=8.0,
    )  # fmt: skip
    assert list(found.outcomes) == ["ok", "timeout"]


@pytest.mark.parametrize(("ended", "age_s"), [(True, 0.0), (False, status.STALE_S + 1)])
def test_of_who_is_gone_what_was_counted_stays(tmp_path: Path, ended: bool, age_s: float) -> None:
    tell(tmp_path, "gone", NOW - age_s, ended=ended, pages=3, left=5, outcomes={"ok": 3})
    assert status.total(tmp_path, NOW) is None
    assert status.told(tmp_path, NOW).pages == 3
    tell(tmp_path, "lives", pages=1, left=2, outcomes={"ok": 1})
    found = status.total(tmp_path, NOW)
    assert found is not None and (found.pages, found.left, found.outcomes) == (4, 2, {"ok": 4})


def test_nobody_told_anything(tmp_path: Path) -> None:
    assert status.total(tmp_path / "none", NOW) is None
    assert status.told(tmp_path / "none", NOW) == Status(ended=True)


@pytest.mark.parametrize("content", [b"", b"{", b'{"pages":"many"}', b'{"longest":"\xff"}'])
def test_what_cannot_be_read_is_passed_over(tmp_path: Path, content: bytes) -> None:
    tell(tmp_path, "a", pages=3)
    tell(tmp_path, "b")
    (tmp_path / status.FOLDER / "b.json").write_bytes(content)
    assert status.told(tmp_path, NOW).pages == 3


def test_a_rebuild_begins_without_what_others_told(tmp_path: Path) -> None:
    tell(tmp_path, "a", pages=3)
    (tmp_path / status.FOLDER / ".b.tmp").write_bytes(b"half")
    status.clear(tmp_path)
    assert not list((tmp_path / status.FOLDER).iterdir())


@pytest.mark.parametrize("state", ["pause", "stop"])
def test_one_that_has_heard_speaks_for_those_that_have_not_yet(tmp_path: Path, state: str) -> None:
    tell(tmp_path, "a", state="run", bound_s=9.0)
    tell(tmp_path, "b", state=state, complaint="crawl.toml: bad")
    found = status.total(tmp_path, NOW)
    assert found and (found.state, found.complaint) == (state, "crawl.toml: bad")


def test_rates_are_of_the_last_minute() -> None:
    rates, now = Rates(), Status()
    for second in range(0, 201):
        now.seconds, now.received = float(second), 10 * second
        now.pages = 5 * second if second <= 100 else 500  # then nothing more comes
        rates.tell(now)
        if second == 50:
            assert (now.pages_per_s, now.bytes_per_s) == (5.0, 10.0)
        if second == 130:
            assert now.pages_per_s == 2.5  # half of the minute
    assert (now.pages_per_s, now.bytes_per_s) == (0.0, 10.0)


def test_what_is_left_takes_as_long_as_politeness_or_the_rate_has_it() -> None:
    assert Status(left=100, pages_per_s=4.0, left_s=10.0).eta_s() == 25.0
    assert Status(left=100, pages_per_s=50.0, left_s=10.0).eta_s() == 10.0
    assert Status(left=100, left_s=10.0).eta_s() == 10.0  # nothing came within the last minute
    assert Status(left=100).eta_s() is None
    assert Status(left=100, pages_per_s=4.0, left_s=10.0, state="pause").eta_s() is None
    assert Status().eta_s() == 0.0


def test_outcomes_are_counted_and_the_longest_host_is_kept() -> None:
    now = Status()
    for outcome in ("ok", "ok", "timeout"):
        now.count(outcome)
    for host, needs_s in (("a", 3.0), ("b", 9.0), ("c", 1.0)):
        now.expect(host, needs_s)
    assert (now.pages, now.outcomes) == (3, {"ok": 2, "timeout": 1})
    assert (now.longest, now.bound_s) == ("b", 9.0)
