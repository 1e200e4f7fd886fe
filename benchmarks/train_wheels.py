"""What `train.py` needs beside torch, as wheels in a folder: gathered here, unpacked where it runs.

A wheel is a zip file whose content can be imported from where it lies, so no pip is needed there.
Versions are those of constraints.txt. Rule: of a large package what training never opens stays out.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

NAMES = (
    "annotated-types", "anyio", "certifi", "deepspeed", "einops", "filelock", "gigatoken", "h11",
    "hjson", "httpcore2", "httpx2", "huggingface_hub", "idna", "msgpack", "msgspec", "numpy",
    "packaging", "protobuf", "psutil", "py-cpuinfo", "pyarrow", "pydantic", "pydantic_core",
    "PyYAML", "regex", "safetensors", "tensorboardX", "tokenizers", "tqdm", "transformers",
    "truststore", "typing-inspection", "typing_extensions",
)  # fmt: skip
FROM_SOURCE = ("deepspeed",)
"""No wheel of it is published; it is Python alone, and asks torch for its version."""
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")
MOST = 60 * 2**20
"""Bytes of all wheels together."""
LEFT_OUT = {
    "pyarrow": r"include/|tests/|src/|.*\.(pxd|pxi|pyx|h)$"
    r"|libarrow_(flight|s3)|libarrow_python\w*\.so(\.\d+\.\d.*)?$|_(flight|s3fs)",
    "numpy": r".*/tests/|_core/include|.*\.(pyi|a|h)$|f2py/",
    "transformers": r"models/(?!auto/|gpt2/|__init__)|.*\.(cu|cuh|cpp|h)$",
}
"""Files of a package, by what their paths in it begin with."""


def pack(folder: Path, constraints: Path, python: str) -> None:
    """Gather all for Python `python` (as "3.12") on x86-64 Linux in `folder`; says how much."""
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    chosen = ["--no-deps", "--constraint", str(constraints)]
    with tempfile.TemporaryDirectory() as whole:
        source = ["wheel", *chosen, "--no-build-isolation", "-w", whole]
        subprocess.run([*pip, *source, *FROM_SOURCE], check=True)
        theirs = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
        theirs += [f"--platform={platform}_x86_64" for platform in PLATFORMS]
        others = [name for name in NAMES if name not in FROM_SOURCE]
        subprocess.run([*pip, "download", *chosen, *theirs, "-d", whole, *others], check=True)
        for wheel in sorted(Path(whole).glob("*.whl")):
            size = copied(wheel, folder / wheel.name)
            print(f"{size / 2**20:6.1f} MiB of {wheel.stat().st_size / 2**20:5.1f}  {wheel.name}")
    total = sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))
    print(f"{total / 2**20:6.1f} MiB in {folder} for Python {python}")
    if total > MOST:
        sys.exit(f"more than {MOST / 2**20:.0f} MiB")


def copied(wheel: Path, to: Path) -> int:
    """Copy a wheel without what is left out of its package, packed small; its bytes."""
    package = wheel.name.partition("-")[0]
    out = re.compile(rf"{package}/({LEFT_OUT[package]})") if package in LEFT_OUT else None
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(to, "w") as kept:
        for name in source.namelist():
            if not (out and out.match(name)):
                kept.writestr(name, source.read(name), zipfile.ZIP_LZMA)
    return to.stat().st_size


def unpack(wheels: Path, to: Path) -> None:
    """Lay the content of all wheels into one folder, to be imported from."""
    found: Iterable[Path] = sorted(wheels.glob("*.whl"))
    for wheel in found:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(to)
    if not list(to.iterdir()):
        sys.exit(f"{wheels}: no wheels there; gather them with --pack")
