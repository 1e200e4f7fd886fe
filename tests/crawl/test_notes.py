"""What hosts asked of us outlives whoever asked them, be he killed in the middle of a word."""

import datetime
import errno
from pathlib import Path

import pytest

from crawl.notes import TICK, Note, Notes, delays, kept

LOW, HIGH = b"\x10" * 16, b"\x20" * 16
MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, datetime.UTC)


HOUR = datetime.timedelta(hours=1)


def notes(folder: Path, low: bytes = LOW, high: bytes = HIGH, label: str = "live") -> Notes:
    return Notes(folder, low, high, label=label)


def at(folder: Path, low: int, high: int, moment: datetime.datetime) -> Notes:
    """The notes of a range by its first and last byte, told at a moment."""
    return Notes(folder, bytes([low]) * 16, bytes([high]) * 16, label="live", now=lambda: moment)


def test_what_was_told_is_known_to_the_next_who_asks_for_an_id_of_the_range(tmp_path: Path) -> None:
    with notes(tmp_path) as first:
        assert not first.begun
        first.tell(Note(host="a.test", delay_s=5.0))
        first.tell(Note(host="a.test", delay_s=5.0, until=MOMENT))
        first.tell(Note(host="b.test", until=MOMENT))
        first.reached("http://c.test", MOMENT)
    with notes(tmp_path, b"\x20" * 16, b"\x30" * 16) as next_one:
        assert next_one.begun
        assert (next_one.delay_s("a.test"), next_one.until("a.test")) == (5.0, MOMENT)
        assert (next_one.delay_s("b.test"), next_one.until("b.test")) == (0.0, MOMENT)
        assert (next_one.delay_s("other.test"), next_one.until("other.test")) == (0.0, None)
        later = MOMENT + datetime.timedelta(days=30)
        assert list(next_one.unreachable(later)) == [("http://c.test", 30 * 86400.0)]
    with notes(tmp_path, b"\x31" * 16, b"\x40" * 16) as far:
        assert not far.begun and far.of == {}


def test_that_hosts_were_asked_is_known_though_they_asked_for_nothing(tmp_path: Path) -> None:
    notes(tmp_path).__exit__()
    with notes(tmp_path) as again:
        assert again.begun and again.of == {}


def test_an_origin_that_was_reached_again_is_unreachable_no_longer(tmp_path: Path) -> None:
    with notes(tmp_path) as told:
        told.reached("http://a.test", MOMENT)
        told.reached("http://a.test", None)
        told.reached("http://b.test", None)
    with notes(tmp_path) as again:
        assert list(again.unreachable(MOMENT)) == []
        assert "http://b.test" not in again.of  # nothing new was told of it


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_costs_that_line_alone(tmp_path: Path, cut: int) -> None:
    with notes(tmp_path) as told:
        told.tell(Note(host="a.test", delay_s=5.0))
        whole = next(tmp_path.glob("*.hosts")).stat().st_size
        told.tell(Note(host="b.test", delay_s=7.0, until=MOMENT))
    (path,) = tmp_path.glob("*.hosts")
    path.write_bytes(path.read_bytes()[: whole + cut])
    with notes(tmp_path) as after:
        assert after.delay_s("a.test") == 5.0
        assert after.delay_s("b.test") == 0.0
        after.tell(Note(host="c.test", delay_s=9.0))
    with notes(tmp_path) as last:
        assert [last.delay_s(f"{name}.test") for name in "abc"] == [5.0, 0.0, 9.0]


def test_a_note_that_says_nothing_new_is_not_written(tmp_path: Path) -> None:
    with notes(tmp_path) as told:
        for _ in range(3):
            told.tell(Note(host="a.test", delay_s=5.0))
    (path,) = tmp_path.glob("*.hosts")
    assert path.read_bytes().count(b"\n") == 1


