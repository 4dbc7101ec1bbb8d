import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import sigmax
from helpers.commands import posix
from sigmax.files import check_file, check_folder, recover_folder, replace_file, replace_folder, write_text

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


# -- links, pipes, devices, modes ----------------------------------------------------------------


@pytest.fixture
def umask():
    """Sets the umask, and back."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@posix
def test_a_link_stays_a_link(tmp_path):
    write_text(tmp_path / "here" / "real.json", "old")
    (tmp_path / "link.json").symlink_to(tmp_path / "here" / "real.json")
    write_text(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "here" / "real.json").read_text() == "new"
    (tmp_path / "dangling.json").symlink_to(tmp_path / "there" / "real.json")
    write_text(tmp_path / "dangling.json", "new")
    assert (tmp_path / "dangling.json").is_symlink()
    assert (tmp_path / "there" / "real.json").read_text() == "new"
    assert sorted(path.name for path in tmp_path.rglob("*.json")) == [
        "dangling.json", "link.json", "real.json", "real.json"
    ]  # fmt: skip


@posix
def test_a_linked_folder_stays_a_link(target, tmp_path):
    (tmp_path / "link").symlink_to(target)
    with replace_folder(tmp_path / "link") as folder:
        fill(folder, NEW)
    assert (tmp_path / "link").is_symlink()
    assert contents(target) == NEW


@posix
def test_a_pipe_gets_what_is_written(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "pipe").read_bytes)
        with replace_file(tmp_path / "pipe") as file:
            file.write(b"one ")
            assert file.tell() == 4  # as Parquet's writer asks
            file.write(b"two")
        assert read.result(timeout=10) == b"one two"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@posix
def test_a_device_stays_a_device():
    write_text(Path(os.devnull), "text")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@posix
def test_standard_output_as_a_file():
    code = "from sigmax.files import write_text; from pathlib import Path; write_text(Path('/dev/stdout'), 'text')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "text"), done.stderr


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_new_files_have_what_the_umask_leaves(mask, umask, tmp_path):
    umask(mask)
    write_text(tmp_path / "file", "text")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask
    with replace_folder(tmp_path / "folder") as folder:
        fill(folder, NEW)
        for path in folder.rglob("*"):
            if path.is_file():
                path.chmod(0o600)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~mask
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "folder").rglob("*") if path.is_file()}
    assert modes == {0o666 & ~mask}


@posix
def test_what_was_there_keeps_its_mode(umask, target):
    umask(0o022)
    write_text(target.parent / "file", "old")
    for path, mode in ((target.parent / "file", 0o600), (target, 0o750), (next(target.rglob("*.*")), 0o640)):
        path.chmod(mode)
    write_text(target.parent / "file", "new")
    with replace_folder(target) as folder:
        fill(folder, OLD)
    assert stat.S_IMODE((target.parent / "file").stat().st_mode) == 0o600
    assert stat.S_IMODE(target.stat().st_mode) == 0o750
    assert stat.S_IMODE(next(target.rglob("*.*")).stat().st_mode) == 0o640


def test_what_cannot_be_written_is_told_beforehand(tmp_path):
    (tmp_path / "file").write_text("mine")
    check_file(tmp_path / "file")
    check_file(tmp_path / "new" / "deep" / "file")
    check_folder(tmp_path / "new" / "deep" / "folder")
    for path in (tmp_path / "file" / "report.html", tmp_path / "file" / "deep" / "report.html"):
        with pytest.raises(NotADirectoryError, match="file"):
            check_file(path)
        with pytest.raises(NotADirectoryError, match="file"):
            check_folder(path)
    with pytest.raises(IsADirectoryError):
        check_file(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_name_as_long_as_names_may_be(tmp_path):
    write_text(tmp_path / ("a" * 255), "text")
    assert (tmp_path / ("a" * 255)).read_text() == "text"
