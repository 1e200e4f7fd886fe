"""What a recipe may say under [crawl], and how it is told what it may not."""

import datetime
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

from crawl.config import CrawlConfig
from crawl.schema import OUTCOMES

AGENT = "webtext/1.0 (+https://example.org/bot)"


class Tree(msgspec.Struct):
    crawl: CrawlConfig


def load(**keys: object) -> CrawlConfig:
    return msgspec.convert({"crawl": keys}, Tree, strict=False).crawl


def test_defaults_are_the_design_s() -> None:
    config = CrawlConfig()
    assert (config.min_karma, config.karma_rule, config.shards) == (3, "sum", 512)
    assert (config.live, config.sample, config.min_delay_s) == (True, 1.0, 1.0)
    assert (config.max_pages_per_host, config.until) == (20000, None)


def test_a_recipe_s_keys_are_read() -> None:
    config = load(
        submissions=["a.zst"],
        until="2017-12-31",
        user_agent=AGENT,
        resolve={"*.web.test": "127.0.0.1:8080", "https://x.test": "[::1]:1"},
    )
    assert config.until == datetime.date(2017, 12, 31)
    assert config.product_token() == "webtext"


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"timeout": 5}, "timeout"),
        ({"min_karma": "many"}, "min_karma"),
        ({"min_karma": -1}, "min_karma"),
        ({"karma_rule": "median"}, "karma_rule"),
        ({"sample": 0}, "sample"),
        ({"sample": 1.5}, "sample"),
        ({"until": "2017-13-31"}, "until"),
        ({"shards": 0}, "shards"),
        ({"user_agent": "webtext/1.0"}, "user_agent"),
        ({"user_agent": "Mozilla/5.0 (+https://example.org)"}, "user_agent"),
        ({"user_agent": "webtext\n(+https://example.org)"}, "user_agent"),
        ({"user_agent": "1.0 (+https://example.org)"}, "user_agent"),
        ({"user_agent": "webtext2/1.0 (+https://example.org)"}, "user_agent: 'webtext2' has more"),
        ({"user_agent": "web.text (+https://example.org)"}, "user_agent: 'web.text' has more"),
        ({"resolve": {"*.web.test": "localhost"}}, "resolve"),
        ({"resolve": {"*.web.test": "127.0.0.1:99999"}}, "resolve"),
        ({"resolve": {"*.web.test": "127.0.0.1:0"}}, "resolve"),
        ({"resolve": {"*.web.test": "999.1.1.1:80"}}, "resolve"),
        ({"resolve": {"*.web.test": "[:::::]:80"}}, "resolve"),
        ({"resolve": {"*.web.test": "[127.0.0.1]:80"}}, "resolve"),
        ({"extract_cpu_s": 10**9}, "extract_cpu_s"),
        ({"resolve": {"ftp://x": "127.0.0.1:1"}}, "resolve"),
        ({"refused_domains": ["Wikipedia"]}, "refused_domains"),
        ({"refused_domains": ["wikipedia"]}, "refused_domains"),
        ({"refused_domains": ["wikipedia.org/wiki"]}, "refused_domains"),
        ({"refused_domains": ["wikipedia.org:80"]}, "refused_domains"),
        ({"refused_domains": [".wikipedia.org"]}, "refused_domains"),
        ({"refused_domains": ["wikipedia.org."]}, "refused_domains"),
        ({"refused_domains": ["*.wikipedia.org"]}, "refused_domains"),
        ({"refused_domains": ["b\u00fccher.de"]}, "refused_domains"),
        ({"min_delay_s": 121}, "min_delay_s: 121 is more than max_delay_s, 120"),
        ({"max_delay_s": 0.5}, "min_delay_s: 1 is more than max_delay_s, 0.5"),
        ({"proxy": ""}, "proxy"),
        ({"proxy": "proxy.example:3128"}, "proxy"),
        ({"proxy": "https://proxy.example:3128"}, "proxy"),
        ({"proxy": "socks5://proxy.example:1080"}, "proxy"),
        ({"proxy": "http://proxy.example"}, "proxy"),
        ({"proxy": "http://proxy.example:0"}, "proxy"),
        ({"proxy": "http://proxy.example:99999"}, "proxy"),
        ({"proxy": "http://proxy.example:3128/path"}, "proxy"),
        ({"proxy": "http://[::1:3128"}, "proxy"),
        ({"name_servers": ["dns.example"]}, "name_servers"),
        ({"name_servers": ["9.9.9.9", ""]}, "name_servers"),
        ({"name_servers": ["9.9.9.9:0"]}, "name_servers"),
        ({"name_servers": ["2620:fe::fe:gone"]}, "name_servers"),
        ({"journal": ""}, "journal"),
        ({"journal": "s3://bucket/journal"}, "journal"),
        ({"archive_base": " "}, "archive_base"),
        ({"retry": ["ok"]}, "retry"),
        ({"retry": ["timeout", "not_archived"]}, "retry"),
        ({"retry": ["time_out"]}, "retry"),
        ({"retry": ["timeout"], "asks": 1}, "asks"),
        ({"ip": "5"}, "ip"),
        ({"max_bytes_per_s": -1}, "max_bytes_per_s"),
        ({"min_free_gb": -1}, "min_free_gb"),
        ({"max_host_s": 0}, "max_host_s"),
        ({"obey": ["robots"]}, "obey"),
        ({"followed_domains": ["Reddit.com"]}, "followed_domains"),
        ({"followed_domains": ["a.org"], "refused_domains": ["a.org"]}, "followed_domains"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(keys: dict[str, object], named: str) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        load(**keys)
    message = str(raised.value)
    assert named in message and "$.crawl" in message and "\n" not in message


@pytest.mark.parametrize(
    "agent", [AGENT, "webtext (me@example.org)", "w-t/2 (mailto:a@b.org)", "w_T(a@b.org)"]
)
def test_a_user_agent_with_a_contact_is_taken(agent: str) -> None:
    assert load(user_agent=agent).user_agent == agent


def test_domains_are_taken_as_hosts_are_compared() -> None:
    domains = ("xn--bcher-kva.de", "a-b.co.uk", "0.a_b.org")
    assert load(refused_domains=list(domains)).refused_domains == domains


def test_a_proxy_and_name_servers_of_both_versions_are_taken() -> None:
    for proxy in ("http://proxy.example:3128", "http://me:word@10.0.0.1:80/", "http://[::1]:3128"):
        assert load(proxy=proxy).proxy == proxy
    servers = ("9.9.9.9", "9.9.9.9:53", "[2620:fe::fe]:53", "2620:fe::fe")
    assert load(name_servers=list(servers)).name_servers == servers
    assert load(journal="journal", retry=["denied", "over_host_budget"]).journal == "journal"


def test_who_only_reads_a_run_need_not_be_named() -> None:
    assert load(submissions=["a.zst"]).user_agent == ""


def test_marks_name_datasets_and_the_rest_is_unmarked() -> None:
    marks = {}
    for name, kind in get_type_hints(CrawlConfig, include_extras=True).items():
        for meta in get_args(kind)[1:] if get_origin(kind) is Annotated else ():
            extra: dict[str, Any] | None = meta.extra
            if extra:
                marks[name] = extra["changes"]
    assert {dataset for changes in marks.values() for dataset in changes} <= set(OUTCOMES)
    assert set(marks) == {
        "min_karma", "karma_rule", "until", "over_18", "sample", "refused_domains", "live",
        "max_pages_per_host", "max_decoded_bytes", "accept_truncated",
        "followed_domains", "since", "subreddits", "refused_subreddits",
        "obey", "retry", "asks", "max_ratio",
    }  # fmt: skip


def test_every_field_says_what_it_means() -> None:
    import ast
    import inspect

    (tree,) = ast.parse(inspect.getsource(CrawlConfig)).body
    assert isinstance(tree, ast.ClassDef)
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
