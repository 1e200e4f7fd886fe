"""From a dump to links, per CPU second, beside a plain loop with the same duties and zstd alone.

Usage: python benchmarks/links.py [DUMP] [ROWS] [ROUNDS]. The dump is repeated to a million rows,
once as it is and once with addresses and ids of their own in every repeat; each peer then reads
both files from end to end in a process of its own, and the median of the rounds' CPU seconds
counts, without those of its imports. Ours is the rebuild itself, to links that are written and
digested.
"""

import html
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import zstandard

sys.path[0] = str(Path(__file__).parents[1])  # where `crawl` is the package, not the script here
DUMP = Path(__file__).parents[2] / "shared/data/reddit/RS_top_2013.zst"
WINDOW = 2**31
SHARDS = 16
CORES = 16
HISTORY = {"to 2017-12": 430e6, "to 2026-01": 3.4e9}
"""Submissions, by the schemas of arctic_shift."""


def main(dump: Path, rows: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = list(_lines(dump))
        repeats = -(-rows // len(lines))
        files = {
            "as it is": _same(folder / "same.zst", dump, repeats),
            "all distinct": _distinct(folder / "distinct.zst", lines, repeats),
        }
        count = repeats * len(lines)
        print(f"{count:,} submissions ({len(lines):,} repeated), median of {rounds} rounds")
        print(f"{'':14}{'peer':28}{'rows/CPU s':>12}{'ratio':>8}{'links':>10}{'karma':>14}")
        for kind, path in files.items():
            found = _measured(path, rounds)
            base = found["json + urllib.parse loop"][0]
            for peer, (seconds, told) in found.items():
                numbers = f"{told[0]:>10,}{told[1]:>14,}" if told else ""
                print(f"{kind:14}{peer:28}{count / seconds:>12,.0f}{base / seconds:>8.1f}{numbers}")
            share = found["zstd alone"][0] / found["webtext"][0]
            print(f"{kind:14}webtext reaches {share:.0%} of the ceiling, zstd alone")
            _project(count / found["webtext"][0])


def _project(rate: float) -> None:
    for span, rows in HISTORY.items():
        hours = rows / rate / CORES / 3600
        print(f"{'':14}{span}, {rows / 1e6:,.0f} M submissions: {hours:.2f} h on {CORES} cores")


def _lines(dump: Path) -> Iterator[bytes]:
    context = zstandard.ZstdDecompressor(max_window_size=WINDOW)
    with dump.open("rb") as file:
        yield from io.BufferedReader(context.stream_reader(file, read_across_frames=True))


def _same(path: Path, dump: Path, repeats: int) -> Path:
    """The dump so many times over: its frames, as they are."""
    with path.open("wb") as file:
        for _ in range(repeats):
            file.write(dump.read_bytes())
    return path


def _distinct(path: Path, lines: list[bytes], repeats: int) -> Path:
    """The posts so many times over, each time of other ids and addresses."""
    packer = zstandard.ZstdCompressor().compressobj()
    with path.open("wb") as file:
        for number in range(repeats):
            file.write(packer.compress(b"".join(_other(line, number) for line in lines)))
        file.write(packer.flush())
    return path


def _other(line: bytes, number: int) -> bytes:
    """The same post under another id, with an address of another page of the same host."""
    post = json.loads(line)
    post["id"] += f"x{number:x}"
    if str(post.get("url")).startswith("http"):
        head, mark, rest = post["url"].partition("?")
        slash = "" if head.count("/") > 2 else "/"
        post["url"] = f"{head}{slash}{number:x}{mark}{rest}"
    return json.dumps(post, separators=(",", ":")).encode() + b"\n"


def _measured(path: Path, rounds: int) -> dict[str, tuple[float, list[int]]]:
    """CPU seconds of each peer, and the number of its links and the sum of their karma."""
    found = {}
    for peer in PEERS:
        told = [
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--one", peer, str(path)],
                    check=True,
                    capture_output=True,
                ).stdout
            )
            for _ in range(rounds)
        ]
        found[peer] = statistics.median(seconds for seconds, _ in told), told[0][1]
    return found


def zstd_alone(path: Path) -> list[int]:
    context = zstandard.ZstdDecompressor(max_window_size=WINDOW)
    with path.open("rb") as file:
        reader = context.stream_reader(file, read_across_frames=True)
        buffer = bytearray(1 << 17)
        while reader.readinto(buffer):  # type: ignore[attr-defined]
            pass
    return []


