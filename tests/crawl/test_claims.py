"""Nobody asks for what another is asking for."""

import fcntl
from pathlib import Path
from typing import Any

import pytest

from crawl import claims
from crawl.claims import Held

LOW, HIGH = b"\x10" * 16, b"\x20" * 16


def claim(folder: Path, low: int, high: int, label: str = "live") -> Any:
    naps: list[float] = []
    return claims.claimed(
        folder, bytes([low]) * 16, bytes([high]) * 16, label=label,
        wait_s=1.0, clock=lambda: sum(naps), sleep=naps.append,
    )  # fmt: skip


def test_claims_exclude_only_those_they_overlap(tmp_path: Path) -> None:
    with claim(tmp_path, 0x10, 0x20):
        for low, high in ((0x10, 0x20), (0x08, 0x10), (0x20, 0x30), (0x12, 0x13), (0x00, 0xFF)):
            with pytest.raises(Held, match="another process"), claim(tmp_path, low, high):
                pass
        with claim(tmp_path, 0x21, 0x30), claim(tmp_path, 0x00, 0x0F), claim(tmp_path, 0, 255, "a"):
            pass
    with claim(tmp_path, 0x00, 0xFF):
        pass
    assert not list(tmp_path.glob("*.claim"))


def test_the_claim_of_the_dead_is_void_and_a_dying_one_is_waited_for(tmp_path: Path) -> None:
    left = tmp_path / "10101010-20202020-live-aaaaaaaaaaaa.claim"
    left.touch()
    with claim(tmp_path, 0x10, 0x20):
        assert not left.exists()
    dying = left.open("wb")
    fcntl.flock(dying, fcntl.LOCK_EX)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if sum(naps) > 30:
            dying.close()

    with claims.claimed(tmp_path, LOW, HIGH, label="live", clock=lambda: sum(naps), sleep=nap):
        assert 30 < sum(naps) < 31
