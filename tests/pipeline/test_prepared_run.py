"""Texts of finished segments are extracted while other hosts of the crawl are still asked."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from crawl import documents, observations
from crawl.extractor import Reply, Request
from pipeline import config as settings
from pipeline import early, make, plan, state
from pipeline.config import Config
from pipeline.stage import Account, Stage
from pipeline.store import range_of
from tests import web

DEADLINE_S = 110
"""A hang ends the test; nothing else depends on it."""
TEXT = "The quick brown fox jumps over the lazy dog, as it has done for many years. "
AHEAD = "texts/*/*.texts"


def host_of(shard: int) -> str:
    """One whose pages lie in this of two ranges of ids."""
    names = (f"{name}.test" for name in "abcdefgh")
    found = ((name, web.links_to(f"http://{name}/0")["link_id"][0].as_py()) for name in names)
    return next(name for name, link_id in found if range_of(link_id, 2) == shard)


QUICK, HELD = host_of(0), host_of(1)
ADDRESSES = [*(f"http://{QUICK}/{n}" for n in range(5)), f"http://{HELD}/0"]


def page(name: str) -> str:
    return (
        f"<html><head><title>{name}</title></head><body><article><p>{TEXT * 6}</p>"
        f"<p>{name}</p></article></body></html>"
    )


@pytest.fixture
def site() -> Iterator[web.Site]:
    with web.serve() as running:
        for n in range(5):
            running.page(QUICK, f"/{n}", page(f"number {n}"))
        yield running


def hold(site: web.Site, until: Callable[[], bool]) -> list[bool]:
    """The held host answers when something is seen; what became of that, once it has."""
    seen: list[bool] = []

    async def answer(writer: asyncio.StreamWriter) -> None:
        ends = time.monotonic() + DEADLINE_S
        while not until() and time.monotonic() < ends:
            await asyncio.sleep(0.01)
        seen.append(until())
        writer.write(web.response(200, page("held").encode()))

    site.route(HELD, "/0", answer)
    return seen


def recipe(folder: Path, site: web.Site, root: Path, *words: str) -> Config:
    (folder / "links.txt").write_text("\n".join(ADDRESSES))
    path = folder / "recipe.toml"
    path.write_text(
        '[crawl]\nuser_agent = "webtext/1.0 (+https://example.org/bot)"\nmin_delay_s = 0.01\n'
        f'submissions = ["{folder}/links.txt"]\nmin_karma = 0\nshards = 2\nmin_free_gb = 0\n'
        f"timeout_s = {DEADLINE_S + 5}\nread_timeout_s = {DEADLINE_S + 5}\nmin_bytes_per_s = 0\n"
        f'tdm_file = false\nresolve = {{"*.test" = "127.0.0.1:{site.port}"}}\n'
    )
    return settings.load(path, [f"root={root}", "workers=2", *words])


def rebuild(made: Config, *, local: bool = True, until: str = "documents") -> None:
    list(make.make(made, address="local", local=local, until=until, remake=None))


def files(made: Config) -> dict[str, str]:
    """The documents, by the digest of each file."""
    found = state.datasets(Path(made.root))["documents"]
    rows = [row for batch in found.all() for row in batch.to_pylist()]
    assert Counter(row["outcome"] for row in rows) == {"ok": len(ADDRESSES)}
    return {file.name: file.digest for file in found.manifest.files}


def stage_of(made: Config) -> Stage:
    return next(stage for stage in plan.plan(made) if stage.makes == "documents")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that this process has had a child read."""
    told: list[str] = []
    whole = documents.Child.ask

    def ask(child: documents.Child, request: Request) -> Reply:
        told.append(request.url)
        return whole(child, request)

    monkeypatch.setattr(documents.Child, "ask", ask)
    return told


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is ready is asked for often."""
    monkeypatch.setattr(early, "ASK_S", 0.01)


@pytest.mark.parametrize("where", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_finished_segment_is_extracted_while_another_host_is_still_asked(
    tmp_path: Path, site: web.Site, monkeypatch: pytest.MonkeyPatch, asked: list[str], where: str
) -> None:
    made = recipe(tmp_path, site, tmp_path / "run")
    root = Path(made.root)
    seen = hold(site, lambda: any(root.glob(AHEAD)))
    rebuild(made, local=where == "local")
    assert seen == [True]
    if where == "local":
        assert sorted(asked) == sorted(ADDRESSES), "each once"
    assert not (root / "texts").exists()

    other = recipe(tmp_path, site, tmp_path / "other")
    shutil.copytree(root / "observations", tmp_path / "other" / "observations")
    monkeypatch.setattr(observations, "whole", lambda _: [])
    rebuild(other)
    assert files(other) == files(made)


def test_a_segment_may_end_before_its_range_of_ids_does(
    tmp_path: Path, site: web.Site, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    monkeypatch.setattr(observations, "SEGMENT_ROWS", 2)
    made = recipe(tmp_path, site, tmp_path / "run", "crawl.shards=1")
    seen = hold(site, lambda: len(list(Path(made.root).glob(AHEAD))) == 2)
    rebuild(made)
    assert seen == [True]
    assert sorted(asked) == sorted(ADDRESSES)
    assert len(files(made)) == 1


def test_texts_of_a_run_that_ended_early_are_taken_by_the_next(
    tmp_path: Path, site: web.Site, asked: list[str]
) -> None:
    made = recipe(tmp_path, site, tmp_path / "run")
    root = Path(made.root)
    hold(site, lambda: True)
    rebuild(made, until="pages")
    ahead = stage_of(made).ahead
    assert ahead
    items = list(ahead.ready())
    assert len(items) == 2
    ahead.step.run(items[0].of, Account())
    done = list(asked)
    assert len(done) in (1, 5) and len(list(root.glob(AHEAD))) == 1
    rebuild(made)
    assert sorted(asked) == sorted(ADDRESSES), "each once, in both runs"
    assert not (root / "texts").exists()
    assert len(files(made)) == 2


def test_a_text_is_named_by_all_that_changes_it_and_by_nothing_else(
    tmp_path: Path, site: web.Site
) -> None:
    def folder(*words: str) -> str:
        made = stage_of(recipe(tmp_path, site, tmp_path / "run", *words))
        assert isinstance(made.main.run, partial)
        return str(made.main.run.keywords["prepared"])

    other = [folder(), folder("crawl.max_decoded_bytes=2048"), folder("crawl.max_ratio=9")]
    assert len(set(other)) == 3
    assert folder("crawl.extract_cpu_s=9", "crawl.shards=7", "crawl.live=false") == other[0]


@pytest.mark.slow
def test_killed_while_it_extracts_ahead_the_run_goes_on_to_the_same_documents(
    tmp_path: Path, site: web.Site
) -> None:
    made = recipe(tmp_path, site, tmp_path / "run")
    root = Path(made.root)
    words = [sys.executable, "-m", "pipeline", "rebuild", str(tmp_path / "recipe.toml"), "--local"]
    words += ["--until", "documents", f"root={root}", "workers=2"]
    process: list[subprocess.Popen[bytes]] = []

    def killed_within() -> bool:
        if any(root.glob("texts/*/.*.tmp")) or any(root.glob(AHEAD)):
            os.kill(process[0].pid, signal.SIGKILL)
            return True
        return False

    seen = hold(site, killed_within)
    process.append(subprocess.Popen(words, cwd=Path(__file__).parents[2]))
    assert process[0].wait(DEADLINE_S) == -signal.SIGKILL and seen
    assert state.load_run(root).datasets.keys() == {"submissions", "links"}
    hold(site, lambda: True)
    rebuild(made)
    assert not (root / "texts").exists()
    assert len(files(made)) == 2
