"""What the operator says: whom it means, how it is written, and that a bad file changes nothing."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl import steering
from crawl.schema import BadInput
from crawl.steering import Steering, Watch

PATTERNS = st.sampled_from(
    ["a.org", "*.a.org", "b.a.org", "https://a.org/p/", "http://b.a.org/", "https://*.a.org/x"]
)


@pytest.mark.parametrize(
    ("pattern", "target", "means"),
    [
        ("a.org", "https://a.org/x", True),
        ("a.org", "http://a.org:8080/x", True),
        ("a.org", "https://b.a.org/", False),
        ("a.org", "https://aa.org/", False),
        ("a.org", "https://xaXorg.test/", False),
        ("*.a.org", "https://a.org/", True),
        ("*.a.org", "https://c.b.a.org/", True),
        ("*.a.org", "https://ba.org/", False),
        ("*.a.org", "https://a.org.evil.test/", False),
        ("*.org", "https://a.org/", True),
        ("127.0.0.1", "http://127.0.0.1/", True),
        ("https://a.org/p/", "https://a.org/p/1?q", True),
        ("https://a.org/p/", "https://a.org/p", False),
        ("https://a.org/p/", "http://a.org/p/1", False),
        ("https://a.org/p/", "https://b.test/?u=https://a.org/p/1", False),
        ("https://a.org/*/edit", "https://a.org/wiki/x/edit?y", True),
        ("https://a.org/*/edit", "https://a.org/edit", False),
        ("https://a.org/a.b", "https://a.org/axb", False),
        ("https://a.org/a+b(", "https://a.org/a+b(c", True),
        ("http://a.org/p/", "http://A.org/p/1", True),
        ("http://a.org/p/", "http://a.org:080/p/1", True),
        ("http://a.org/p/", "http://a.org.:/p/1", True),
        ("http://a.org/p/", "http://u:p@a.org/p/1", True),
        ("http://a.org/p/", "http://a.org/%70/1", True),
        ("http://a.org/%70%2f/", "http://a.org/p%2F/1", True),
        ("http://a.org/caf\u00e9/", "http://a.org/caf%C3%A9/1", True),
        ("http://a.org:80/p/", "http://a.org/p/1", True),
        ("https://a.org:80/p/", "https://a.org/p/1", False),
        ("http://a.org:8080/p/", "http://a.org.:8080/p/1", True),
        ("http://a.org:8080/p/", "http://a.org/p/1", False),
        ("https://a.org", "https://a.org", True),
        ("https://a.org", "https://a.org:443?x", True),
        ("https://a.org", "https://a.organic/", False),
        ("https://a.org", "https://a.org.evil.test/", False),
        ("https://a.or*", "https://a.organic/", True),
        ("https://a.org?x", "https://a.org/?x=1", True),
        ("http://[::1]:80/p/", "http://[::1]/p/1", True),
    ],
)
def test_a_pattern_means_these_addresses(pattern: str, target: str, means: bool) -> None:
    assert Steering(deny=(pattern,)).denies(target) is means
    assert Steering(allow=(pattern,)).denies(target) is not means


def test_nobody_is_denied_where_nothing_is_said_and_deny_has_the_last_word() -> None:
    assert not Steering().denies("https://a.org/")
    both = Steering(allow=("*.a.org",), deny=("b.a.org",))
    assert not both.denies("https://a.org/")
    assert both.denies("https://b.a.org/") and both.denies("https://c.org/")


@given(
    st.lists(PATTERNS), st.sampled_from(["https://a.org/p/1", "http://b.a.org/", "http://c.net/"])
)
def test_a_list_means_what_any_of_its_patterns_means(patterns: list[str], target: str) -> None:
    alone = [Steering(deny=(one,)).denies(target) for one in patterns]
    assert Steering(deny=tuple(patterns)).denies(target) is any(alone)


def test_a_long_list_costs_no_more_than_a_short_one() -> None:
    said = Steering(deny=tuple(f"*.host-{n}.test" for n in range(100_000)))
    assert said._denied is said._denied
    assert said.denies("https://a.host-77777.test/") and not said.denies("https://a.org/")


@pytest.mark.parametrize(
    "pattern",
    ["", "A.org", "a.org/x", "a.org:80", "*", "*.", "*a.org", "b\u00fccher.de", "ftp://a.org/",
     "https://", "https://A.org/", "a b"],
)  # fmt: skip
@pytest.mark.parametrize("key", ["deny", "allow"])
def test_what_is_no_pattern_is_refused(tmp_path: Path, key: str, pattern: str) -> None:
    with pytest.raises(ValueError):
        Steering(**{key: (pattern,)})  # type: ignore[arg-type]
    path = tmp_path / "crawl.toml"
    path.write_text(f'{key} = ["{pattern}"]', "utf-8")
    with pytest.raises(BadInput, match=r"crawl\.toml: [^\n]+$"):
        steering.read(path)


@given(
    st.sampled_from(["run", "pause", "stop"]),
    st.lists(PATTERNS),
    st.lists(PATTERNS),
    st.none() | st.integers(0, 2**40),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    state: steering.State,
    deny: list[str],
    allow: list[str],
    bound: int | None,
) -> None:
    path = tmp_path_factory.mktemp("run") / "below" / steering.FILE
    said = Steering(state=state, deny=tuple(deny), allow=tuple(allow), max_bytes_per_s=bound)
    steering.write(path, said)
    assert steering.read(path) == said
    assert [one.name for one in path.parent.iterdir()] == [steering.FILE]


BAD = [
    b'state = "halt"', b"max_bytes_per_s = -1", b"max_bytes_per_s = 1.5", b"stop", b"\xff\xfe",
    b'state = ["stop"]', b"hold = true", b"deny = [" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("content", BAD)
def test_a_bad_file_is_one_line_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "crawl.toml"
    path.write_bytes(content)
    with pytest.raises(BadInput) as raised:
        steering.read(path)
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "crawl.toml").mkdir()
    with pytest.raises(BadInput, match=r"crawl\.toml: Is a directory"):
        steering.read(tmp_path / "crawl.toml")


def test_a_change_is_seen_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "crawl.toml"
    watch = Watch(path)
    assert watch.look() == Steering()
    path.write_text('state = "pause"\ndeny = ["a.org"]')
    pause = Steering(state="pause", deny=("a.org",))
    assert watch.look() == pause and not watch.complaint
    path.write_text("state = ")
    assert watch.look() == pause and watch.look() == pause
    assert str(path) in watch.complaint and "what it said before holds" in watch.complaint
    path.write_text('state = "run"')
    assert watch.look() == Steering() and not watch.complaint
    path.write_text('state = "stop"')
    assert watch.look().state == "stop"
    path.unlink()
    assert watch.look() == Steering()


def test_one_that_is_bad_from_the_first_is_a_pause_until_it_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "crawl.toml"
    path.write_text("state = 1")
    watch = Watch(path)
    for _ in range(2):
        assert watch.look().state == "pause"
        assert str(path) in watch.complaint and "nobody is asked until" in watch.complaint
    path.write_text("also no state = 1")
    assert watch.look().state == "pause" and "nobody is asked until" in watch.complaint
    path.write_text('deny = ["a.org"]')
    assert watch.look() == Steering(deny=("a.org",)) and not watch.complaint
    path.write_text("state = 1")
    assert watch.look() == Steering(deny=("a.org",)) and "what it said before" in watch.complaint


def test_one_that_was_not_there_holds_when_a_bad_one_comes(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "crawl.toml")
    watch.look()
    watch.path.write_text("state = 1")
    assert watch.look() == Steering() and "what it said before holds" in watch.complaint