def plain_loop(path: Path) -> list[int]:
    """What a careful programmer writes first: every duty of ours, line by line, in dictionaries."""
    rules = Rules()
    links: dict[bytes, dict[str, Any]] = {}
    for line in _lines(path):
        try:
            post = json.loads(line)
        except ValueError:
            continue
        if post.get("is_self") or post.get("over_18") or post.get("promoted"):
            continue
        if post.get("removed_by_category") or post.get("score") is None or not post.get("url"):
            continue
        address = html.unescape(post["url"]).strip()
        key = rules.key(address)
        if key is None:
            continue
        name = rules.link_id(key)
        link = links.setdefault(name, {"url_key": key, "posts": {}, "groups": set(), "best": None})
        day = int(float(post["created_utc"])) // 86400
        link["posts"][post["id"]] = max(post["score"], link["posts"].get(post["id"], -(2**31)))
        link["groups"].add(post.get("subreddit"))
        link["first_seen"] = min(day, link.get("first_seen", day))
        if link["best"] is None or (-post["score"], day) < link["best"][:2]:
            link["best"] = (-post["score"], day, address)
    karma = 0
    with tempfile.TemporaryFile("w") as file:
        for name, link in sorted(links.items()):
            address, total = link["best"][2], sum(link["posts"].values())
            karma += total
            row = {"link_id": name.hex(), "fetch_url": address, "karma": total}
            row |= {"submissions": sorted(link["posts"]), "subreddits": sorted(link["groups"])}
            row |= {"url_key": link["url_key"], "first_seen": link["first_seen"]}
            row["outcome"] = "below_karma" if total < 3 else rules.refusal(address) or "kept"
            file.write(json.dumps(row) + "\n")
    return [len(links), karma]


class Rules:
    """Sameness and refusals with urllib.parse, after the program's own data files."""

    def __init__(self) -> None:
        from publicsuffixlist import PublicSuffixList

        from crawl import canonical, refusals, url

        self._suffixes = PublicSuffixList(source=url.SUFFIX_FILE.read_bytes(), accept_unknown=True)
        names = [row.split() for row in canonical.TRACKING_FILE.read_text().splitlines()]
        everywhere = [row[0] for row in names if len(row) == 1 and row[0] != "#"]
        self._tracking = {name for name in everywhere if not name.endswith("*")}
        self._prefixes = tuple(name[:-1] for name in everywhere if name.endswith("*"))
        rows = [row.split() for row in refusals.DOMAIN_FILE.read_text().splitlines()]
        self._refused = {row[0]: row[1] for row in rows if len(row) == 2}
        self._types = refusals.FILE_TYPES
        self._domains: dict[str, bytes] = {}

    def key(self, address: str) -> str | None:
        try:
            parts = urlsplit(address)
            host, port = parts.hostname or "", parts.port
            host = host.encode("idna").decode() if not host.isascii() else host
        except (ValueError, UnicodeError):
            return None
        if parts.scheme not in ("http", "https") or "." not in host:
            return None
        for label in ("www.", "m.", "mobile.", "amp."):
            host = host.removeprefix(label)
        where = host if port in (None, 80, 443) else f"{host}:{port}"
        path = quote(unquote(parts.path), safe="/~!$&'()*+,;=:@").rstrip("/")
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        kept = sorted(pair for pair in pairs if not self._is_tracking(pair[0].lower()))
        return f"http://{where}{path}" + (f"?{urlencode(kept)}" if kept else "")

    def _is_tracking(self, name: str) -> bool:
        return name in self._tracking or name.startswith(self._prefixes)

    def link_id(self, key: str) -> bytes:
        host = urlsplit(key).hostname or ""
        if host not in self._domains:
            domain = self._suffixes.privatesuffix(host) or host
            self._domains[host] = blake2b(domain.encode(), digest_size=4).digest()
        return self._domains[host] + blake2b(key.encode(), digest_size=12).digest()

    def refusal(self, address: str) -> str | None:
        parts = urlsplit(address)
        if len(address) > 2048 or parts.username or parts.password:
            return "refused"
        labels = (parts.hostname or "").split(".")
        for start in range(len(labels)):
            if reason := self._refused.get(".".join(labels[start:])):
                return reason
        last = parts.path.rpartition("/")[2]
        return "file_type" if last.rpartition(".")[2].lower() in self._types else None


def webtext(path: Path) -> list[int]:
    import pyarrow.compute as pc

    from pipeline import config, rebuild, state
    from pipeline.local import Local
    from pipeline.plan import plan

    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.toml"
        recipe.write_text(
            f'root = "{folder}/run"\n[crawl]\nshards = {SHARDS}\nsubmissions = ["{path}"]\n'
        )
        made = config.load(recipe)
        Path(made.root).mkdir()
        _begin()
        stages = plan(made)[:2]
        rebuild.rebuild(stages, Path(made.root), SHARDS, Local(), lambda *_: None)
        links = state.datasets(Path(made.root))["links"]
        karma = sum(pc.sum(batch["karma"]).as_py() or 0 for batch in links.all(["karma"]))
        return [links.manifest.rows, karma]


PEERS: dict[str, Callable[[Path], list[int]]] = {
    "zstd alone": zstd_alone,
    "json + urllib.parse loop": plain_loop,
    "webtext": webtext,
}
_started = 0.0


def _begin() -> None:
    """The imports are done."""
    global _started
    _started = time.process_time()


def _one(peer: str, path: Path) -> None:
    _begin()
    told = PEERS[peer](path)
    print(json.dumps([time.process_time() - _started, told]))


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["--one"]:
        _one(words[1], Path(words[2]))
    else:
        source = Path(words[0]) if words else DUMP
        if not source.exists():
            sys.exit(f"{source} is not here: name a dump, as RS_2013-01.zst")
        main(source, *(int(word) for word in [*words[1:], *["1000000", "3"][len(words[1:]) :]]))
