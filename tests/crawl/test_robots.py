"""RFC 9309: what each kind of answer allows, and who is meant by a group."""

import pytest

from crawl import robots

PAGE = "http://a.test/private/x"
FORBID = b"User-agent: *\nDisallow: /"


def allows(text: str | bytes, page: str = PAGE, token: str = "webtext") -> bool:
    body = text.encode() if isinstance(text, str) else text
    return robots.verdict(200, body, token).allows(page)


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        *[(status, False) for status in (200, 203, 429, 500, 503, 599, None)],
        *[(status, True) for status in (301, 308, 400, 401, 403, 404, 410, 451)],
    ],
)
def test_status_decides_and_only_a_success_is_parsed(status: int | None, allowed: bool) -> None:
    assert robots.verdict(status, FORBID, "webtext").allows(PAGE) is allowed


@pytest.mark.parametrize("body", [b"", b"<html>503, sorry</html>", b"\x00\xff\xfe", b"Allow: /"])
def test_a_body_without_rules_allows_everything_only_with_a_success(body: bytes) -> None:
    assert robots.verdict(200, body, "webtext").allows(PAGE)
    assert not robots.verdict(503, body, "webtext").allows(PAGE)


@pytest.mark.parametrize(
    ("agent", "meant"),
    [
        ("webtext", True),
        ("WebText", True),
        ("webtext/2.0", True),
        ("webtext # us", True),
        ("*", True),
        ("webtex", False),
        ("web", False),
        ("webtext-images", False),
        ("mozilla", False),
        ("", False),
    ],
)
def test_the_product_token_is_matched_whole(agent: str, meant: bool) -> None:
    assert allows(f"User-agent: {agent}\nDisallow: /private") is not meant


def test_our_group_replaces_the_general_one() -> None:
    text = "User-agent: *\nDisallow: /\n\nUser-agent: webtext\nDisallow: /other"
    assert allows(text)
    assert not allows(text, token="another")


def test_groups_of_one_token_are_merged() -> None:
    text = "User-agent: webtext\nDisallow: /a\n\nUser-agent: webtext\nDisallow: /private"
    assert not allows(text)


def test_the_longest_rule_wins_and_allow_wins_a_tie() -> None:
    assert allows("User-agent: *\nDisallow: /private\nAllow: /private/x")
    assert allows("User-agent: *\nDisallow: /private/x\nAllow: /private/x")
    assert not allows("User-agent: *\nAllow: /private\nDisallow: /private/x")


def test_patterns_and_queries() -> None:
    assert not allows("User-agent: *\nDisallow: /*.php$", "http://a.test/x.php")
    assert allows("User-agent: *\nDisallow: /*.php$", "http://a.test/x.php?y")
    assert not allows("User-agent: *\nDisallow: /*?print", "http://a.test/x?print=1")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_and_any_line_ending_are_read(ending: str) -> None:
    text = f"\ufeffUser-agent: *{ending}Disallow: /private"
    assert not allows(text)


@pytest.mark.parametrize("ending", ["\r", "\u2028", "\u0085"])
def test_our_group_is_found_after_any_line_ending(ending: str) -> None:
    text = ending.join(["User-agent: *", "Disallow:", "User-agent: webtext/1.0", "Disallow: /no"])
    assert not robots.verdict(200, text.encode(), "webtext").allows("http://a.com/no/x")
    assert robots.verdict(200, text.encode(), "other").allows("http://a.com/no/x")


def test_a_group_without_colons_is_obeyed() -> None:
    rules = robots.verdict(200, b"User-agent webtext/1.0\nDisallow /no", "webtext")
    assert not rules.allows("http://a.com/no") and rules.allows("http://a.com/yes")


@pytest.mark.parametrize(("lines", "allowed"), [(1000, True), (robots.MAX_WILDCARDS + 1, False)])
def test_a_file_that_takes_too_long_to_follow_allows_nothing(lines: int, allowed: bool) -> None:
    text = "User-agent: *\n" + "".join(f"Disallow: /*a*b{n}*c$\n" for n in range(lines - 1))
    assert robots.verdict(200, text.encode(), "webtext").allows("http://a.com/x") is allowed


def test_only_500_kib_are_parsed_cut_at_a_line_end() -> None:
    head = b"User-agent: *\n" + b"#" * (robots.MAX_BYTES - 30) + b"\n"
    assert allows(head + b"Disallow: /public" + b"y" * 40)  # cut inside: not `Disallow: /p`
    assert not allows(b"User-agent: *\nDisallow: /private\n" + b"#" * robots.MAX_BYTES)
    assert not allows(b"User-agent: *\rDisallow: /private\r" + b"#" * robots.MAX_BYTES)


def test_white_space_before_a_colon_does_not_change_who_is_meant() -> None:
    assert allows("User-agent : web\nDisallow: /private")
    assert not allows("User-agent : webtext\nDisallow: /private")


def test_crawl_delay() -> None:
    text = b"User-agent: webtext\nCrawl-delay: 7.5\nUser-agent: *\nCrawl-delay: 2"
    assert robots.verdict(200, text, "webtext").crawl_delay_s() == 7.5
    assert robots.verdict(200, b"", "webtext").crawl_delay_s() is None
    assert robots.verdict(None, b"", "webtext").crawl_delay_s() is None


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
