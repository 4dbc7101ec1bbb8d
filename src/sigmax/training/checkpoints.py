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

__all__ = []

log = logging.getLogger(__name__)


def _prepare_checkpoints(folder: Path, settings: dict[str, Any], resume: bool) -> Path | None:
    """Ready the folder; return the last whole checkpoint if there is one to go on from.

    A kill while a checkpoint was written leaves a part of one with the highest number: it is removed. So is one at
    which patience had run out: from there training would go on where an unbroken run stopped; from the best before
    it, it stops at the same step again.
    """
    about = folder / "settings.json"
    first = is_first()  # the first process judges, writes and removes; the others follow
    if not resume:
        if not first:
            return None
        if any(folder.glob("checkpoint-*")):
            raise DataError(
                f"{folder}: holds the checkpoints of a run that did not finish. Go on with it (--resume), or start "
                "anew (--fresh)."
            )
        write_text(about, json.dumps(settings, indent=2) + "\n")
        return None
    if not about.exists():
        if not first:
            return None
        log.warning("%s: no checkpoint to go on from; starting at the beginning.", folder)
        write_text(about, json.dumps(settings, indent=2) + "\n")
        return None
    before = json.loads(about.read_text(encoding="utf-8"))
    changed = [f"{name} {before.get(name)} → {value}" for name, value in settings.items() if before.get(name) != value]
    if changed:
        raise DataError(
            f"{folder}: holds checkpoints of a run with other settings ({'; '.join(changed)}). Use the same, or start "
            "anew (--fresh)."
        )
    numbered = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    while numbered and not _can_go_on(numbered[-1]):
        passed_over = numbered.pop()
        if first:
            shutil.rmtree(passed_over)
    return numbered[-1] if numbered else None


def _can_go_on(checkpoint: Path) -> bool:
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
