"""Check that the constraints and every extra resolve on PyPI alone, for each Python that is declared and found here.

Only metadata is read: nothing is installed, and no wheel of torch is downloaded. Local wheels, other indexes and pip's
configuration are left out, so that what a stranger's first `pip install` would find is what is found here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)
    table = text.split("[project.optional-dependencies]", 1)[1].split("\n[", 1)[0]
    extras = re.findall(r"^([\w-]+) = \[", table, flags=re.MULTILINE)
    failed, seen = [], []
    for version in declared:
        python = interpreter(version)
        if python is None:
            print(f"python{version}: not here", flush=True)
            continue
        seen.append(version)
        problem = resolve(python, extras) and resolve(python, extras)  # once more: the registry may have been busy
        print(f"python{version}: {problem or 'resolves'}", flush=True)
        if problem:
            failed.append(version)
    return 1 if failed or not seen else 0


def interpreter(version: str) -> str | None:
    """Return a Python of that version: on the PATH, or one that pyenv keeps."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for place in (shutil.which(f"python{version}"), *sorted(root.glob(f"{version}.*/bin/python"), reverse=True)):
        if place and subprocess.run([place, "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(place)
    return None


def resolve(python: str, extras: list[str]) -> str | None:
    """Resolve as that Python would; what went wrong, if anything did."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    if "PIP_CERT" in os.environ:  # how the registry is reached, not what it holds
        environment["PIP_CERT"] = os.environ["PIP_CERT"]
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([python, "-m", "venv", scratch], check=True)
        report = Path(scratch, "report.json")
        found = subprocess.run(
            [
                *(str(Path(scratch, "bin", "python")), "-m", "pip", "install", "--dry-run", "--ignore-installed"),
                *("--quiet", "--report", str(report), "--constraint", str(ROOT / "constraints.txt")),
                f"{ROOT}[{','.join(extras)}]",
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode:
            return found.stderr.strip()[-2000:]
        packages = {
            re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower()
            for entry in json.loads(report.read_text(encoding="utf-8"))["install"]
        }
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    loose = sorted(
        name for name in packages - pinned - {"sigmax", "setuptools"} if not name.startswith(("nvidia-", "cuda-"))
    )
    return f"resolves, but constraints.txt pins no version of {', '.join(loose)}" if loose else None


if __name__ == "__main__":
    sys.exit(main())
