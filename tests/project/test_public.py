import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import sigmax
from helpers.pages import README, run_python

SOURCE = Path(sigmax.__file__).parent
MODULES = sorted(module.name for module in pkgutil.walk_packages([str(SOURCE)], "sigmax."))
modules = pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])


# -- names ---------------------------------------------------------------------------------------


def test_public_names():
    assert sorted(sigmax.__all__) == list(sigmax.__all__) == dir(sigmax)
    for name in sigmax.__all__:
        assert getattr(sigmax, name) is not None
    used = {"Positives", "SoftmaxLoss", "SigmoidLoss", "load", "load_data", "train", "evaluate", "compare", "Settings"}
    assert used <= set(sigmax.__all__)
    assert {"explain", "explain_logits"} <= set(sigmax.__all__)
    assert {"DualEncoder", "MatchDataset", "DataError", "Comparison", "Evaluation"} <= set(sigmax.__all__)
    with pytest.raises(AttributeError, match="No sigmax attribute Sigmoid"):
        _ = sigmax.Sigmoid


def test_public_names_are_the_modules_own():
    places = {
        "load": "model",
        "DualEncoder": "model",
        "train": "training",
        "Settings": "training",
        "compare": "comparison",
        "evaluate": "evaluation",
        "explain": "explain",
        "explain_logits": "explain",
        "load_data": "data",
        "Positives": "positives",
        "SigmoidLoss": "losses",
    }
    for name, module in places.items():
        assert getattr(sigmax, name) is getattr(importlib.import_module(f"sigmax.{module}"), name)


def test_importing_everything():
    namespace = {}
    exec("from sigmax import *", namespace)
    assert set(sigmax.__all__) <= namespace.keys()


def test_version():
    assert sigmax.__version__ == metadata.version("sigmax")


def test_typed():
    assert (SOURCE / "py.typed").exists()


LIGHT = """
import sys
import sigmax, sigmax.training, sigmax.comparison, sigmax.data, sigmax.model, sigmax.cli
heavy = "torch numpy transformers sentence_transformers sklearn scipy matplotlib pyarrow accelerate typer rich"
print([name for name in heavy.split() if name in sys.modules])
sigmax.SoftmaxLoss(), sigmax.SigmoidLoss(), sigmax.Positives([0], [0], (1, 1))
heavy = "transformers sentence_transformers sklearn scipy matplotlib pyarrow accelerate typer rich pytrec_eval triton"
print([name for name in heavy.split() if name in sys.modules])
"""


def test_importing_is_light():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[]"]
    assert done.stderr == ""


FACES = [path for path in sorted(SOURCE.rglob("__init__.pyi"))]


@pytest.mark.parametrize("stub", FACES, ids=lambda stub: stub.parent.name)
def test_faces_hand_on_what_their_stubs_list(stub):
    """Each name once; a function named like its file stays the function, whoever imports the file."""
    package = ".".join(stub.parent.relative_to(SOURCE.parent).parts)
    face = importlib.import_module(package)
    listed = [node for node in ast.parse(stub.read_text("utf-8")).body if isinstance(node, ast.ImportFrom)]
    for node in listed:
        module = importlib.import_module(f"{package}.{node.module}")
        for alias in node.names:
            assert getattr(face, alias.name) is getattr(module, alias.name)
    names = [alias.name for node in listed for alias in node.names]
    assert sorted(names) == face.__all__ == dir(face)
    assert len(set(names)) == len(names)


# -- documentation -------------------------------------------------------------------------------


@modules
def test_everything_public_is_documented(name):
    if name.endswith(".triton_tiles"):
        pytest.importorskip("triton")
    if name in ("sigmax.runtime.graphs", "sigmax.runtime.networks"):
        pytest.importorskip("onnx")
    module = importlib.import_module(name)
    assert module.__doc__
    for public in getattr(module, "__all__", ()):
        entry = getattr(module, public)
        if not (inspect.isclass(entry) or inspect.isfunction(entry)):
            continue
        if entry.__module__.startswith("sigmax"):
            assert entry.__doc__, f"{name}.{public}"
            assert not entry.__doc__.startswith(f"{public}("), f"{name}.{public}: dataclass's own"
        if inspect.isclass(entry):
            for method, found in vars(entry).items():
                if not method.startswith("_") and inspect.isfunction(found) and found.__name__ != "<lambda>":
                    assert found.__doc__, f"{name}.{public}.{method}"


@pytest.mark.slow
def test_readme_runs(tmp_path, monkeypatch):
    """Every block of Python, one after the other, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    run_python(README)


# -- layers --------------------------------------------------------------------------------------

#: Who may import whom: from a lower layer, or from one's own room. The façade `sigmax` imports all.
LAYERS = (
    ("errors", "files", "arrays", "processes"),
    ("positives",),
    ("families",),
    ("kernels",),
    ("losses",),
    ("calibration", "metrics"),
    ("data",),
    ("encoders", "scan"),
    ("evaluation", "candidates"),
    ("model", "sentence_transformers"),
    ("training", "mining"),
    ("classifier", "comparison", "explain", "ray", "runtime", "scores"),
    ("watch",),
    ("report",),
    ("server",),
    ("cli",),
    ("__main__",),
)
LAYER = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}


def imports(path):
    """Rooms of sigmax that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = (
                [f"{node.module}.{entry.name}" for entry in node.names] if node.module == "sigmax" else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [entry.name for entry in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name and name.startswith("sigmax."))


def room(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path):
    if path == SOURCE / "__init__.py":
        return
    assert room(path) in LAYER, "a new room: say in LAYERS where it belongs"
    for other in imports(path):
        assert other == room(path) or LAYER[other] < LAYER[room(path)], f"{room(path)} imports {other}"


def test_contributing_prints_the_layers():
    """The map of the page is this one: `LAYERS` from the bottom to the top."""
    text = (SOURCE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "\n".join(["<!-- layers -->", "", *(f"    {', '.join(rooms)}" for rooms in reversed(LAYERS)), ""]) in text


def test_few_of_each_at_the_top():
    """Rooms of their own: where candidates live; scores, which are no model's; watch, what is asked of both in use."""
    modules = {path.stem for path in SOURCE.glob("*.py")} - {"__init__", "__main__"}
    folders = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert len(modules) <= 13  # one of them, ray, is what a cluster imports
    assert len(folders) <= 16  # one of them, runtime, answers from exported models without PyTorch: a room by itself


def test_no_file_is_long():
    """A reader takes one in at a sitting; a kernel and its tuning belong together."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCE.rglob("*.py")}
    assert [path.name for path, number in lines.items() if number > 450 and path.name != "triton.py"] == []


def test_layers_see_what_they_should():
    """The test above would see an import, wherever it stands."""
    assert set(imports(SOURCE / "losses.py")) >= {"errors", "families", "kernels", "positives"}
    assert set(imports(SOURCE / "cli" / "train.py")) >= {"comparison", "model", "training", "report", "evaluation"}
    assert {room(path) for path in SOURCE.rglob("*.py")} <= {*LAYER, "__init__"}
