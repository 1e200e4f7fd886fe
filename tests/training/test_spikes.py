"""What is told of a spike: the documents of its batch by their URLs, against a walk over ids."""

import hashlib
import json
import logging
import resource
import signal
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from training import batches, spikes, tokenizer, tokens
from training.config import ModelConfig, TrainingConfig
from training.engine import PlainEngine
from training.model import build
from training.run import Run

CONTEXT = 8
CONFIG = TrainingConfig(
    model=ModelConfig(layers=1, heads=1, width=4, context=CONTEXT, vocabulary=64),
    batch_tokens=CONTEXT * 4,
    steps=20,
    warmup_steps=2,
    seed=3,
)
LINE = {"step": 9, "loss": 7.25, "grad_norm": 3.5, "applied": True, "mfu": None}
Z = {"loss": 8.5, "grad_norm": 6.25}


def texts() -> dict[str, str]:
    """Documents of one to thirty words by their URLs."""
    random = np.random.default_rng(1)
    words = ["tree", "river", "stone", "cloud", "grass", "bird"]
    return {
        f"http://{number}.test/page": f"{number} " + " ".join(random.choice(words, length))
        for number, length in enumerate(random.integers(1, 30, 24))
    }


def written(folder: Path, urls: Sequence[str], name: str) -> None:
    """One shard, as the program makes them."""
    ids = [hashlib.blake2b(url.encode(), digest_size=16).digest() for url in urls]
    found = texts()
    documents = pa.table({"document_id": ids, "text": [found[url] for url in urls]})
    corpus = pa.table(
        {
            "document_id": ids,
            "url": list(urls),
            "verdict": ["kept"] * len(urls),
            "split": ["validation" if place % 6 == 5 else "train" for place in range(len(urls))],
        }
    )
    index = tokens.write(tokens.encode(documents.to_batches(), corpus.to_batches()), folder, name)
    pq.write_table(index, folder / f"{name}.parquet")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run on two shards of real tokens with their indexes."""
    shards, urls = tmp_path / "tokens", list(texts())
    written(shards, urls[:14], "00000")
    written(shards, urls[14:], "00001")
    (tmp_path / "run").mkdir()
    train, validation = (tokens.open_split(shards, split) for split in ("train", "validation"))
    engine = PlainEngine(CONFIG, build(CONFIG.sizes(), 1), torch.device("cpu"))
    return Run(
        config=CONFIG, engine=engine, train=train, validation=validation,
        tokens_folder=shards, folder=tmp_path / "run", micro=2,
    )  # fmt: skip


def walked(run: Run, windows: Sequence[int]) -> dict[str, list[int]]:
    """The URLs of the documents in these windows and which of them, id by id: whose an id is, the
    texts themselves say."""
    stream = [int(id_) for path in run.train.paths for id_ in np.fromfile(path, "<u2")]
    by_ids = {tuple(tokenizer.encode(text)): url for url, text in texts().items()}
    owners: list[str] = []
    begin = 0
    for place, id_ in enumerate(stream):
        if id_ == tokenizer.END_OF_TEXT:
            owners += [by_ids[tuple(stream[begin:place])]] * (place + 1 - begin)
            begin = place + 1
    found: dict[str, set[int]] = defaultdict(set)
    for window in windows:
        for place in range(window * CONTEXT, window * CONTEXT + CONTEXT + 1):
            found[owners[place]].add(window)
    return {url: sorted(found[url]) for url in dict.fromkeys(owners) if url in found}


def told(run: Run) -> list[dict[str, Any]]:
    lines = (run.folder / "spikes.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def windows_of(run: Run, number: int) -> list[int]:
    windows = run.train.windows(CONTEXT)
    return batches.step_windows(CONFIG.seed, number, 4, windows).tolist()


def test_every_batchs_documents_are_those_that_a_walk_finds(run: Run) -> None:
    """In order of the tokens, also of a batch that has the end of one epoch and another's begin."""
    windows = run.train.windows(CONTEXT)
    assert windows % 4, "no batch spans epochs"
    several = 2 * windows // 4
    for number in range(several):
        spikes.tell(run, number, LINE, Z)
    found = told(run)
    assert [line["batch"] for line in found] == list(range(several))
    for number, line in enumerate(found):
        wanted = walked(run, windows_of(run, number))
        assert [(d["url"], d["windows"]) for d in line["documents"]] == list(wanted.items())


