"""Where a saved module lies: in a folder here, or on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["module_folder"]


def module_folder(model_name_or_path: str, subfolder: str = "", **given: Any) -> Path:
    """Return the folder of a module's files; those of a model on the hub are fetched as sentence-transformers does.

    Args:
        model_name_or_path: a folder, or user/name on the hub.
        subfolder: the module's place in it.
        given: token, cache_folder, revision and local_files_only count; modules are given more.
    """
    if Path(model_name_or_path).is_dir():
        return Path(model_name_or_path, subfolder)
    from sentence_transformers.util import load_dir_path

    wanted = ("token", "cache_folder", "revision", "local_files_only")
    hub = {name: given[name] for name in wanted if name in given}
    return Path(load_dir_path(model_name_or_path, subfolder=subfolder, **hub))
