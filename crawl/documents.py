"""Extracts the main text of pages, each in a child process that may die over it.

One row a page, in the order of the pages. The result depends on the page alone: not on its
neighbours or on the size of a batch. Where a process that had read other pages is lost over one,
that page is read once more by a fresh process, and only that verdict counts.

What a segment of the ledger holds can be extracted before the crawl is done: `prepare` keeps such
texts, `extract` takes what it finds of them, and the rows are the same with them or without.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Self

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crawl import extractor, outcomes, warc
from crawl.account import Account, fault
from crawl.config import CrawlConfig
from crawl.extractor import Reply, Request
from crawl.schema import DOCUMENTS, OBSERVATIONS, DocumentOutcome, PageOutcome
from crawl.texts import Texts, asked, path_of, write

VERSION = 3

BATCH_ROWS = 1024
BATCH_CHARACTERS = 16 * 1024 * 1024
WALL_FACTOR = 10
"""Seconds on the wall for one processor second, before a child that does nothing is ended."""

START_S = 300.0
"""Seconds that a child may take until it can be asked, on a machine that is busy otherwise."""
LOST = frozenset({DocumentOutcome.CRASH, DocumentOutcome.TIMEOUT})
STDERR_TAIL = 2000

Row = dict[str, Any]


class CannotStart(RuntimeError):
    """The child process died before it could be asked: none of its documents are to blame."""


def extract(
    pages: Iterable[pa.RecordBatch],
    observations: str,
    config: CrawlConfig,
    prepared: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """One document for each page. `observations` is the folder of the ledger, `prepared` that of
    the texts that are there already, if any.

    Raises ValueError or FileNotFoundError where the ledger lacks a response that a page names, and
    CannotStart where no process can be had to read it.
    """
    folder, texts = Path(observations), Texts(Path(prepared)) if prepared else None
    with Child(config) as child:
        rows = (
            _document(page, texts, folder, child, config)
            for batch in pages
            for page in batch.to_pylist()
        )
        yield from _batches(rows)


def prepare(segment: str, account: Account, *, prepared: str, config: CrawlConfig) -> None:
    """Extracts the texts of a whole segment of the ledger, named by its Parquet file, into the
    folder `prepared`, if they are not there.

    Tells `account` what it leaves out, all of which `extract` looks at again should it be needed:
    what cannot be read, and pages that cost a process, which may fare better then.
    """
    rows = Path(segment)
    path = path_of(Path(prepared), f"{rows.stem}.warc.gz")
    if path.exists():
        return
    try:
        table = pq.read_table(rows, schema=OBSERVATIONS)
    except (OSError, pa.ArrowException) as error:
        fault(account, f"{segment}: {error}", "unreadable")
        return
    good = outcomes.obeyed(table, config.obey).filter(pc.field("outcome") == PageOutcome.OK)
    with Child(config) as child:
        pages = (page for batch in good.to_batches() for page in batch.to_pylist())
        replies = ((page, _prepared(page, rows.parent, child, config, account)) for page in pages)
        write(path, ((page, reply) for page, reply in replies if reply))


def _prepared(
    page: Row, folder: Path, child: "Child", config: CrawlConfig, account: Account
) -> Reply | None:
    try:
        response = _response(page, folder)
    except (OSError, ValueError) as error:
        fault(account, f"{page['url']}: {error}", "unreadable")
        return None
    reply = child.ask(_request(page, response, config))
    if reply.outcome in LOST:
        account.left_out[reply.outcome] += 1
        return None
    return reply


def _document(
    page: Row, texts: Texts | None, folder: Path, child: "Child", config: CrawlConfig
) -> Row:
    identity = {"document_id": page["link_id"], "url": page["url"]}
    if page["outcome"] != PageOutcome.OK:
        return identity | {"outcome": DocumentOutcome.NO_PAGE}
    reply = texts.find(page) if texts else None
    reply = reply or child.ask(_request(page, _response(page, folder), config))
    return identity | msgspec.structs.asdict(reply) | {"extractor": extractor.NAME}


def _response(page: Row, folder: Path) -> warc.Answer:
    place = warc.Place(page["warc_offset"], page["warc_length"])
    return warc.read(folder / page["warc_file"], place)


def _request(page: Row, response: warc.Answer, config: CrawlConfig) -> Request:
    return Request(
        body=response.body,
        url=asked(page),
        content_type=page["content_type"],
        content_encoding=response.header("Content-Encoding"),
        max_decoded_bytes=config.max_decoded_bytes,
        max_ratio=config.max_ratio,
        cpu_s=config.extract_cpu_s,
    )


def _batches(rows: Iterator[Row]) -> Iterator[pa.RecordBatch]:
    batch: list[Row] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += len(row.get("text") or "")
        if len(batch) >= BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield pa.RecordBatch.from_pylist(batch, DOCUMENTS)
            batch, characters = [], 0
    if batch:
        yield pa.RecordBatch.from_pylist(batch, DOCUMENTS)


class Child:
    """A process that extracts, started when first asked and again after it was lost."""

    def __init__(self, config: CrawlConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._megabytes = config.extract_memory_mb
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._used = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ask(self, request: Request) -> Reply:
        """The child's reply; where even a fresh one gives none, the outcome says why."""
        reply = self._ask(request)
        if reply.outcome in LOST and self._used:
            reply = self._ask(request)
        return reply

    def _ask(self, request: Request) -> Reply:
        """The reply; without one the child is gone, and `_used` tells whether it was fresh."""
        self._used = self._process is not None
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        deadline = self._clock() + request.cpu_s * WALL_FACTOR
        try:
            extractor.send(process.stdin, request)
            data = extractor.receive(lambda size: self._read(process, size, deadline))
        except BrokenPipeError:
            data = None
        except TimeoutError:
            self.end()
            return Reply(DocumentOutcome.TIMEOUT)
        if data is not None:
            return msgspec.msgpack.decode(data, type=Reply)
        timed_out = self.end() == -signal.SIGXCPU
        return Reply(DocumentOutcome.TIMEOUT if timed_out else DocumentOutcome.CRASH)

    def end(self) -> int | None:
        """Ends the child; returns its exit status, which is its own where it had died."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None and process.stdout is not None
        process.stdout.close()
        # A living child ends with its input. To a dead one, what is left cannot be written.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            return process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        home = str(Path(__file__).parents[1])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "crawl.extractor", str(self._megabytes), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            )
            self._await_hello(process, errors)
        return process

    def _await_hello(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        deadline = self._clock() + START_S
        said = None
        with contextlib.suppress(TimeoutError):  # said as CannotStart below
            said = extractor.receive(lambda size: self._read(process, size, deadline))
        if said is None:
            self._process = process
            status = self.end()
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - STDERR_TAIL))
            tail = errors.read().decode("utf-8", "replace").strip()
            raise CannotStart(f"the extractor cannot start (exit status {status}): {tail}")

    def _read(self, process: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        data = bytearray()
        while len(data) < size:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - self._clock()))
            if not ready:
                raise TimeoutError
            chunk = os.read(descriptor, size - len(data))
            if not chunk:
                break
            data += chunk
        return bytes(data)