def test_a_line_says_what_spiked_and_where(run: Run) -> None:
    spikes.tell(run, 2, LINE, {"loss": 8.5})
    (line,) = told(run)
    documents = line.pop("documents")
    assert line == {"step": 9, "batch": 2, "loss": 7.25, "grad_norm": 3.5, "z": {"loss": 8.5}}
    for document in documents:
        url, id_ = document["url"], document["document_id"]
        assert id_ == hashlib.blake2b(url.encode(), digest_size=16).hexdigest()


def test_a_spike_that_comes_again_after_a_crash_is_told_once(run: Run) -> None:
    for number in (2, 3, 2, 3):
        spikes.tell(run, number, LINE, Z)
    assert [line["batch"] for line in told(run)] == [2, 3]


def test_the_log_names_what_spiked_and_urls(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    number = max(range(9), key=lambda each: len(walked(run, windows_of(run, each))))
    urls = list(walked(run, windows_of(run, number)))
    spikes.tell(run, number, LINE, Z)
    (record,) = caplog.records
    message = record.getMessage()
    assert len(urls) > 5 and record.levelno == logging.WARNING
    assert message.startswith("step 9: ") and "\n" not in message
    assert "loss 7.250 is 8.5 deviations high" in message
    assert "grad_norm 3.500 is 6.2 deviations high" in message
    assert f"4 windows are of {len(urls)} documents" in message
    assert str(run.folder / "spikes.jsonl") in message
    assert [word for word in message.split() if word.startswith("http")] == urls[:5]


def removed(index: Path) -> None:
    index.unlink()


def torn(index: Path) -> None:
    index.write_bytes(index.read_bytes()[:-9])


def a_folder(index: Path) -> None:
    index.unlink()
    index.mkdir()


def failing(index: Path) -> None:
    """What the system itself refuses to open."""
    index.unlink()
    index.symlink_to(index.name)


@pytest.mark.parametrize("fault", [removed, torn, a_folder, failing])
def test_an_index_that_cannot_be_read_is_told_and_ends_no_run(
    run: Run, caplog: pytest.LogCaptureFixture, fault: Callable[[Path], None]
) -> None:
    for path in run.tokens_folder.glob("*.parquet"):
        fault(path)
    spikes.tell(run, 2, LINE, Z)
    why, spike = (record.getMessage() for record in caplog.records)
    assert why.startswith("whose tokens they were cannot be told: ") and ".parquet" in why
    assert spike.startswith("step 9: loss 7.250 is 8.5 deviations high")
    (line,) = told(run)
    assert (line["step"], line["batch"], line["z"], line["documents"]) == (9, 2, Z, [])


def test_a_disk_that_does_not_take_it_is_an_error(run: Run) -> None:
    (run.folder / "spikes.jsonl").mkdir()
    with pytest.raises(OSError, match=r"spikes\.jsonl"):
        spikes.tell(run, 2, LINE, Z)


def test_a_spike_for_whose_line_there_is_no_room_leaves_those_before_it(run: Run) -> None:
    spikes.tell(run, 3, LINE, Z)
    before = (run.folder / "spikes.jsonl").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            spikes.tell(run, 4, LINE, Z)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, heard)
    assert (run.folder / "spikes.jsonl").read_bytes() == before
    spikes.tell(run, 4, LINE, Z)
    lines = (run.folder / "spikes.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["batch"] for line in lines] == [3, 4]


def test_what_is_damaged_is_passed_over(run: Run) -> None:
    spikes.tell(run, 3, LINE, Z)
    path = run.folder / "spikes.jsonl"
    path.write_bytes(b"\x00garbage\n" + path.read_bytes() + b'{"half": ')
    spikes.tell(run, 3, LINE, Z)
    spikes.tell(run, 4, LINE, Z)
    first, *lines = path.read_bytes().splitlines()
    assert first == b"\x00garbage" and [json.loads(line)["batch"] for line in lines] == [3, 4]
