"""What a URL is here: the form that is asked for, the form that decides sameness, and the id.

`fetch_url` repairs what no server could read and leaves the rest as the author wrote it; `url_key`
forgets what does not select the page. Both are idempotent, and the key of the fetch URL of a key is
that key. Ids depend on nothing but the key and the pinned public-suffix list: `SCHEME` names both.
"""

import functools
import hashlib
import html
import ipaddress
import re
from pathlib import Path
from urllib.parse import quote_from_bytes

import idna
from publicsuffixlist import PublicSuffixList

SUFFIX_FILE = Path(__file__).with_name("public_suffix_list.dat")
SCHEME = "1-" + hashlib.sha256(SUFFIX_FILE.read_bytes()).hexdigest()[:16]
"""Version of the id scheme and digest of the public-suffix list. A change makes all ids anew."""

PARTS = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.IGNORECASE | re.DOTALL)
AUTHORITY = re.compile(r"(?:(.*)@)?(\[[0-9A-Fa-f:.]+\]|[^:\[\]@]*)(?::([0-9]{0,5}))?", re.DOTALL)
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# Only with its semicolon: `&copy=1` in a query is a parameter named copy.
ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});")
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
# All that RFC 3986 forbids in a path or a query, but for brackets, which servers do read.
FORBIDDEN = re.compile(r"[^!$&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~%#]|%(?![0-9A-Fa-f]{2})")
MAX_CHARACTERS = 8192
"""Longer text is no URL (RFC 9110, 4.1: servers should read 8,000), and could cost its square."""
ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
SESSION = re.compile(r";(?:jsessionid|phpsessid)=[^/]*", re.IGNORECASE)

