"""`make setup`: installs once, mends what is damaged, does not take half an installation for whole.

A script stands for python: it makes environments whose programs are itself, and logs what is asked.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = """#!/bin/sh
echo "$*" >> calls
case "$*" in
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/webtext";;
    "-m pip "*) test ! -e no-network;;
    "-c import bokeh"*) test ! -e no-bokeh || { echo "no bokeh here" >&2; exit 1; };;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A project that needs nothing but the stand-in."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def setup(clone: Path) -> tuple[int, str, int]:
    """The status of `make setup`, what it said, and how often it has installed by now."""
    done = subprocess.run(
        ["make", "setup", f"PYTHON={clone / 'python'}"],
        cwd=clone,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        check=False,
    )
    installed = (clone / "calls").read_text().count("-m pip install")
    return done.returncode, done.stdout + done.stderr, installed


def test_a_second_setup_installs_nothing(clone: Path):
    assert setup(clone)[::2] == (0, 1)
    assert setup(clone) == (0, "", 1)


@pytest.mark.parametrize("program", ["python", "webtext"])
@pytest.mark.parametrize("damage", ["lost", "failing"])
def test_a_damaged_environment_is_made_anew(clone: Path, program: str, damage: str):
    setup(clone)
    path = clone / ".venv/bin" / program
    path.unlink() if damage == "lost" else path.write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    status, said, installed = setup(clone)
    assert (status, installed) == (0, 2)
    assert said.splitlines()[0] == ".venv is damaged: installing it anew"
    assert len(said.splitlines()) == 2, "no word of what was damaged"
    assert setup(clone) == (0, "", 2)


def test_other_constraints_are_installed(clone: Path):
    setup(clone)
    os.utime(clone / ".venv/installed", (0, 0))  # older than what it was made by
    assert setup(clone)[::2] == (0, 2)


def test_an_installation_cut_short_is_not_taken_for_whole(clone: Path):
    (clone / "no-network").touch()
    assert setup(clone)[0] != 0
    (clone / "no-network").unlink()
    assert setup(clone)[::2] == (0, 2)
    assert setup(clone) == (0, "", 2)


def test_an_environment_that_installing_does_not_mend_is_told(clone: Path):
    (clone / "no-bokeh").touch()
    status, said, installed = setup(clone)
    assert status != 0 and installed == 2
    assert "no bokeh here" in said
