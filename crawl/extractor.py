"""The child process that turns one page's bytes into text, within bounds of memory and time:
`python -m crawl.extractor MEGABYTES PARENT`, the parent being a process id.

All work on hostile bytes is done here, so that a crash, a hang or a bomb costs one document. Speaks
messages of msgpack, each after its length in four bytes, over stdin and stdout: first an empty one,
when it is ready to be asked, then the replies. Ends with its input or with its parent. What it
answers depends on the request alone: trafilatura's own memory of texts (`deduplicate`) is off, and
so are dates that depend on today's.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import IO

import msgspec

from crawl import content
from crawl.schema import DocumentOutcome

NAME = "trafilatura-fast"
LENGTH = struct.Struct(">I")
PR_SET_PDEATHSIG = 1
WARM = (
    "<html><head><title>One</title><meta name=author content=Two></head><body><article><h1>One</h1>"
    "<p>The first sentence of a page that is only read to be ready for the next one.</p></article>"
    "<p>Posted on 2001-02-03</p></body></html>"
)
HELLO = LENGTH.pack(0)
LAST_DATE = "2099-12-31"  # trafilatura's own is today: the same page would change with the clock


class Request(msgspec.Struct, frozen=True):
    """One page as it was archived, how long it may be and how many times it may grow when it is
    decoded; `cpu_s` is the processor time it may cost."""

    body: bytes
    url: str
    content_type: str | None
    content_encoding: str | None
    max_decoded_bytes: int
    max_ratio: float
    cpu_s: int


class Reply(msgspec.Struct, frozen=True):
    """What became of it."""

    outcome: DocumentOutcome
    text: str | None = None
    title: str | None = None
    author: str | None = None
    date: str | None = None


def send(stream: IO[bytes], message: Request | Reply) -> None:
    """Writes one message."""
    data = msgspec.msgpack.encode(message)
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(read: Callable[[int], bytes]) -> bytes | None:
    """The bytes of the next message; None where the other side has gone."""
    head = read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    data = read(size)
    return data if len(data) == size else None


def answer(request: Request) -> Reply:
    """The text of a page. Raises whatever the parsers raise: the process is there to be lost."""
    try:
        plain = content.decode(
            request.body, request.content_encoding, request.max_decoded_bytes, request.max_ratio
        )
    except content.TooLarge:
        return Reply(DocumentOutcome.TOO_LARGE)
    except content.Undecodable:
        return Reply(DocumentOutcome.UNDECODABLE)
    return _extracted(content.text(plain, request.content_type), request.url)


def _extracted(html: str, page_url: str) -> Reply:
    # Imported late: it takes most of a second, and the parent of the process has no use for it.
    from trafilatura import bare_extraction
    from trafilatura.settings import Document

    found = bare_extraction(
        html.replace("\x00", ""),
        url=page_url,
        fast=True,
        include_comments=False,
        deduplicate=False,
        with_metadata=True,
        date_extraction_params={
            "original_date": True, "extensive_search": False, "max_date": LAST_DATE
        },
    )  # fmt: skip
    if not isinstance(found, Document) or not (found.text or "").strip():
        return Reply(DocumentOutcome.EMPTY)
    return Reply(
        DocumentOutcome.OK,
        text=_valid(found.text),
        title=_valid(found.title),
        author=_valid(found.author),
        date=_valid(found.date),
    )


def _valid(text: str | None) -> str | None:
    """Text without lone surrogates, which no UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode() if text else None


def main(megabytes: int, parent: int) -> None:
    """Answers requests until there are no more. `parent` is the id of the process that asks."""
    _die_with(parent)
    # What a library prints must not be taken for a reply.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _bound_memory(megabytes)
    _extracted(WARM, "http://localhost/")  # all imports are paid for before a page's time runs
    _say_hello(replies)
    decoder = msgspec.msgpack.Decoder(Request)
    while (data := receive(sys.stdin.buffer.read)) is not None:
        request = decoder.decode(data)
        _bound_cpu(request.cpu_s)
        send(replies, answer(request))


def _say_hello(replies: IO[bytes]) -> None:
    replies.write(HELLO)
    replies.flush()
    # Until now stderr told the parent why there is no hello. From now on it could only fill a disk.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we could ask to be told
        sys.exit(0)


def _bound_memory(megabytes: int) -> None:
    if sys.platform == "linux":  # elsewhere the limit is refused, or means something else
        limit = _allowed(resource.RLIMIT_AS, megabytes * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _bound_cpu(seconds: int) -> None:
    """From now on this many processor seconds; then SIGXCPU ends the process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime) + seconds + 1
    hardest = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (_allowed(resource.RLIMIT_CPU, limit), hardest))


def _allowed(kind: int, wanted: int) -> int:
    """As much of a resource as is wanted and the machine's owner lets us have."""
    hardest = resource.getrlimit(kind)[1]
    return wanted if hardest == resource.RLIM_INFINITY else min(wanted, hardest)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