# Parameters that say where a reader came from, never what to show. Added to by makers of
# newsletters, advertisements and share buttons; each is documented by its maker.
TRACKING = re.compile(
    r"""(?:utm_|mtm_|pk_).* | piwik_(?:campaign|kwd)
      | fbclid | gclid | gclsrc | dclid | gbraid | wbraid | msclkid | ysclid | yclid | twclid
      | ttclid | igshid | igsh | mc_cid | mc_eid | mkt_tok | _hsenc | _hsmi | __hs(?:tc|sc|fp)
      | hsctatracking | vero_(?:id|conv) | oly_(?:anon|enc)_id | _ga | _gl | _openstat | wickedid
      | s_cid | phpsessid | jsessionid""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
# What is left of an ampersand that was escaped once too often, at the head of a parameter.
ENTITY_REST = re.compile(r"(?:(?:amp|lt|gt|quot|apos);)+")

LOCAL_SUFFIXES = (".local", ".localhost", ".localdomain", ".internal", ".intranet", ".lan",
                  ".home", ".corp", ".private", ".home.arpa")  # fmt: skip


def fetch_url(text: str) -> str | None:
    """The URL to ask for, or None where `text` is no http(s) URL that could be asked.

    HTML entities are decoded, white space and bytes that HTTP cannot carry are percent-encoded, the
    host is put into its ASCII form (UTS 46); everything else stays as it is, the fragment too.
    Neither the text nor the URL may be longer than `MAX_CHARACTERS`.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    found = PARTS.fullmatch(_decode(text).strip())
    if not found:
        return None
    scheme, authority, path, query, fragment = found.groups(default="")
    where = _authority(authority)
    if where is None:
        return None
    rest = _repair(path.replace("\\", "/")) + _repair(query)
    asked = f"{scheme.lower()}://{where}{rest}{_repair(fragment)}"
    return asked if len(asked) <= MAX_CHARACTERS else None


def url_key(url: str) -> str:
    """The canonical form of a fetch URL: equal keys are the same page.

    Insensitive to the scheme, `www.`, the default ports, the fragment, trailing slashes, dot
    segments, session ids, tracking parameters, the order of parameters and the spelling of escapes.
    The key is itself a URL, with `http` for a scheme. Raises ValueError for what `fetch_url` would
    not return.
    """
    user, name, port, path, query = _split(url)
    while name.startswith("www.") and registrable_domain(name[4:]) == registrable_domain(name):
        name = name[4:]
    shown = f"[{name}]" if ":" in name else name
    where = f"{user}@{shown}" if user else shown
    if port and int(port) not in (80, 443):
        where = f"{where}:{int(port)}"
    return f"http://{where}{_path_key(path)}{_query_key(query)}"


def host(url: str) -> str:
    """The host of a fetch URL: lower case, without port, trailing dot or brackets."""
    return _split(url)[1]


def has_credentials(url: str) -> bool:
    """Whether a fetch URL carries a user name or a password."""
    return bool(_split(url)[0])


def path(url: str) -> str:
    """The path of a fetch URL, without its query."""
    return _split(url)[3]


def origin(url: str) -> str:
    """Scheme, host and port of a fetch URL: what one robots.txt speaks for (RFC 9309, 2.3)."""
    _, name, port, _, _ = _split(url)
    scheme = "https" if url.startswith("https:") else "http"
    shown = f"[{name}]" if ":" in name else name
    default = {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{shown}" + (f":{int(port)}" if port and int(port) != default else "")


def without_fragment(url: str) -> str:
    """What of a fetch URL goes over the wire."""
    return url.partition("#")[0]


@functools.lru_cache(maxsize=65536)
def registrable_domain(name: str) -> str:
    """The domain that its owner registered, below a public suffix, the private section included.

    A host that has none (an address, a single label, a public suffix) stands for itself.
    """
    if is_address(name):
        return name
    return _suffixes().privatesuffix(name) or name


def is_address(name: str) -> bool:
    """Whether a host is an IP address, in any notation that a resolver would take for one."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        # 127.1, 0x7f.1 and 2130706433 are addresses too (inet_aton): their last label is a number
        last = name.rpartition(".")[2]
        return last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last) is not None
    return True


def is_private(name: str) -> bool:
    """Whether a host is an address, or a name that only a local network knows."""
    return is_address(name) or "." not in name or name.endswith(LOCAL_SUFFIXES)


def link_id(key: str) -> bytes:
    """The 16 bytes of a link: 4 of its registrable domain, then 12 of its key (BLAKE2b)."""
    domain = registrable_domain(host(key))
    return _hash(domain, 4) + _hash(key, 12)


def _hash(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


@functools.cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList(source=SUFFIX_FILE.read_bytes(), accept_unknown=True)


def _decode(text: str) -> str:
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
    shown = f"{_repair(user)}@{ascii_name}" if user else ascii_name
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


def _repair(text: str) -> str:
    return FORBIDDEN.sub(
        lambda found: quote_from_bytes(found.group().encode("utf-8", "surrogatepass"), safe=""),
        text,
    )


def _split(url: str) -> tuple[str, str, str, str, str]:
    found = PARTS.fullmatch(url)
    where = AUTHORITY.fullmatch(found.group(2)) if found else None
    if not found or not where:
        raise ValueError(f"not a fetch URL: {url!r}")
    user, name, port = where.groups(default="")
    name = name.lower().strip("[]").removesuffix(".")
    return user, name, port, found.group(3), found.group(4) or ""


def _path_key(text: str) -> str:
    kept: list[str] = []
    for segment in SESSION.sub("", _spelled(text)).split("/")[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return ("/" + "/".join(kept)).rstrip("/")


def _query_key(text: str) -> str:
    parts = (
        ENTITY_REST.sub("", part, count=1) if ENTITY_REST.match(part) else part
        for part in _spelled(text[1:]).split("&")
    )
    parameters = [part for part in parts if part and not TRACKING.fullmatch(_name(part))]
    # A stable sort by name: the order of one name's values can mean something.
    parameters.sort(key=_name)
    return "?" + "&".join(parameters) if parameters else ""


def _name(parameter: str) -> str:
    return parameter.partition("=")[0]


def _spelled(text: str) -> str:
    """One spelling of escapes: none for unreserved characters, capitals for the others."""
    while (spelled := _repair(_decode(ESCAPE.sub(_escape, text)))) != text:
        text = spelled
    return text


def _escape(found: re.Match[str]) -> str:
    byte = int(found.group(1), 16)
    return chr(byte) if byte in UNRESERVED else found.group().upper()
