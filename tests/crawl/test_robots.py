"""RFC 9309: the conformance matrix, where answers lead, and what holds of any file at all."""

import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from protego import Protego

from crawl import patterns, robots
from crawl.robots import Rules, Step
from tests.crawl import robots_matrix
from tests.crawl.robots_matrix import Case

PAGE = "http://a.test/private/x"
FORBID = b"User-agent: *\nDisallow: /"
CASES = robots_matrix.cases()


def allows(text: str | bytes, page: str = PAGE, token: str = "webtext") -> bool:
    body = text.encode() if isinstance(text, str) else text
    return robots.verdict(200, body, token).allows(page)


# The matrix.


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.answers[:30]} {case.file[:40]}")
def test_the_matrix(case: Case) -> None:
    assert robots_matrix.wrong(case) == []


def test_the_matrix_is_large_and_each_case_stands_once() -> None:
    assert len(CASES) >= 120
    assert len({(case.answers, case.file) for case in CASES}) == len(CASES)
    assert all(case.by for case in CASES)


def test_the_matrix_tells_a_wrong_verdict() -> None:
    case = Case("", "200", "FORBID", ("/",), ("/robots.txt",), "")
    assert robots_matrix.wrong(case) == ["/", "/robots.txt"]


def test_the_page_shows_the_matrix() -> None:
    page = robots_matrix.PAGE.read_text("utf-8")
    assert robots_matrix.written(page) == page, "run: python -m tests.crawl.robots_matrix"


# Where answers lead.


def test_the_first_step_is_by_origin() -> None:
    step = robots.begin("https://A.test:8443/x?y#z", "webtext")
    assert (step.origin, step.target) == ("https://a.test:8443", "https://a.test:8443/robots.txt")


@pytest.mark.parametrize(
    ("led", "target"),
    [
        ("/r.txt", "http://a.test/r.txt"),
        ("r.txt", "http://a.test/r.txt"),
        ("//b.test", "http://b.test"),
        ("https://b.test:443/x#y", "https://b.test:443/x"),
        (" /r ", "http://a.test/r"),
        ("/ä", "http://a.test/%C3%A4"),
        ("?x", "http://a.test/robots.txt?x"),
    ],
)
def test_a_redirect_leads_on_for_the_same_origin(led: str, target: str) -> None:
    step = robots.begin(PAGE, "webtext")
    found = robots.answered(step, 301, (("LOCATION", led),), FORBID)
    assert isinstance(found, Step)
    assert (found.origin, found.target) == ("http://a.test", target)


def test_an_empty_location_is_none() -> None:
    found = robots.answered(robots.begin(PAGE, "webtext"), 301, (("Location", ""),), FORBID)
    assert isinstance(found, Rules) and found.allows(PAGE)


def test_no_body_but_that_of_a_success_is_looked_at() -> None:
    step = robots.begin(PAGE, "webtext")
    for status in (*range(100, 200), *range(300, 700)):
        rules = robots.answered(step, status, (), FORBID)
        assert isinstance(rules, Rules)
        assert rules.allows(PAGE) is (300 <= status < 500 and status != 429), status


@pytest.mark.parametrize(
    ("page", "where"),
    [
        ("http://A.test/x?y#z", "http://a.test/robots.txt"),
        ("https://a.test:443/", "https://a.test/robots.txt"),
        ("https://a.test:8443/", "https://a.test:8443/robots.txt"),
    ],
)
def test_location_is_by_origin(page: str, where: str) -> None:
    assert robots.location(page) == where


# What a table cannot hold.


def test_long_lines_are_cut_as_google_cuts_them() -> None:
    # its published case: a URL longer than any that we ask for
    long = "/x/" + "a" * (8 * 2083 - len("/x/") - len("disallow: ") + 1)
    text = f"user-agent: webtext\ndisallow: {long}/qux\n"
    assert allows(text, "http://a.test/fux")
    assert not allows(text, f"http://a.test{long}/fux")
    one, two = ("/x/" + letter * (8 * 2083 - len("/x/") - len("allow: ") + 1) for letter in "ab")
    text = f"user-agent: webtext\ndisallow: /\nallow: {one}/qux\nallow: {two}/qux\n"
    assert not allows(text, "http://a.test/")
    assert allows(text, f"http://a.test{one}/qux") and allows(text, f"http://a.test{two}/fux")


