"""What reading and merging hold in memory, whatever the file: measured in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MIB = 1 << 20

# Not getrusage's peak where there is another: a process inherits that of who started it.
MOST = """
import resource
from pathlib import Path

def most():
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
"""

READ = """
import sys
from pathlib import Path
import zstandard
from crawl import repeats, submissions
from crawl.config import CrawlConfig
from crawl.schema import SUBMISSIONS
from crawl.streams import Part
from pipeline.manifest import Tally
from pipeline.scatter import Scatter
from pipeline.stage import Account

path, rows = Path(sys.argv[1]), int(sys.argv[2])
host = {"one": lambda n: "site", "many": lambda n: f"site-{n % 9973}"}[sys.argv[3]]
window = zstandard.ZstdCompressionParameters(window_log=31, compression_level=1)
packer = zstandard.ZstdCompressor(compression_params=window).compressobj()
text = "x" * 700
content = 0
with path.open("wb") as file:
    for start in range(0, rows, 10000):
        lines = (
            f'{{"id":"{n:x}","url":"http://{host(n)}.com/{n}","score":{n % 50},'
            f'"created_utc":1300000000,"subreddit":"s{n % 97}","title":"{text}"}}'
            for n in range(start, start + 10000)
        )
        block = "\\n".join(lines).encode() + b"\\n"
        content += len(block)
        file.write(packer.compress(block))
    file.write(packer.flush())
del packer
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")  # what was the most until now counts no more
account = Account()
out = Scatter(path.with_suffix(".parquet"), SUBMISSIONS, "link_id", 64)
for batch in submissions.read(Part(str(path)), CrawlConfig(), account):
    out.add(batch, account)
out.finish(lambda table: repeats.combine(table, account.left_out), Tally((), ()).watch)
print(most() - min(content, 2**31))
"""

MERGE = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa
from crawl import links
from crawl.config import CrawlConfig
from crawl.schema import SUBMISSIONS
from pipeline.manifest import Tally
from pipeline.scatter import Scatter
from pipeline.stage import Account
from pipeline.store import Dataset

folder, rows, shards, files = Path(sys.argv[1]), int(sys.argv[2]), 64, 4
chance = np.random.default_rng(1)
for file in range(files):
    out = Scatter(folder / f"{file:05d}.parquet", SUBMISSIONS, "link_id", shards)
    for start in range(0, rows // files, 50000):
        count = min(50000, rows // files - start)
        ids = chance.integers(0, 2**64, (count, 2), np.uint64)
        ids[: count // 10] = ids[0]  # one address that is posted again and again
        if sys.argv[3] == "one":  # whose domain is one id range
            ids[:, 0] &= np.uint64(2**64 - 2**32)
        keys = [f"http://site-{a % 100000}.com/a/page/of/some/length/{a}" for a in ids[:, 0]]
        batch = pa.RecordBatch.from_arrays(
            [
                pa.FixedSizeBinaryArray.from_buffers(
                    pa.binary(16), count, [None, pa.py_buffer(ids.tobytes())]
                ),
                pa.array(keys), pa.array(keys),
                pa.array([f"{file}x{start + n:x}" for n in range(count)]),
                pa.nulls(count, pa.string()),
                pa.array(chance.integers(0, 9, count), pa.int32()),
                pa.array(np.full(count, 15000), pa.int32()).cast(pa.date32()),
                pa.array(["books"] * count),
            ],
            schema=SUBMISSIONS,
        )
        out.add(batch, Account())
    out.finish(None, Tally((), ()).watch)
dataset = Dataset("submissions", "f", folder, shards, scattered=True)
posts = 0
for shard in range(shards):
    for batch in links.merge(dataset.read(shard), CrawlConfig()):
        posts += len(batch["submissions"].flatten())
assert posts == rows, posts
print(most())
"""

REPLAY = """
import datetime, sys
from collections import Counter
from pathlib import Path
import numpy as np, pyarrow as pa
from crawl import archives, canonical, capture, warc
from crawl.config import CrawlConfig
from crawl.sought import COLUMNS

folder, links, wanted = Path(sys.argv[1]), int(sys.argv[2]), "http://site.com/page"
with (folder / "x.warc.gz").open("wb") as file:
    moment = datetime.datetime(2016, 1, 1, tzinfo=datetime.UTC)
    capture.write(file, warc.Exchange(wanted, moment, warc.Answer(200, "OK", (), b"<p>x")))
chance = np.random.default_rng(1)
ours = canonical.link_id(wanted)

def batches():
    for start in range(0, links, 1000):
        domain = np.full(1000, start, ">u4").view(np.uint8).reshape(1000, 4)
        rest = np.sort(chance.integers(0, 2**64, 1000, np.uint64)).astype(">u8")
        rest = rest.view(np.uint8).reshape(1000, 8)
        tail = chance.integers(0, 256, (1000, 4), np.uint8)
        ids = np.concatenate([domain, rest, tail], 1).tobytes()
        if start == links // 2:
            ids = ids[:-16] + ours
        yield pa.RecordBatch.from_arrays(
            [
                pa.FixedSizeBinaryArray.from_buffers(
                    pa.binary(16), 1000, [None, pa.py_buffer(ids)]
                ),
                pa.array([f"site-{start}.com"] * 1000),
                pa.array(np.full(1000, 15000), pa.int32()).cast(pa.date32()),
                pa.array(["kept"] * 1000),
            ],
            names=list(COLUMNS),
        )

counts = Counter()
before = most()
archives.replay(
    str(folder / "x.warc.gz"), batches(), str(folder / "ledger"), CrawlConfig(), counts
)
assert counts == {"copied": 1}, counts
print(most() - before)
"""


def peak(code: str, *words: object) -> int:
    """The number that a process which runs this prints."""
    done = subprocess.run(
        [sys.executable, "-c", MOST + code, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("domains", ["many", "one"])
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is told in /proc alone")
def test_a_reader_holds_no_more_than_the_window_and_500_mb(tmp_path: Path, domains: str) -> None:
    """A file of 0.8 GB that is packed a hundredfold; its window is the one of Reddit's dumps, and
    all of it is held, as the format has it."""
    assert peak(READ, tmp_path / "RS.zst", 1_000_000, domains) < 500 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("domains", ["many", "one"])
def test_five_million_submissions_are_merged_in_half_of_their_size(
    tmp_path: Path, domains: str
) -> None:
    """Their columns are some 1.2 GB."""
    assert peak(MERGE, tmp_path, 5_000_000, domains) < 700 * MIB


@pytest.mark.slow
def test_five_million_links_are_looked_for_in_eighty_bytes_each(tmp_path: Path) -> None:
    """Whatever their URLs: twenty bytes are held, the rest while they are read."""
    assert peak(REPLAY, tmp_path, 5_000_000) < 400_000_000
