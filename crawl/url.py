"""The form of a URL that is asked for, its parts, and whose its host is.

`fetch_url` repairs what no server could read and leaves the rest as the author wrote it; it is
idempotent. Whether two of them are one page is for `crawl/canonical.py` to say.
"""

import functools
import html
import ipaddress
import re
from pathlib import Path
from urllib.parse import quote_from_bytes, urljoin

import idna
from publicsuffixlist import PublicSuffixList

SUFFIX_FILE = Path(__file__).with_name("public_suffix_list.dat")

PARTS = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.IGNORECASE | re.DOTALL)
AUTHORITY = re.compile(r"(?:(.*)@)?(\[[0-9A-Fa-f:.]+\]|[^:\[\]@]*)(?::([0-9]{0,5}))?", re.DOTALL)
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# Only with its semicolon: `&copy=1` in a query is a parameter named copy.
ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});")
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
# All that RFC 3986 forbids in a path or a query, but for brackets, which servers do read.
FORBIDDEN = re.compile(r"[^!$&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~%#]|%(?![0-9A-Fa-f]{2})")
HOSTS = 1 << 18
"""Whose answers are remembered: some 50 MB. A month of posts names about as many."""
MAX_CHARACTERS = 8192
"""Longer text is no URL (RFC 9110, 4.1: servers should read 8,000), and could cost its square."""


LOCAL_SUFFIXES = (".local", ".localhost", ".localdomain", ".internal", ".intranet", ".lan",
                  ".home", ".corp", ".private", ".home.arpa")  # fmt: skip


def fetch_url(text: str) -> str | None:
    """The URL to ask for, or None where `text` is no http(s) URL that could be asked.

    HTML entities are decoded, white space and bytes that HTTP cannot carry are percent-encoded, the
    host is put into its ASCII form (UTS 46); everything else stays as it is, the fragment too.
    Neither the text nor the URL may be longer than `MAX_CHARACTERS`.
    """
    return _formed(decoded(text)) if len(text) <= MAX_CHARACTERS else None


def led_to(base: str, location: str) -> str | None:
    """Where the Location of an answer from `base` leads, as it is to be requested: a URL that is
    repaired but, unlike one of a post, no HTML. None where it cannot be asked for, or only with a
    password."""
    if len(location) > MAX_CHARACTERS:
        return None
    try:
        target = _formed(CONTROLS.sub("", urljoin(base, location.strip())))
    except ValueError:
        return None
    return requested(target) if target and not has_credentials(target) else None


def _formed(text: str) -> str | None:
    found = PARTS.fullmatch(text.strip())
    if not found:
        return None
    scheme, authority, path, query, fragment = found.groups(default="")
    where = _authority(authority)
    if where is None:
        return None
    rest = repaired(path.replace("\\", "/")) + repaired(query)
    asked = f"{scheme.lower()}://{where}{rest}{repaired(fragment)}"
    return asked if len(asked) <= MAX_CHARACTERS else None


def host(url: str) -> str:
    """The host of a fetch URL: lower case, without port, trailing dot or brackets."""
    return split(url)[1]


def has_credentials(url: str) -> bool:
    """Whether a fetch URL carries a user name or a password."""
    return bool(split(url)[0])


def path(url: str) -> str:
    """The path of a fetch URL, without its query."""
    return split(url)[3]


@functools.lru_cache(maxsize=HOSTS)
def is_plain_host(name: str) -> bool:
    """Whether a host stands in a fetch URL as it is, and in no other spelling."""
    return not name.endswith(".") and _ascii_host(name) == name and name == name.lower()