def test_crawl_delay() -> None:
    def delay(text: str) -> float | None:
        return robots.verdict(200, text.encode(), "webtext").crawl_delay_s()

    assert delay("User-agent: webtext\nCrawl-delay: 7.5\nUser-agent: *\nCrawl-delay: 2") == 7.5
    assert delay("User-agent: *\nCrawl-delay: 2 # seconds") == 2
    assert delay("User-agent: *\nCrawl-delay: 2\nDisallow:\nCrawl-delay: .5") == 2
    assert delay("User-agent: other\nCrawl-delay: 2\nDisallow:") is None
    assert delay("Crawl-delay: 2") is None
    for value in ("-1", "inf", "nan", "1e9", "two", "", "1" * 40):
        assert delay(f"User-agent: *\nCrawl-delay: {value}") is None
    assert robots.verdict(None, b"", "webtext").crawl_delay_s() is None


def test_signals_are_of_our_group_and_of_the_closest_path() -> None:
    text = (
        b"Content-Usage: search=y\n"
        b"User-agent: *\nContent-Signal: search=yes, ai-train=no\nAllow: /\n"
        b"Content-Usage: train-ai=n\nContent-Usage: /ai-ok/ train-ai=y # here\n"
        b"User-agent: other\nContent-Signal: ai-train=yes\n"
    )
    everyone = robots.verdict(200, text, "webtext")
    assert set(everyone.signals("http://a.test/x")) == {
        "content-usage: search=y",
        "content-signal: search=yes",
        "content-signal: ai-train=no",
        "content-usage: train-ai=n",
    }
    assert "content-usage: train-ai=y" in everyone.signals("http://a.test/ai-ok/x")
    assert "content-usage: train-ai=n" not in everyone.signals("http://a.test/ai-ok/x")
    other = robots.verdict(200, text, "Other")
    assert other.signals("http://a.test/ai-ok/x") == (
        "content-usage: search=y",
        "content-signal: ai-train=yes",
    )
    assert robots.verdict(404, text, "webtext").signals(PAGE) == ()


# What holds of any file.

ANY = st.binary(max_size=300) | st.lists(
    st.sampled_from(
        [b"user-agent: *", b"user-agent: webtext", b"disallow: /", b"allow: /a", b"\r", b"\n", b"#",
         b"disallow: /*a$", b"content-usage: /a train-ai=n", b"crawl-delay: 1", b"\0", b"%", b"*",
         b"\xef\xbb\xbf", b"\xff\xfe", b"\xe9", b" ", b":"]
    ),
    max_size=30,
).map(b"".join)  # fmt: skip


@given(ANY, st.sampled_from([PAGE, "http://a.test", "http://a.test/a%2a?x", "http://a.test/ä"]))
def test_no_bytes_are_too_strange(body: bytes, page: str) -> None:
    rules = robots.verdict(200, body, "webtext")
    rules.allows(page)
    assert rules.allows("http://a.test/robots.txt")
    assert isinstance(rules.signals(page), tuple)
    assert rules.weight() > 0


LINES = st.lists(
    st.sampled_from(
        ["User-agent: *", "User-agent: webtext", "User-agent: other", "Disallow: /private",
         "Allow: /private/x", "Disallow:", "Disallow: /*x$", "Crawl-delay: 3", "Sitemap: /s", ""]
    ),
    max_size=12,
)  # fmt: skip


@given(LINES, st.sampled_from(["Disallow: /", "Allow: /", "Crawl-delay: 9", "Disallow: /*"]))
def test_what_is_said_to_another_is_never_ours(lines: list[str], rule: str) -> None:
    text = "\n".join(lines)
    more = f"{text}\nAllow: /zz\n\nUser-agent: webtext-images\n{rule}\nDisallow: /"
    one, two = (robots.verdict(200, found.encode(), "webtext") for found in (text, more))
    assert one.allows(PAGE) is two.allows(PAGE)
    assert one.crawl_delay_s() == two.crawl_delay_s()


