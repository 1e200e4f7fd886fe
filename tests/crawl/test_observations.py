"""The ledger: killed at any instant, it holds what was durable, once."""

import datetime
import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawl import observations, warc
from crawl.observations import Held, Observation, Writer
from crawl.schema import OBSERVATIONS, PageOutcome

MOMENT = datetime.datetime(2016, 5, 4, 3, 2, 1, 123000, tzinfo=datetime.UTC)
LOW, HIGH = b"\x10" * 16, b"\x20" * 16


def observation(n: int, **changed: Any) -> Observation:
    row = Observation(
        link_id=bytes([0x10 + n]) * 16,
        url_key=f"http://a.com/{n}",
        url=f"http://a.com/{n}",
        outcome=PageOutcome.OK,
        source="live",
        status=200,
        fetched_at=MOMENT,
    )
    return msgspec.structs.replace(row, **changed)


def append(writer: Writer, n: int) -> None:
    body = b"<p>%d" % n * 50
    place = writer.archive(
        f"http://a.com/{n}", MOMENT, warc.Answer(200, "OK", (), body),
        request=warc.Request("GET / HTTP/1.1", ()),
    )  # fmt: skip
    writer.append(observation(n, digest=warc.digest(body)), place)


def check(folder: Path, expected: int) -> None:
    rows = observations.read(folder).to_pylist()
    assert sorted(row["url"] for row in rows) == [f"http://a.com/{n}" for n in range(expected)]
    for row in rows:
        place = warc.Place(row["warc_offset"], row["warc_length"])
        assert warc.digest(warc.read(folder / row["warc_file"], place).body) == row["digest"]
    assert not [path for path in folder.iterdir() if "open" in path.name]


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    with Writer(tmp_path, LOW, HIGH, label="live") as writer:
        for n in (2, 0, 1):
            append(writer, n)
        writer.append(observation(3, outcome=PageOutcome.TIMEOUT, status=None))
    rows = observations.read(tmp_path)
    assert rows.schema == OBSERVATIONS
    assert rows["link_id"].to_pylist() == sorted(rows["link_id"].to_pylist())
    assert rows["fetched_at"].to_pylist() == [MOMENT] * 4
    assert rows["warc_file"].to_pylist()[3] is None
    assert {path.name[:17] for path in tmp_path.iterdir()} == {"10101010-20202020"}


def test_nothing_appended_leaves_nothing(tmp_path: Path) -> None:
    with Writer(tmp_path, LOW, HIGH, label="live"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_reader_opens_only_what_overlaps(tmp_path: Path) -> None:
    for low, high, n in ((b"\x10" * 16, b"\x11" * 16, 0), (b"\x12" * 16, b"\x13" * 16, 2)):
        with Writer(tmp_path, low, high, label="live") as writer:
            append(writer, n)
    (one,) = tmp_path.glob("12121212-*.parquet")
    one.write_bytes(b"would fail if it were opened")
    rows = observations.read(tmp_path, b"\x10" * 16, b"\x11" * 16)
    assert rows["url"].to_pylist() == ["http://a.com/0"]


def test_a_segment_ends_when_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "SEGMENT_BYTES", 1500)
    with Writer(tmp_path, LOW, HIGH, label="live") as writer:
        for n in range(6):
            append(writer, n)
    assert len(list(tmp_path.glob("*.parquet"))) > 1
    check(tmp_path, 6)


