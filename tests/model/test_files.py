import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sigmax
from sigmax.files import recover_folder, replace_folder, write_text

OLD = {"config.json": "old", "weights/a": "old a", "weights/b": "old b"}
NEW = {"config.json": "new", "weights/c": "new c"}


def fill(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def beside(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path != target)


@pytest.fixture
def target(tmp_path) -> Path:
    """A folder that was written before."""
    fill(tmp_path / "models" / "emoji", OLD)
    return tmp_path / "models" / "emoji"


# -- folders -------------------------------------------------------------------------------------


def test_the_new_folder_takes_the_place_of_the_old(target):
    with replace_folder(target) as folder:
        assert not any(folder.iterdir())
        assert folder.parent == target.parent, "on the same disk, so that a rename is enough"
        fill(folder, NEW)
        assert contents(target) == OLD, "until the end"
    assert contents(target) == NEW
    assert beside(target) == []
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_was_not_there(tmp_path):
    target = tmp_path / "some" / "new" / "place"
    with replace_folder(target) as folder:
        fill(folder, NEW)
    assert contents(target) == NEW
    assert beside(target) == []


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in (OLD, NEW):
        with replace_folder(Path("model")) as folder:
            fill(folder, text)
    assert contents(tmp_path / "model") == NEW
    assert beside(tmp_path / "model") == []


def test_again_and_again(target):
    for number in range(3):
        with replace_folder(target) as folder:
            fill(folder, {"number": str(number)})
        assert contents(target) == {"number": str(number)}
    assert beside(target) == []


def test_a_link_to_a_folder(target):
    link = target.parent.parent / "latest"
    link.symlink_to(target, target_is_directory=True)
    for text in (NEW, OLD, NEW):
        with replace_folder(link) as folder:
            fill(folder, text)
        assert contents(link) == text
    assert beside(link) == ["models"]
    assert beside(target) == []


@pytest.mark.parametrize(
    "failure", [ValueError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_a_failure_inside_leaves_the_old_folder(target, failure):
    with pytest.raises(type(failure)), replace_folder(target) as folder:
        fill(folder, NEW)
        raise failure
    assert contents(target) == OLD
    assert beside(target) == []


def test_a_failure_leaves_nothing_where_nothing_was(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(ValueError, match="no"), replace_folder(target) as folder:
        fill(folder, NEW)
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == []


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_when_the_files_are_sent_to_it(target, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"), replace_folder(target) as folder:
        fill(folder, NEW)
    assert contents(target) == OLD
    assert beside(target) == []


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails(target, monkeypatch, failing):
    rename, calls = Path.rename, []

    def sometimes(self, to):
        calls.append(to)
        if len(calls) == failing:
            full_disk()
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", sometimes)
    with pytest.raises(OSError, match="No space left"), replace_folder(target) as folder:
        fill(folder, NEW)
    assert contents(target) == OLD
    assert beside(target) == []


def test_nothing_to_recover(target):
    recover_folder(target)
    recover_folder(target.with_name("never"))
    assert contents(target) == OLD
    assert beside(target) == []


# -- kills ---------------------------------------------------------------------------------------

#: Runs `sigmax.files` without the rest of the package, and dies before its n-th step.
DYING = """
import os, pathlib, shutil, signal, sys, types
package = types.ModuleType("sigmax")
package.__path__ = [sys.argv[1]]
sys.modules["sigmax"] = package
from sigmax.files import replace_folder, write_text

target, last, steps = pathlib.Path(sys.argv[2]), int(sys.argv[3]), 0

def counted(original):
    def step(*args, **kwargs):
        global steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    return step

counting = {pathlib.Path: ("rename", "replace", "write_text"), shutil: ("rmtree",), os: ("fsync", "unlink")}
for place, names in counting.items():
    for name in names:
        setattr(place, name, counted(getattr(place, name)))
"""
FOLDER = """
with replace_folder(target) as folder:
    (folder / "weights").mkdir()
    (folder / "config.json").write_text("new")
    (folder / "weights" / "c").write_text("new c")
print("finished")
"""
FILE = """
write_text(target, "new")
print("finished")
"""


def run_until(script: str, target: Path, step: int) -> bool:
    """Whether the script ended before it came to that step; otherwise it was killed there."""
    package = str(Path(sigmax.__file__).parent)
    command = [sys.executable, "-c", DYING + script, package, str(target), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    assert (done.returncode == 0) == (done.stdout == "finished\n")
    return done.returncode == 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process")
@pytest.mark.parametrize("fresh", [False, True], ids=["replaced", "new"])
def test_a_kill_at_any_step(tmp_path, fresh):
    seen = []
    for step in range(1, 30):
        target = tmp_path / str(step) / "model"
        target.parent.mkdir()
        if not fresh:
            fill(target, OLD)
        finished = run_until(FOLDER, target, step)
        recover_folder(target)
        assert all(name.startswith(".") for name in beside(target)), "what is left is hidden"
        found = contents(target) if target.exists() else None
        assert found in ((None, NEW) if fresh else (OLD, NEW)), f"killed at step {step}"
        seen.append(found)
        with replace_folder(target) as folder:
            fill(folder, {"next": "run"})
        assert contents(target) == {"next": "run"}
        assert not any("previous" in name for name in beside(target))
        if finished:
            break
    assert finished
    assert len(seen) > 5
    assert seen == sorted(seen, key=lambda found: found == NEW), "first the old one, then the new one"
    assert {found == NEW for found in seen} == {False, True}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process")
def test_a_kill_while_a_file_is_written(tmp_path):
    seen = []
    for step in range(1, 10):
        target = tmp_path / str(step) / "report.html"
        write_text(target, "old")
        finished = run_until(FILE, target, step)
        assert target.read_text() in ("old", "new")
        assert all(name.startswith(".") for name in beside(target))
        seen.append(target.read_text())
        if finished:
            break
    assert finished
    assert seen[0] == "old"
    assert seen[-1] == "new"


def test_a_kill_between_the_renames_is_mended(target):
    shutil.move(target, target.with_name(".emoji.previous"))
    recover_folder(target)
    assert contents(target) == OLD
    assert beside(target) == []


def test_a_kill_between_the_renames_is_mended_by_the_next_run(target):
    shutil.move(target, target.with_name(".emoji.previous"))
    with pytest.raises(ValueError, match="no"), replace_folder(target):
        assert contents(target) == OLD
        raise ValueError("no")
    assert contents(target) == OLD


# -- files ---------------------------------------------------------------------------------------


def test_write_text(tmp_path):
    path = tmp_path / "some" / "report.html"
    for text in ("old", "new: é 🌙\n"):
        write_text(path, text)
        assert path.read_bytes() == text.encode()
    assert beside(path) == []
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "failing", [(os, "fsync"), (Path, "chmod"), (Path, "replace")], ids=["fsync", "chmod", "replace"]
)
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, failing):
    write_text(tmp_path / "report.html", "old")
    monkeypatch.setattr(*failing, full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "report.html", "new")
    assert (tmp_path / "report.html").read_text() == "old"
    assert beside(tmp_path / "report.html") == []


def test_a_text_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "report.html", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "report.html", "\ud83d")
    assert (tmp_path / "report.html").read_text() == "old"
    assert beside(tmp_path / "report.html") == []
