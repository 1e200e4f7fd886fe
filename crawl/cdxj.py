"""Lines of an index of captures (CDXJ): a key, a moment, and a JSON object of where the record is.

A key is the URL as archives sort them (SURT): host backwards, all in lower case, without what does
not choose a page. Its rules are those of the IIPC's WaybackURLKeyMaker (webarchive-commons) as
pywb's indexer applies them. Written anew: the Python library of that name is under the AGPL, and
asks the name server about hosts that look like numbers.
"""

import json
import re
import socket
from urllib.parse import quote_from_bytes, unquote_to_bytes

from crawl.warc import Place

REVISIT = "warc/revisit"
UNKNOWN = "unk"
"""The type of a capture that has none, in pywb's words."""

REPEATED = re.compile(r"^(?:https?://)+(?=https?://)")
"""The scheme, written twice."""
PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.S)
PORT = re.compile(rb":([0-9]*)$")
PORTS = {"http": 80, "https": 443}
WWW = re.compile(rb"www\d*\.")
NUMBER = re.compile(rb"(?:[1-9][0-9]*(?:\.[0-9]+){0,3}|0[0-7]*(?:\.[0-7]+){0,3})")
END_OF_TYPE = re.compile("[; ]")
PLAIN = re.compile(rb"[!\"$&-~]*")
SAFE = "!\"$&'()*+,-./:;<=>?@[\\]^_`{|}~"

# Marks of a session in a path, or a query: what stands before and after one is kept.
PATH_SESSIONS = (
    re.compile(rb"(.*/)\((?:[a-z]\([0-9a-z]{24}\))+\)/([^?]+\.aspx.*)"),
    re.compile(rb"(.*/)\([0-9a-z]{24}\)/([^?]+\.aspx.*)"),
)
QUERY_SESSIONS = tuple(
    re.compile(rb"(.*)(?:" + mark + rb")(?:&(.*))?", re.I)
    for mark in (
        rb"jsessionid=[0-9a-z]{32}",
        rb"phpsessid=[0-9a-z]{32}",
        rb"sid=[0-9a-z]{32}",
        rb"aspsessionid[a-z]{8}=[a-z]{24}",
        rb"cfid=[^&]+&cftoken=[^&]+",
    )
)


def line(target: str, date: str, kind: str, status: int | None, place: Place) -> str:
    """The line for a record that has just been written: `date` is its WARC-Date, `kind` its media
    type or `REVISIT`, `status` that of a response."""
    said = {"url": target, "mime": kind}
    if status is not None:
        said["status"] = str(status)
    said["digest"] = (place.digest or "").removeprefix("sha1:")
    said |= {"length": str(place.length), "offset": str(place.offset)}
    said["filename"] = place.file or ""
    moment = re.sub("[^0-9]", "", date)[:14]
    return f"{surt(target)} {moment} {json.dumps({k: v for k, v in said.items() if v})}"


def mime(content_type: str) -> str:
    """The media type that a header names, without its parameters."""
    return END_OF_TYPE.split(content_type.strip(), maxsplit=1)[0] if content_type else UNKNOWN


def surt(target: str) -> str:
    """The key of a URL that has a host. Raises ValueError for any other."""
    found = PARTS.fullmatch(REPEATED.sub("", target))
    if not found:
        raise ValueError(f"{target!r}: is no URL with a host")
    scheme, place, path, query = found.groups()
    key = _host(place.encode()) + _port(scheme.lower(), place.encode()) + b")"
    key += _path(path.encode())
    if chosen := _query((query or "").encode()):
        key += b"?" + chosen
    return key.decode("ascii")


def _host(place: bytes) -> bytes:
    name = PORT.sub(b"", place.rpartition(b"@")[2]).strip(b"[]").lower()
    name = _unescaped(name).replace(b"..", b".").strip(b".")
    if NUMBER.fullmatch(name):
        name = _address(name)
    name = _escaped(name.lower())
    if found := WWW.match(name):
        name = name[found.end() :]
    return b",".join(reversed(name.split(b".")))


def _port(scheme: str, place: bytes) -> bytes:
    found = PORT.search(place)
    if not found or not found.group(1) or int(found.group(1)) == PORTS.get(scheme):
        return b""
    return b":%d" % int(found.group(1))


def _address(name: bytes) -> bytes:
    """An IPv4 address in its four decimal parts, whatever way it is written in."""
    try:
        if name.isdigit():
            return socket.inet_ntoa((int(name) & 0xFFFFFFFF).to_bytes(4, "big")).encode()
        return socket.inet_ntoa(socket.inet_aton(name.decode())).encode()
    except OSError:
        return name


def _path(path: bytes) -> bytes:
    kept: list[bytes] = []
    for step in _unescaped(path).split(b"/")[1:]:
        if step == b".." and kept:
            kept.pop()
        elif step != b".":
            kept.append(step)
    last = kept.pop() if kept else b""
    path = b"/" + b"".join(step + b"/" for step in kept if step) + last
    path = _escaped(path).lower()
    for session in PATH_SESSIONS:
        if found := session.fullmatch(path):
            path = found.group(1) + found.group(2)
    return path[:-1] if path.endswith(b"/") and len(path) > 1 else path


def _query(query: bytes) -> bytes:
    query = _escaped(_unescaped(query))
    for session in QUERY_SESSIONS:
        if found := session.fullmatch(query):
            query = found.group(1) + (found.group(2) or b"")
    pairs = sorted(pair.split(b"=", 1) for pair in query.lower().split(b"&"))
    return b"&".join(b"=".join(pair) for pair in pairs)


def _unescaped(text: bytes) -> bytes:
    while b"%" in text and (plain := unquote_to_bytes(text)) != text:
        text = plain
    return text


def _escaped(text: bytes) -> bytes:
    return text if PLAIN.fullmatch(text) else quote_from_bytes(text, safe=SAFE).encode()
