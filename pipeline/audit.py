"""`webtext audit`: the laws of a run checked, the report drawn and its JSON twin written."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import current, laws
from pipeline.config import Config
from pipeline.laws import Law
from pipeline.report import domains, facts, page
from pipeline.store import write_bytes, write_json


@dataclass(frozen=True)
class Audit:
    """What was found and where it is written."""

    laws: list[Law]
    page: Path | None
    """None: files are not what was written, and no page is drawn from them."""

    @property
    def holds(self) -> bool:
        """Whether no law is broken."""
        return all(law.verdict != "broken" for law in self.laws)

    def plain(self) -> dict[str, Any]:
        """For a program to read."""
        return {
            "holds": self.holds,
            "laws": [asdict(law) for law in self.laws],
            "page": str(self.page) if self.page else None,
        }

    def text(self) -> str:
        """For a person to read."""
        lines = [
            f"{law.number:>3}  {law.verdict:12}{law.name}: {law.evidence}" for law in self.laws
        ]
        return "\n".join([*lines, f"report: {self.page or 'not drawn from damaged files'}"])


def audit(config: Config) -> Audit:
    """Check what is made of the run; write `report.html` and `report.json` beside `run.json`."""
    root = Path(config.root)
    listed = domains.read(Path(config.compare_domains)) if config.compare_domains else None
    run = current.made(config)
    faults = laws.damaged(run)
    checked = laws.check(run, config.dedup, faults)
    if faults:
        return Audit(checked, None)
    html = root / "report.html"
    folder = current.training(config, current.shards_of(run["tokens"])) if "tokens" in run else None
    trained = folder if folder and (folder / "metrics.jsonl").exists() else None
    gathered = facts.gather(run, trained, listed=listed)
    plain = [asdict(law) for law in checked]
    twin = json.dumps(gathered | {"laws": plain}, default=str)
    write_json(root / "report.json", json.loads(twin))
    write_bytes(html, page.render(gathered, plain).encode())
    return Audit(checked, html)
