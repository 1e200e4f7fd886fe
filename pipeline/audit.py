"""`webtext audit`: the laws of a run checked, the report drawn and its JSON twin written."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import laws, state
from pipeline.config import Config
from pipeline.failures import BadInput
from pipeline.laws import Law
from pipeline.report import facts, page
from pipeline.store import write_bytes, write_json


@dataclass(frozen=True)
class Audit:
    """What was found and where it is written."""

    laws: list[Law]
    page: Path

    @property
    def holds(self) -> bool:
        """Whether no law is broken."""
        return all(law.verdict != "broken" for law in self.laws)

    def plain(self) -> dict[str, Any]:
        """For a program to read."""
        return {
            "holds": self.holds,
            "laws": [asdict(law) for law in self.laws],
            "page": str(self.page),
        }

    def text(self) -> str:
        """For a person to read."""
        lines = [
            f"{law.number:>3}  {law.verdict:12}{law.name}: {law.evidence}" for law in self.laws
        ]
        return "\n".join([*lines, f"report: {self.page}"])


def audit(config: Config) -> Audit:
    """Check the run that `run.json` names; write `report.html` and `report.json` beside it."""
    root = Path(config.root)
    run = state.datasets(root)
    if not run:
        raise BadInput(f"{root}: there is no run yet; run `webtext rebuild` first")
    found = Audit(laws.check(run, config.dedup), root / "report.html")
    gathered = facts.gather(run, training_folder(root))
    plain = [asdict(law) for law in found.laws]
    twin = json.dumps(gathered | {"laws": plain}, default=str)
    write_json(root / "report.json", json.loads(twin))
    write_bytes(found.page, page.render(gathered, plain).encode())
    return found


def training_folder(root: Path) -> Path | None:
    """The training run that was last written to, if there is one."""
    runs = [path.parent for path in (root / "training").glob("*/metrics.jsonl")]
    return max(runs, key=lambda run: (run / "metrics.jsonl").stat().st_mtime, default=None)
