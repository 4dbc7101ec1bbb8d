"""Which checkpoint a run can resume from."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from sigmax.errors import DataError
from sigmax.files import write_text
from sigmax.processes import is_first

__all__ = ["discard", "prepare"]

log = logging.getLogger(__name__)

#: The settings of the run whose checkpoints a folder holds; what lacks it holds none of ours.
SETTINGS = "settings.json"


def prepare(folder: Path, settings: dict[str, Any], *, resume: bool, fresh: bool) -> Path | None:
    """Ready a folder for checkpoints; return the last whole one if there is one to resume from.

    A kill while a checkpoint was written leaves a part of one with the highest number: it is removed. So is one at
    which patience had run out: from there training would go on where an unbroken run stopped; from the best before
    it, it stops at the same step again.

    Args:
        folder: where they are or will be.
        settings: of this run.
        resume: whether to resume; without any checkpoint training starts from the beginning.
        fresh: whether to discard what an interrupted run left.

    Raises:
        DataError: a folder of something else; checkpoints of other settings; checkpoints of a run that did not finish
            and neither `resume` nor `fresh`.
    """
    first = is_first()  # the first process judges, writes and removes; the others follow
    if first and folder.exists() and any(folder.iterdir()) and not (folder / SETTINGS).exists():
        raise DataError(f"{folder}: is there already and holds no checkpoints. Choose another folder, or move it.")
    if fresh and first:
        discard(folder)
    if not resume:
        if first and any(folder.glob("checkpoint-*")):
            raise DataError(
                f"{folder}: holds the checkpoints of an interrupted run. Resume it (`resume`) or discard it (`fresh`)."
            )
        _begin(folder, settings)
        return None
    if not (folder / SETTINGS).exists():
        if first:
            log.warning("%s: no checkpoint to resume from; starting from the beginning.", folder)
        _begin(folder, settings)
        return None
    before = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    changed = [f"{name} {before.get(name)} → {value}" for name, value in settings.items() if before.get(name) != value]
    if changed:
        raise DataError(
            f"{folder}: holds checkpoints of a run with other settings ({'; '.join(changed)}). Use the "
            "same, or discard them (`fresh`)."
        )
    numbered = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    while numbered and not _is_whole(numbered[-1]):
        passed_over = numbered.pop()
        if first:
            shutil.rmtree(passed_over)
    return numbered[-1] if numbered else None


def discard(folder: Path) -> None:
    """Remove a folder of checkpoints, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def _begin(folder: Path, settings: dict[str, Any]) -> None:
    if is_first():
        write_text(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")


def _is_whole(checkpoint: Path) -> bool:
    """Whether everything that resuming needs is there, and patience is left: Trainer writes trainer_state.json last."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    needed = ("model.safetensors", "optimizer.pt", "scheduler.pt")
    patience = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback")
    if (
        patience
        and patience["attributes"]["early_stopping_patience_counter"] >= patience["args"]["early_stopping_patience"]
    ):
        return False
    return (
        state.get("global_step") == int(checkpoint.name.rpartition("-")[2])
        and all((checkpoint / name).exists() for name in needed)
        and any(checkpoint.glob("rng_state*.pth"))
    )
