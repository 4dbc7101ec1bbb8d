"""What users install: the wheel holds everything, and what it declares is enough to run it."""

import importlib.metadata
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def sources():
    """Every file of the package, templates and data too."""
    return {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_and_nothing_else(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    assert {name for name in names if ".dist-info/" not in name} == sources()
    endings = {Path(name).suffix for name in sources()}
    assert {".py", ".typed", ".j2", ".jsonl", ".tsv"} <= endings
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_can_be_built_from(built, tmp_path):
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "constraints.txt", "tests/conftest.py"):
        assert (root / name).is_file(), name
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    assert zipfile.ZipFile(wheel).namelist() == zipfile.ZipFile(built[0]).namelist()


# -- what is declared is enough --------------------------------------------------------------------

#: Run in a process of its own: only modules of the distributions that the wheel declares can be found.
ALONE = """
import importlib.machinery, json, sys
wheel, undeclared, words = json.loads(sys.argv[1])

class Declared(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in undeclared else super().find_spec(name, path, target)

sys.meta_path = [Declared if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
sys.path.insert(0, wheel)
import sigmax
assert sigmax.__file__.startswith(wheel), sigmax.__file__
for name in sigmax.__all__:
    getattr(sigmax, name)
from sigmax.cli.main import main
sys.argv = ["sigmax", *words]
main()
"""


def declared(name, extras=(), known=None):
    """Distributions that one needs, and those that these need, with what holds on this machine."""
    known = set() if known is None else known
    if (name, tuple(extras)) in known:
        return known
    try:
        requires = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return known
    known.add((name, tuple(extras)))
    for requirement in map(Requirement, requires):
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
        )
        if wanted:
            declared(canonicalize_name(requirement.name), sorted(requirement.extras), known)
    return known


@pytest.fixture(scope="module")
def alone(built, tmp_path_factory):
    """Run a command of the wheel where nothing but its own dependencies can be imported."""
    folder = tmp_path_factory.mktemp("wheel")
    zipfile.ZipFile(built[0]).extractall(folder)
    metadata = zipfile.ZipFile(built[0]).read(f"{built[0].name.rsplit('-', 3)[0]}.dist-info/METADATA").decode()
    needed = set()
    for line in metadata.splitlines():
        if line.startswith("Requires-Dist: ") and "extra ==" not in line:
            requirement = Requirement(line.removeprefix("Requires-Dist: "))
            needed |= {name for name, _ in declared(canonicalize_name(requirement.name), sorted(requirement.extras))}
    undeclared = [
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & needed and module != "sigmax"
    ]
    assert {"hypothesis", "pytest"} <= set(undeclared)
    assert not {"torch", "numpy", "sklearn", "transformers", "typer"} & set(undeclared)

    def run(*words, cwd):
        given = json.dumps([str(folder), undeclared, [str(word) for word in words]])
        return subprocess.run(
            [sys.executable, "-c", ALONE, given], cwd=cwd, capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize("command", ["", "compare"])
def test_help(command, alone, tmp_path):
    done = alone(*([command] if command else []), "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"sigmax {command}".strip() in done.stdout


def test_what_is_declared_is_enough_to_work(alone, tmp_path):
    things = [("soft sound", "whisper"), ("loud sound", "shout"), ("warm light", "lamp"), ("cold light", "moon")]
    table = "query,answer\n" + "".join(f"{q} {n},{a}\n" for n in range(8) for q, a in things)
    (tmp_path / "data.csv").write_text(table, encoding="utf-8")
    done = alone(
        "compare", "data.csv", "--seeds", 1, "--steps", 2, "--rates", 1, "--scales", 1, "-o", "out", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "comparison.json").is_file()
    assert "No figure: matplotlib is not installed. Try: pip install 'sigmax[report]'" in " ".join(done.stderr.split())