@given(LINES, st.sampled_from(["\n", "\r", "\r\n"]), st.sampled_from(["utf-8-sig", "utf-16"]))
def test_neither_a_mark_nor_the_kind_of_line_end_changes_a_verdict(
    lines: list[str], ending: str, encoding: str
) -> None:
    plain = robots.verdict(200, "\n".join(lines).encode(), "webtext")
    assert robots.verdict(200, ending.join(lines).encode(encoding), "webtext") == plain


@given(LINES, st.integers(0, 12), st.sampled_from(["Sitemap: /x", "Foo: bar", "Crawl-delay: x"]))
def test_a_line_that_is_not_known_changes_nothing(lines: list[str], at: int, line: str) -> None:
    plain = robots.verdict(200, "\n".join(lines).encode(), "webtext")
    more = "\n".join([*lines[:at], line, *lines[at:]])
    assert robots.verdict(200, more.encode(), "webtext") == plain


# Two judges of matching: the definition, position by position, and Protego where it is right.

PIECES = st.lists(st.sampled_from(["a", "b", "/", "*", "$", "ab", "%2A", "?"]), max_size=7)
PATTERN = PIECES.map("".join)
PATHS = st.lists(st.sampled_from("ab/*$?"), max_size=9).map(lambda path: "/" + "".join(path))


def defined(pattern: str, path: str) -> bool:
    """Whether a pattern matches, by keeping all positions that what was read of it can end at."""
    at = {0}
    anchored = pattern.endswith("$")
    for piece in re.findall(r"%2A|.", pattern.removesuffix("$")):
        if piece == "*":
            at = set(range(min(at), len(path) + 1)) if at else at
        else:
            letter = "*" if piece == "%2A" else piece
            at = {place + 1 for place in at if path[place : place + 1] == letter}
    return len(path) in at if anchored else bool(at)


@given(PATTERN, PATHS)
@example("/*a*a$", "/a")
@example("/a*$", "/a")
def test_a_pattern_matches_what_its_definition_says(pattern: str, path: str) -> None:
    found = patterns.pattern(pattern).matches(patterns.target("http://a.test" + path))
    assert found is defined(pattern, path)


RULE = st.tuples(st.sampled_from(["Allow", "Disallow"]), PATTERN.map(lambda text: "/" + text))


@given(st.lists(RULE, max_size=8), PATHS)
def test_the_longest_pattern_decides_and_allow_wins_a_tie(
    rules: list[tuple[str, str]], path: str
) -> None:
    text = "User-agent: *\n" + "".join(f"{name}: {pattern}\n" for name, pattern in rules)
    best = max(
        (
            (patterns.pattern(pattern).octets, name == "Allow")
            for name, pattern in rules
            if defined(pattern, path)
        ),
        default=(0, True),
    )
    assert allows(text, "http://a.test" + path) is best[1]


WORD = st.text(string.ascii_lowercase + "/", max_size=4).map(lambda text: f"/{text}")


@given(st.lists(st.tuples(st.sampled_from(["Allow", "Disallow"]), WORD), max_size=8), WORD)
def test_protego_agrees_on_plain_paths(rules: list[tuple[str, str]], path: str) -> None:
    text = "User-agent: webtext\n" + "".join(f"{name}: {word}\n" for name, word in rules)
    page = f"http://a.test{path}"
    assert allows(text, page) is bool(Protego.parse(text).can_fetch(page, "webtext"))


@pytest.mark.parametrize(
    ("path", "resolved"),
    [
        ("/a/b", "/a/b"), ("/a/./b", "/a/b"), ("/a/../b", "/b"), ("/../a", "/a"), ("/a/..", "/"),
        ("/a/.", "/a/"), ("/a//../b", "/a/b"), ("/a/..?/../b", "/?/../b"), ("/.a/..b", "/.a/..b"),
    ],
)  # fmt: skip
def test_dot_segments(path: str, resolved: str) -> None:
    assert patterns.resolved(path) == resolved