def origin(url: str) -> str:
    """Scheme, host and port of a fetch URL: what one robots.txt speaks for (RFC 9309, 2.3)."""
    _, name, port, _, _, _ = split(url)
    scheme = "https" if url.startswith("https:") else "http"
    shown = f"[{name}]" if ":" in name else name
    default = {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{shown}" + (f":{int(port)}" if port and int(port) != default else "")


def without_fragment(url: str) -> str:
    """A fetch URL as archives name it."""
    return url.partition("#")[0]


def requested(url: str) -> str:
    """What of a fetch URL goes over the wire; robots.txt must be asked about this very text. A
    question mark with nothing behind it is never sent."""
    asked = without_fragment(url)
    path, _, query = asked.partition("?")
    return asked if query else path


@functools.lru_cache(maxsize=HOSTS)
def registrable_domain(name: str) -> str:
    """The domain that its owner registered, below a public suffix, the private section included.

    A host that has none (an address, a single label, a public suffix) stands for itself.
    """
    if is_address(name):
        return name
    return _suffixes().privatesuffix(name) or name


def domain_name(name: str) -> str:
    """The name that a host's domain goes by, without its public suffix: `bbc` of `news.bbc.co.uk`.

    Only suffixes of registries are taken off, none of the list's private section, so that
    `x.blogspot.com` is of `blogspot`. A host that is nothing else (an address, a single label, a
    public suffix) stands for itself.
    """
    domain = None if is_address(name) else _registry_suffixes().privatesuffix(name)
    return domain.partition(".")[0] if domain else name


def is_address(name: str) -> bool:
    """Whether a host is an IP address, in any notation that a resolver would take for one."""
    # 127.1, 0x7f.1 and 2130706433 are addresses too (inet_aton): their last label is a number
    last = name.rpartition(".")[2]
    if last.isdigit() or (last[:1] == "0" and re.fullmatch(r"0x[0-9a-f]*", last)):
        return True
    if ":" not in name:
        return False
    try:
        ipaddress.IPv6Address(name)
    except ValueError:
        return False
    return True


def is_local(name: str) -> bool:
    """Whether a host is a name that only a local network knows."""
    return not is_address(name) and ("." not in name or name.endswith(LOCAL_SUFFIXES))


@functools.cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList(source=SUFFIX_FILE.read_bytes(), accept_unknown=True)


@functools.cache
def _registry_suffixes() -> PublicSuffixList:
    return PublicSuffixList(source=SUFFIX_FILE.read_bytes(), accept_unknown=True, only_icann=True)


def decoded(text: str) -> str:
    # A link that was escaped twice was escaped twice by accident: decode until it rests.
    while (decoded := ENTITY.sub(_entity, CONTROLS.sub("", text))) != text:
        text = decoded
    return text


def _entity(found: re.Match[str]) -> str:
    return html.unescape(found.group())


def _authority(text: str) -> str | None:
    found = AUTHORITY.fullmatch(text)
    if not found:
        return None
    user, name, port = found.groups(default="")
    ascii_name = _ascii_host(name)
    if ascii_name is None or (port and not 0 < int(port) < 65536):
        return None
    shown = f"{repaired(user)}@{ascii_name}" if user else ascii_name
    return f"{shown}:{port}" if port else shown


def _ascii_host(name: str) -> str | None:
    if name.startswith("["):
        return name.lower() if is_address(name[1:-1]) else None
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode()
        except idna.IDNAError:
            return None
    labels = name.lower().removesuffix(".").split(".")
    if len(name) > 253 or not all(LABEL.fullmatch(label) for label in labels):
        return None
    return name


def repaired(text: str) -> str:
    return FORBIDDEN.sub(
        lambda found: quote_from_bytes(found.group().encode("utf-8", "surrogatepass"), safe=""),
        text,
    )


@functools.lru_cache(maxsize=1024)  # of an address many ask within a moment
def split(url: str) -> tuple[str, str, str, str, str, str]:
    found = PARTS.fullmatch(url)
    where = AUTHORITY.fullmatch(found.group(2)) if found else None
    if not found or not where:
        raise ValueError(f"not a fetch URL: {url!r}")
    user, name, port = where.groups(default="")
    name = name.lower().strip("[]").removesuffix(".")
    return user, name, port, found.group(3), found.group(4) or "", found.group(5) or ""