def test_a_note_that_is_told_is_on_its_way_to_the_disk_at_once(tmp_path: Path) -> None:
    told = notes(tmp_path)
    told.tell(Note(host="a.test", delay_s=5.0))
    with notes(tmp_path, label="other") as other:  # as after a kill: nobody has closed the first
        assert other.delay_s("a.test") == 5.0
    told.__exit__()


def test_a_full_disk_is_told_as_what_it_is(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no disk here that is full")
    with notes(tmp_path) as told:
        told._file.close()
        told._file = full.open("wb", buffering=0)
        with pytest.raises(OSError) as raised:
            told.tell(Note(host="a.test", delay_s=5.0))
    assert raised.value.errno == errno.ENOSPC


def test_how_long_a_slow_host_is_left_alone_is_kept_rounded_up_and_in_few_lines(
    tmp_path: Path,
) -> None:
    with notes(tmp_path) as told:
        for n in range(1, 1000):
            told.rest("a.test", n / 100)
            assert n / 100 <= told.full_delay_s("a.test") < n / 50 + 0.01
        told.rest("a.test", 0.5)  # of all answers the slowest counts
    with notes(tmp_path) as again:
        assert again.full_delay_s("a.test") == 16.0 and again.delay_s("a.test") == 0.0
    (path,) = tmp_path.glob("*.hosts")
    assert path.read_bytes().count(b"\n") <= 12


@pytest.mark.parametrize("later", [(0x0F, 0x21), (0x10, 0x1F), (0x11, 0x20), (0x10, 0x20)])
def test_what_was_told_last_counts_whatever_the_range_was_then(
    tmp_path: Path, later: tuple[int, int]
) -> None:
    with at(tmp_path, 0x10, 0x20, MOMENT) as first:
        first.tell(Note(host="a.test", delay_s=5.0))
        first.reached("http://a.test", MOMENT)
    with at(tmp_path, *later, MOMENT + HOUR) as then:
        then.tell(Note(host="a.test", delay_s=5.0, until=MOMENT + 2 * HOUR))
        then.reached("http://a.test", None)
    with at(tmp_path, 0x10, 0x20, MOMENT + HOUR) as again:
        assert again.until("a.test") == MOMENT + 2 * HOUR
        assert list(again.unreachable(MOMENT)) == []
    assert kept(tmp_path)["a.test"].until == MOMENT + 2 * HOUR


def test_a_clock_that_was_set_back_makes_nothing_older_than_before(tmp_path: Path) -> None:
    with at(tmp_path, 0x10, 0x20, MOMENT) as first:
        first.tell(Note(host="a.test", delay_s=5.0))
    with at(tmp_path, 0x0F, 0x21, MOMENT - HOUR) as then:
        then.tell(Note(host="a.test", delay_s=7.0))
        then.tell(Note(host="a.test", delay_s=9.0))
    assert delays(tmp_path) == {"a.test": 9.0}


def test_notes_that_do_not_say_when_are_older_than_those_that_do(tmp_path: Path) -> None:
    for name, delay_s in (("10101010-20202020", 5), ("10101010-30303030", 6)):
        line = f'{{"host":"a.test","delay_s":{delay_s}}}\n'
        (tmp_path / f"{name}-live.hosts").write_text(line)
    assert delays(tmp_path) == {"a.test": 6.0}
    with at(tmp_path, 0x0F, 0x21, MOMENT) as then:
        then.tell(Note(host="a.test", delay_s=7.0))
    assert delays(tmp_path) == {"a.test": 7.0}


def test_what_is_known_already_is_not_written_again_at_another_moment(tmp_path: Path) -> None:
    for n in range(5):
        with at(tmp_path, 0x10, 0x20, MOMENT + n * HOUR) as told:
            told.tell(Note(host="a.test", delay_s=5.0))
            told.reached("http://a.test", MOMENT + n * TICK)
    (path,) = tmp_path.glob("*.hosts")
    assert path.read_bytes().count(b"\n") == 2
    assert kept(tmp_path)["http://a.test"].unreachable_since == MOMENT
