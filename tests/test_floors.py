"""The house: its packages, what each may import, what is documented."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def test_the_top_level_packages_are_those_of_the_contract():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set(settings["root_packages"])


def test_the_shell_and_the_cores_import_no_engine():
    code = """
import sys, crawl, dedup, pipeline
import pipeline.cli, pipeline.plan, pipeline.make, pipeline.audit, pipeline.why
print(sorted({"ray", "torch", "deepspeed", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr


def test_no_file_is_long_and_no_room_is_nameless():
    sources = [
        p
        for package in ("crawl", "dedup", "training", "pipeline")
        for p in (ROOT / package).rglob("*.py")
    ]
    assert not [str(p) for p in sources if len(p.read_text().splitlines()) > 400]
    nameless = {"utils", "util", "common", "helpers", "helper", "manager", "base", "misc"}
    assert not [str(p) for p in sources if p.stem in nameless]


def test_the_constraints_are_exact_and_name_no_index():
    lines = (ROOT / "constraints.txt").read_text().split()
    assert all(line.count("==") == 1 and "/" not in line for line in lines)
    assert "torch==2.13.0" in lines and "deepspeed==0.19.8" in lines


def test_cluster_yaml_is_what_ray_expects():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert config["cluster_name"] == "webtext" and config["max_workers"] > 0
    validate_config(prepare_config(config))


@pytest.mark.parametrize(
    "command", ["rebuild", "status", "audit", "why", "train", "evaluate", "generate", "config"]
)
def test_every_command_has_help_with_an_example_and_stands_in_the_readme(command: str):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", command, "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0
    assert f"Example: webtext {command} recipes/demo.toml" in " ".join(done.stdout.split())
    assert f"webtext {command}" in (ROOT / "README.md").read_text()
