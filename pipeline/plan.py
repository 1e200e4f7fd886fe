"""The story: ten datasets, each made of those above it.

    submissions -> links -> pages -> documents -> signals
                                         |            |
                                     signatures       |
                                         |            |
                                       pairs          |
                                         |            |
                                     duplicates -> corpus -> tokens

`duplicates` looks up signals too: only what the policy may keep can be a kept twin. The first file
to read. Everything it names is a library that knows nothing of the others.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from crawl import (
    archives,
    canonical,
    documents,
    indexes,
    links,
    pages,
    parts,
    refusals,
    rounds,
    service,
    signals,
    sought,
    submissions,
)
from crawl import schema as crawled
from dedup import corpus, duplicates, pairs, signatures
from dedup import schema as deduped
from pipeline import adapters, leaves
from pipeline.config import Config, content
from pipeline.failures import BadInput
from pipeline.fingerprint import manner
from pipeline.leaves import Leaf
from pipeline.stage import Ahead, Item, Stage, Step
from pipeline.store import digest_of
from training import schema as trained
from training import tokens

READERS = ("brotli", "charset-normalizer", "zstandard",
           "trafilatura", "lxml", "justext", "htmldate", "courlan")  # fmt: skip
"""Libraries whose version changes a document's text or date."""


def plan(config: Config) -> tuple[Stage, ...]:
    """The ten stages of this recipe, in order. Reads the dumps' and archives' digests."""
    cache = Path(config.root) / "leaves.json"
    dumps, warcs = leaves_of(config)
    read = leaves.digest(dumps, cache)
    return stages(config, _parts(read, cache), leaves.digest(warcs, cache))


def leaves_of(config: Config) -> tuple[list[str], list[str]]:
    """The files of dumps and of archives; BadInput where a name finds none."""
    dumps = leaves.find(config.crawl.submissions, "crawl.submissions")
    if not dumps:
        raise BadInput("crawl.submissions: name at least one dump or list of URLs")
    return dumps, leaves.find(config.crawl.archives, "crawl.archives")


def _parts(dumps: Sequence[Leaf], cache: Path) -> tuple[Item, ...]:
    """What the tasks read: each dump, or where it can be cut, each part of it."""
    places = leaves.cut(dumps, cache, parts.RULE, parts.places)
    return tuple(
        Item(part, dump.path, size, f"{dump.digest} {part.start} {part.end}", dump.stamp)
        for dump in dumps
        for part, size in parts.between(dump.path, dump.bytes, places[dump.path])
    )


def stages(config: Config, dumps: tuple[Item, ...], warcs: Sequence[Leaf]) -> tuple[Stage, ...]:
    """The ten stages, given what they begin with."""
    observations = str(Path(config.root) / "observations")
    return (
        _submissions(config, dumps),
        _links(config),
        _pages(config, warcs, observations),
        _documents(config, observations),
        _signals(config),
        _signatures(config),
        _pairs(config),
        _duplicates(config),
        _corpus(config),
        _tokens(config),
    )


def _submissions(config: Config, dumps: tuple[Item, ...]) -> Stage:
    return Stage(
        makes="submissions",
        version=submissions.VERSION,
        main=Step(
            run=partial(adapters.read, config=config),
            schema=crawled.SUBMISSIONS,
            over=dumps,
            scatter="link_id",
            combine=adapters.combine,
            accounts=True,
            memory_gb=2.5,  # a zstd window of 2^31 bytes, and 500 MB
        ),
        settings=content(config, "submissions")
        | {"crawl.url": canonical.SCHEME, "crawl/parts.py": parts.RULE},
        libraries=("idna", "publicsuffixlist"),
        leaves=tuple(dump.content for dump in dumps),
    )


def _links(config: Config) -> Stage:
    return Stage(
        makes="links",
        version=links.VERSION,
        main=Step(
            run=partial(links.merge, config=config.crawl),
            schema=crawled.LINKS,
            each=("submissions",),
        ),
        settings=content(config, "links")
        | {"crawl/refused_domains.txt": digest_of(refusals.DOMAIN_FILE)},
        counted=("outcome",),
    )


def _pages(config: Config, archived: Sequence[Leaf], observations: str) -> Stage:
    return Stage(
        makes="pages",
        version=pages.VERSION,
        before=(*_archived(config, archived, observations), *_asked(config, observations)),
        main=Step(
            run=partial(adapters.fetch, observations=observations, config=config.crawl),
            schema=crawled.PAGES,
            each=("links",),
        ),
        settings=content(config, "pages")
        | {"crawl/archives.py": archives.VERSION, "crawl/indexes.py": indexes.VERSION},
        leaves=tuple(one.digest for one in archived),
        counted=("outcome", "source"),
        volatile=crawled.VOLATILE["pages"],
    )


