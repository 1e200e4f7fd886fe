"""What the child process answers, asked without the process."""

import io
import os
import select
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from crawl import extractor
from crawl.extractor import Reply, Request
from crawl.schema import DocumentOutcome

ROOT = Path(__file__).parents[2]
TEXT = "Every word of this sentence belongs to the main text of the page, as any reader can see. "
PAGE = f"<html><body><article><p>{TEXT * 5}</p></article></body></html>".encode()


def request(body: bytes, coding: str | None = None, limit: int = 100_000) -> Request:
    return Request(body, "http://a.com/", "text/html", coding, limit, 200.0, 5)


@pytest.mark.parametrize(
    ("asked", "outcome"),
    [
        (request(PAGE), DocumentOutcome.OK),
        (request(b""), DocumentOutcome.EMPTY),
        (request(b"<html><script>x</script>"), DocumentOutcome.EMPTY),
        (request(b"\xff\x00", "br"), DocumentOutcome.UNDECODABLE),
        (request(PAGE, limit=100), DocumentOutcome.TOO_LARGE),
    ],
)
def test_outcomes(asked: Request, outcome: DocumentOutcome) -> None:
    reply = extractor.answer(asked)
    assert reply.outcome == outcome
    assert (reply.text is None) == (outcome != DocumentOutcome.OK)


def test_a_text_does_not_depend_on_what_was_read_before() -> None:
    assert len({extractor.answer(request(PAGE)).text for _ in range(6)}) == 1


@pytest.mark.parametrize("date", ["1999-12-31", "2024-05-06", "2090-01-02"])
def test_a_date_does_not_depend_on_today_s(date: str) -> None:
    meta = f'<head><meta property="article:published_time" content="{date}T10:00:00Z"></head>'
    assert (
        extractor.answer(request(PAGE.replace(b"<body>", meta.encode() + b"<body>"))).date == date
    )


def test_a_message_that_breaks_off_is_no_message() -> None:
    stream = io.BytesIO()
    extractor.send(stream, Reply(DocumentOutcome.EMPTY))
    whole = stream.getvalue()
    for size in range(len(whole)):
        assert extractor.receive(io.BytesIO(whole[:size]).read) is None
    assert extractor.receive(io.BytesIO(whole).read) == whole[4:]


def test_the_process_answers_in_order_and_ends_with_its_input() -> None:
    stream = io.BytesIO()
    for body in (b"", PAGE):
        extractor.send(stream, request(body))
    run = subprocess.run(
        [sys.executable, "-m", "crawl.extractor", "2048", str(os.getpid())],
        input=stream.getvalue(), capture_output=True, check=True, cwd=ROOT,
    )  # fmt: skip
    replies = io.BytesIO(run.stdout)
    assert extractor.receive(replies.read) == b"", "no hello"
    outcomes = []
    while (data := extractor.receive(replies.read)) is not None:
        outcomes.append(msgspec.msgpack.decode(data, type=Reply).outcome)
    assert outcomes == [DocumentOutcome.EMPTY, DocumentOutcome.OK]


ORPHAN = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "crawl.extractor", "2048", str(os.getpid())],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
from crawl import extractor
extractor.send(child.stdin, extractor.Request(b"", "u", None, None, 9, 9.0, 9))
extractor.receive(child.stdout.read)
extractor.receive(child.stdout.read)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a process is watched by Linux's pidfd")
def test_it_ends_with_its_parent() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert parent.stdin is not None and parent.stdout is not None
    watched = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    ended, _, _ = select.select([watched], [], [], 20.0)
    os.close(watched)
    parent.stdin.close()
    parent.stdout.close()
    assert ended
