"""A dump of 3,000 posts in every form, and the links that are made of it."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import zstandard

from pipeline import config as settings
from pipeline import make, state
from pipeline.config import Config
from pipeline.local import Local

POSTS = [
    {
        "id": f"p{n:x}",
        "url": f"http://site-{n % 37}.com/page-{n % 211}?id={n % 5}",
        "score": n % 9,
        "created_utc": 1_300_000_000 + 1000 * n,
        "subreddit": f"s{n % 7}",
        "over_18": n % 50 == 0,
    }
    for n in range(3000)
]
LINES = [json.dumps(post).encode() for post in POSTS]
CONTENT = b"\n".join(LINES) + b"\n"


def pack(path: Path) -> Path:
    """All posts in the form that the name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(POSTS), path)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.Table.from_pylist(POSTS), path)
    elif path.name.endswith("frames.zst"):
        packer = zstandard.ZstdCompressor()
        pieces = range(0, len(CONTENT), 7000)  # lines go across the frames
        path.write_bytes(b"".join(packer.compress(CONTENT[at : at + 7000]) for at in pieces))
    elif path.suffix == ".zst_blocks":
        path.write_bytes(b"".join(block(LINES[at : at + 64]) for at in range(0, len(LINES), 64)))
    else:
        packed = {
            ".gz": gzip.compress,
            ".bz2": bz2.compress,
            ".xz": lzma.compress,
            ".zst": zstandard.ZstdCompressor().compress,
            ".ndjson": bytes,
        }
        path.write_bytes(packed[path.suffix](CONTENT))
    return path


def block(rows: list[bytes]) -> bytes:
    """One block of a .zst_blocks file."""
    places, at = b"", 0
    for row in rows:
        places += at.to_bytes(4, "little") + len(row).to_bytes(4, "little")
        at += len(row)
    content = len(rows).to_bytes(4, "little") + places + b"".join(rows)
    coded = zstandard.ZstdCompressor().compress(content)
    return len(coded).to_bytes(4, "little") + coded


def recipe(folder: Path, *dumps: object, **crawl: object) -> Config:
    words = [f"crawl.{key}={json.dumps(value)}" for key, value in crawl.items()]
    path = folder / "recipe.toml"
    path.write_text(
        f'root = "{folder}/run"\n[crawl]\nlive = false\nshards = 4\n'
        f"submissions = {json.dumps([str(dump) for dump in dumps])}\n"
    )
    return settings.load(path, words)


def links(made: Config) -> list[str]:
    """Make the links, without Ray; what the command says."""
    return list(make.make(made, address=None, local=True, until="links", remake=None))


def told(made: Config) -> tuple[str, int, dict[str, int]]:
    """The set hash and rows of the links, and what was left out of the dumps."""
    run = state.datasets(Path(made.root))
    one = run["links"].manifest
    return one.set_hash, one.rows, run["submissions"].manifest.left_out


def plainly(folder: Path) -> tuple[str, int, dict[str, int]]:
    """What is told of the links of the plain dump: all other forms are to give the same."""
    made = recipe(folder, pack(folder / "RS.ndjson"))
    links(made)
    return told(made)


FORMS = ("ndjson", "gz", "bz2", "xz", "zst", "frames.zst", "zst_blocks", "csv", "parquet")


class Counting(Local):
    """Counts the tasks it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def wait(self, limit_s=None):
        self.ran.append(self._tasks[0].stage.makes)
        return super().wait(limit_s)