def _archived(config: Config, archived: Sequence[Leaf], observations: str) -> tuple[Step, ...]:
    """Archives into the ledger: those that are read whole, then what indexes say stands where."""
    named = [one.item for one in archived if indexes.is_index(one.path)]
    warcs = tuple(one.item for one in archived if one.item not in named)
    whole = Step(
        run=partial(adapters.replay, observations=observations, config=config),
        schema=None,
        over=warcs,
        whole=("links",),
        columns={"links": sought.COLUMNS},
        accounts=True,
        memory_gb=2.0,  # twenty bytes a link, sixteen a capture of the ledger
    )
    if not named:
        return (whole,)
    look = Step(
        run=indexes.look,
        schema=crawled.CANDIDATES,
        over=tuple(named),
        whole=("links",),
        columns={"links": sought.COLUMNS},
        scatter="link_id",
        combine=indexes.nearest,
        accounts=True,
        memory_gb=2.0,
    )
    choose = Step(
        run=partial(indexes.choose, observations=observations),
        schema=crawled.CHOSEN,
        scatter="file_id",
        accounts=True,
        memory_gb=1.0,
    )
    copy = Step(
        run=partial(adapters.copy, observations=observations, config=config),
        schema=None,
        accounts=True,
        cpus=0.5,  # it waits for the archives
        memory_gb=2.0,
    )
    return whole, look, choose, copy


def _asked(config: Config, observations: str) -> tuple[Step, ...]:
    """The live web: every owner asks its own, then, round after round, what others hand over."""
    if not config.crawl.live:
        return ()
    salvage = None
    if journal := config.crawl.journal:
        salvage = partial(adapters.salvage, observations=observations, journal=journal)
    first, later = (
        Step(
            run=partial(run, observations=observations, config=config.crawl),
            schema=rounds.HANDED,
            scatter="owner_id",
            each=("links",),
            after=("links",),  # what politeness takes is told before anybody is asked
            together=service.TASKS,
            memory_gb=3.0,  # 286 bytes a link, so that one process can have ten million
            salvage=salvage,
        )
        for run in (adapters.ask, adapters.follow)
    )
    return (first, *[later] * rounds.ROUNDS)


def _documents(config: Config, observations: str) -> Stage:
    run = partial(documents.extract, observations=observations, config=config.crawl)
    stage = Stage(
        makes="documents",
        version=documents.VERSION,
        main=Step(run=run, schema=crawled.DOCUMENTS, each=("pages",)),
        settings=content(config, "documents"),
        libraries=READERS,
        counted=("outcome", "extractor"),
    )
    texts = Path(config.root) / "texts"
    prepared = str(texts / manner(stage))
    prepare = partial(documents.prepare, prepared=prepared, config=config.crawl)
    ahead = Ahead(
        ready=partial(adapters.segments, observations),
        step=Step(run=prepare, schema=None, accounts=True),
        forget=partial(shutil.rmtree, texts, ignore_errors=True),
    )
    return replace(
        stage, main=replace(stage.main, run=partial(run, prepared=prepared)), ahead=ahead
    )


def _signals(config: Config) -> Stage:
    return Stage(
        makes="signals",
        version=signals.VERSION,
        main=Step(run=signals.measure, schema=crawled.SIGNALS, each=("documents",)),
        settings=content(config, "signals"),
        libraries=("py3langid",),
        counted=("language",),
    )


def _signatures(config: Config) -> Stage:
    return Stage(
        makes="signatures",
        version=signatures.VERSION,
        main=Step(
            run=partial(signatures.sign, config=config.dedup),
            schema=deduped.SIGNATURES,
            each=("documents",),
        ),
        settings=content(config, "signatures"),
        libraries=("datasketch", "xxhash"),
    )


def _pairs(config: Config) -> Stage:
    return Stage(
        makes="pairs",
        version=pairs.VERSION,
        before=(
            Step(
                run=partial(pairs.spread, config=config.dedup),
                schema=deduped.BANDS,
                each=("signatures",),
                scatter="band_key",
            ),
        ),
        main=Step(
            run=partial(pairs.match, config=config.dedup),
            schema=deduped.PAIRS,
            lookup=("signatures", "documents"),
        ),
        settings=content(config, "pairs"),
    )


def _duplicates(config: Config) -> Stage:
    return Stage(
        makes="duplicates",
        version=duplicates.VERSION,
        main=Step(
            run=partial(duplicates.find, config=config.dedup, rules=config.corpus),
            schema=deduped.DUPLICATES,
            whole=("pairs",),
            lookup=("signals",),
            gather=True,
            scatter="document_id",
        ),
        settings=content(config, "duplicates"),
    )


def _corpus(config: Config) -> Stage:
    return Stage(
        makes="corpus",
        version=corpus.VERSION,
        main=Step(
            run=partial(corpus.keep, config=config.corpus),
            schema=deduped.CORPUS,
            each=("documents", "signals", "duplicates"),
            columns={"documents": ("document_id", "url", "outcome")},
        ),
        settings=content(config, "corpus"),
        counted=("verdict", "rule", "split"),
    )


def _tokens(config: Config) -> Stage:
    return Stage(
        makes="tokens",
        version=tokens.VERSION,
        main=Step(
            run=tokens.encode,
            schema=trained.TOKENS,
            each=("documents", "corpus"),
            columns={
                "documents": ("document_id", "text"),
                "corpus": ("document_id", "url", "verdict", "split"),
            },
            sink=tokens.write,
        ),
        settings=content(config, "tokens"),
        libraries=("gigatoken",),
        counted=("split",),
    )
