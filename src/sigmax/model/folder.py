"""A model as a folder of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.numpy import load_file as load_arrays

from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.fits import calibration_from_dict
from sigmax.calibration.record import Record
from sigmax.errors import DataError

if TYPE_CHECKING:
    pass


__all__ = ["check_place"]


#: Raised whenever a saved folder can no longer be read by older versions.
FORMAT = 2


#: What a model folder holds.
PARTS = frozenset(
    {"README.md", "sigmax.json", "candidates.jsonl", "dev.safetensors", "none.safetensors"}
    | {"query_encoder", "candidate_encoder"}
)


def _calibrator(about: dict[str, Any], folder: Path) -> Calibrator | None:
    if about["format"] == 1:  # a curve and a threshold, before rules were
        curve = about["calibration"]
        return curve and Calibrator(calibration_from_dict(curve), (), threshold=float(about["threshold"]))
    if about["calibrator"] is None:
        return None
    record = folder / "dev.safetensors"
    tensors = load_arrays(str(record)) if record.exists() else None
    return Calibrator.from_dict(about["calibrator"], None if tensors is None else Record.from_tensors(tensors))


def check_place(folder: Path) -> None:
    """Check that a model may be written there: nothing, an empty folder or a model is there, and no more than that.

    Raises:
        DataError: something else, which would be lost.
    """
    if not folder.exists():
        return
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if found and "sigmax.json" not in found:
        raise DataError(f"{folder}: is there already and no model. Choose another folder, or remove it.")
    if found - PARTS:
        raise DataError(
            f"{folder}: a model beside which something else would be lost ({', '.join(sorted(found - PARTS))}). Choose "
            "another folder, or move it."
        )
