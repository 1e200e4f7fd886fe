"""What a file of links is, told by its content: a dump of submissions, a list of URLs, a table.

Rule: the kind is that of the whole file, told by its head, so that all of its parts agree.
"""

import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Literal

import msgspec

from crawl import posts, tables
from crawl.account import Account, fault
from crawl.lines import Block, blocks
from crawl.posts import NO_JSON, Post, Posts
from crawl.schema import BadInput, LeftOut
from crawl.streams import DAMAGE, Opened, Part
from crawl.url import fetch_url

Kind = Literal["dump", "list", "csv", "parquet"]

LOOK_AHEAD = 100
"""Lines by which a file is known: the first of them can be torn."""
HEAD_BYTES = 1 << 20
COMMENT = frozenset({"body", "link_id", "parent_id"})
"""Fields that every comment has, and no submission."""
PARQUET = b"PAR1"
CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
"""Nothing of a URL: a line that has one inside is of a table, or torn."""
SCORED_LINE = re.compile(rb"https?://\S+[,;|\t]-?[0-9]+\s*", re.IGNORECASE)
FEW = 3
"""Lines that all look so are not so by chance."""


def read(part: Part, account: Account, *, accept_truncated: bool) -> Iterator[Posts]:
    """The posts of a file, or of a part of one, from `account.place` on, which moves with them.

    Raises BadInput, naming the file, where it is missing, empty, damaged, or none of the kinds;
    RuntimeError, after all that could be read, where it ends too early, unless that is accepted:
    then it is counted.
    """
    try:
        yield from _posts(part, account)
    except EOFError as error:
        if not accept_truncated:
            raise _truncated(part, account) from error
        if not account.left_out[LeftOut.TRUNCATED]:  # else it was told before a kill
            where = f"{part.path}: after {part.start + account.bytes_read:,} bytes"
            fault(account, where, LeftOut.TRUNCATED)
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno:  # the disk's or the network's own
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"{part.path}: is damaged: {said}") from error


def _truncated(part: Part, account: Account) -> Exception:
    if not account.place and not part.start:
        return BadInput(f"{part.path}: ends before its first line")
    read = part.start + account.bytes_read
    return RuntimeError(
        f"{part.path}: ends too early, after {read:,} bytes; get it anew, or set "
        "crawl.accept_truncated = true to take what it holds"
    )


def kind_of(path: str) -> Kind:
    """What a file is. Raises BadInput where it is none of the kinds."""
    head = _head(path)
    if head.startswith(PARQUET):
        return "parquet"
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise BadInput(f"{path}: is UTF-16; files are read in UTF-8")
    lines = [line for line in head.splitlines() if line.strip()][:LOOK_AHEAD]
    if len(lines) >= FEW and all(map(SCORED_LINE.fullmatch, lines)):
        raise BadInput(f"{path}: is a table without names; give it a first line as url,score")
    if lines and not lines[0].startswith(b"{") and tables.separator(_text(lines[0])):
        return "csv"
    return "list" if _is_list(path, lines) else "dump"


def _posts(part: Part, account: Account) -> Iterator[Posts]:
    kind = kind_of(part.path)
    if kind == "parquet":
        yield from tables.parquet(part.path, account)
    elif kind == "csv":
        lines = _head(part.path).splitlines()
        first = next(line for line in lines if line.strip())
        yield from tables.csv(part.path, _text(first), account)
    else:
        for block in blocks(part, account.place):
            found = (_listed if kind == "list" else _dumped)(block, part, account)
            account.place, account.bytes_read = block.end, block.bytes_read
            yield found


def _dumped(block: Block, part: Part, account: Account) -> Posts:
    return Posts(posts.decoded(block, part, account))


def _listed(block: Block, part: Part, account: Account) -> Posts:
    if not block.whole:
        fault(account, posts.place_of(block, part), LeftOut.MALFORMED)
        return Posts([], scored=False, dated=False)
    rows, place = [], 0
    for line in bytes(block.lines).split(b"\n"):
        if CONTROL.search(text := line.strip()):
            fault(account, posts.place_of(block, part, place), LeftOut.MALFORMED)
        elif text:
            rows.append(Post("", url=_text(text)))
        place += len(line) + 1
    return Posts(rows, scored=False, dated=False)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _head(path: str) -> bytes:
    """The first bytes of the content, at most some more than HEAD_BYTES."""
    opened = Opened(Part(path))
    head = bytearray()
    with closing(opened.stream):
        try:
            while len(head) < HEAD_BYTES and (piece := opened.read_some()):
                head += piece
        except (EOFError, *DAMAGE) as error:
            if not head or getattr(error, "errno", None):
                raise
            # What follows is told when all is read.
    return bytes(head.removeprefix(BOM_UTF8))


def _is_list(path: str, lines: list[bytes]) -> bool:
    objects = [found for line in lines if (found := _object(line)) is not None]
    addresses = sum(fetch_url(_text(line)) is not None for line in lines)
    if objects and all(found.keys() >= COMMENT for found in objects):
        raise BadInput(f"{path}: holds comments; links are taken from submissions (RS_ files)")
    if objects or addresses:
        return addresses > len(objects)
    if any(line.startswith(b"{") for line in lines):
        return False  # a dump of which every line is damaged
    raise BadInput(f"{path}: holds neither submissions (one JSON object a line) nor URLs")


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(line)
    except NO_JSON:
        return None
    return found if isinstance(found, dict) else None