def abandoned(folder: Path, count: int) -> tuple[bytes, bytes, str]:
    """The files of a segment whose writer died after `count` rows: WARC, journal, name."""
    with Writer(folder, LOW, HIGH, label="live") as writer:
        for n in range(count):
            append(writer, n)
        segment = writer._segment
        assert segment is not None
        name = segment.name
        coded = (folder / f"{name}.warc.gz.open").read_bytes()
        journal = (folder / f"{name}.ndjson.open").read_bytes()
    shutil.rmtree(folder)
    folder.mkdir()
    return coded, journal, name


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=60)
def test_a_kill_at_any_byte_keeps_the_whole_rows(of_warc: float, of_journal: float) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "ledger"
        coded, journal, name = abandoned(folder, 4)
        rest = b"\x1f\x8b half a record"
        # the WARC file may be longer than the journal knows, and after a power cut shorter
        coded = coded[: round(of_warc * len(coded))]
        journal = journal[: round(of_journal * len(journal))]
        (folder / f"{name}.warc.gz.open").write_bytes(coded + rest)
        (folder / f"{name}.ndjson.open").write_bytes(journal)
        observations.recover(folder)
        lines = journal.split(b"\n")[:-1]
        ends = [msgspec.json.decode(line)["end"] for line in lines]
        check(folder, sum(end <= len(coded) for end in ends))


@pytest.mark.parametrize("step", ["nothing", "renamed", "parquet"])
def test_a_kill_while_recovering_is_recovered(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ledger"
    coded, journal, name = abandoned(folder, 3)
    (folder / f"{name}.ndjson.open").write_bytes(journal)
    (folder / f"{name}.warc.gz.open").write_bytes(coded)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    broken = {"nothing": "_lines", "renamed": "_write_parquet", "parquet": "_sync_folder"}[step]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(observations, broken, die)
        observations.recover(folder)
    observations.recover(folder)
    check(folder, 3)


def test_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    naps: list[float] = []
    with Writer(tmp_path, LOW, HIGH, label="live") as writer:
        append(writer, 0)
        with pytest.raises(Held, match="another process"):
            observations.recover(tmp_path, wait_s=1.0, clock=lambda: sum(naps), sleep=naps.append)
        assert 0.9 < sum(naps) < 1.2
        observations.recover(tmp_path, b"\x30" * 16, b"\x40" * 16)  # another range
        observations.recover(tmp_path, label="other")
        append(writer, 1)
    check(tmp_path, 2)


def test_a_lock_that_a_dying_writer_still_holds_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    coded, journal, name = abandoned(folder, 2)
    (folder / f"{name}.warc.gz.open").write_bytes(coded)
    path = folder / f"{name}.ndjson.open"
    path.write_bytes(journal)
    held = path.open("rb")
    fcntl.flock(held, fcntl.LOCK_EX)
    observations.recover(folder, clock=lambda: 0.0, sleep=lambda _: held.close())
    check(folder, 2)


def table(*rows: Observation) -> pa.Table:
    return pa.Table.from_pylist([msgspec.structs.asdict(row) for row in rows], OBSERVATIONS)


LATER = MOMENT + datetime.timedelta(days=1)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"fetched_at": LATER}, {"outcome": PageOutcome.TIMEOUT, "source": "archive"}),
        ({"source": "archive", "fetched_at": LATER}, {"source": "live"}),
        ({}, {"fetched_at": LATER}),
        ({"digest": "a"}, {"digest": "b"}),
    ],
)
def test_the_better_observation_is_selected(better: dict[str, Any], worse: dict[str, Any]) -> None:
    good, bad = observation(0, **better), observation(0, **worse)
    for rows in ((good, bad), (bad, good)):
        assert observations.select(table(*rows)).to_pylist() == table(good).to_pylist()


@given(
    st.lists(
        st.builds(
            observation,
            st.integers(0, 2),
            outcome=st.sampled_from([PageOutcome.OK, PageOutcome.TIMEOUT, PageOutcome.NOT_HTML]),
            source=st.sampled_from(["live", "archive"]),
            fetched_at=st.sampled_from([MOMENT, LATER]),
            digest=st.sampled_from([None, "x", "y"]),
        ),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_selection_is_one_row_a_link_whatever_the_order(
    rows: list[Observation], random: Any
) -> None:
    selected = observations.select(table(*rows)).to_pylist()
    ids = [row["link_id"] for row in selected]
    assert ids == sorted({row.link_id for row in rows})
    random.shuffle(rows)
    assert observations.select(table(*rows)).to_pylist() == selected
