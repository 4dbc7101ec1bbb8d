"""Data sets of Hugging Face's datasets, saved or on the hub, and frames in memory, as the Parquet that readers know."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sigmax.data.formats.reader import Reader
from sigmax.data.splits import SPLIT_NAMES
from sigmax.errors import DataError, extra, first_line

__all__ = ["PREFIX", "READER", "hub_tables", "is_dataset", "tables_in_memory"]

#: What a data set on the hub is called by: hf:user/name, or hf:user/name:configuration.
PREFIX = "hf:"


def _claims(path: Path, found: Sequence[str]) -> bool:
    """Whether a folder is one that `save_to_disk` of a Dataset or a DatasetDict wrote."""
    return (path / "dataset_dict.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    )


def _saved_tables(path: Path) -> contextlib.AbstractContextManager[Path]:
    """Give the tables of a data set that `save_to_disk` wrote, see `_tables`.

    Raises:
        DataError: files that are missing or broken.
        ImportError: datasets is not installed.
    """
    with extra("sentence-transformers"):
        from datasets import load_from_disk
    try:
        return _tables(load_from_disk(str(path)), path.resolve().name, str(path))
    except (LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a readable data set of Hugging Face's datasets: {first_line(error)}") from error


def is_dataset(given: Any) -> bool:
    """Return whether an object is a Dataset, a frame of pandas, polars or pyarrow, or a dict of them by split."""
    tables = list(given.values()) if isinstance(given, dict) else [given]
    return bool(tables) and all(_is_saved_by_itself(table) or _is_frame(table) for table in tables)


def tables_in_memory(given: Any) -> contextlib.AbstractContextManager[Path]:
    """Give the tables of what `is_dataset` takes, see `_tables`."""
    return _tables(given, "dataset", f"the {type(given).__name__}")


def _is_saved_by_itself(table: Any) -> bool:
    return hasattr(table, "to_parquet") and hasattr(table, "features")


def _is_frame(table: Any) -> bool:
    """Whether it gives Arrow's stream of columns: pandas, polars, pyarrow."""
    return hasattr(table, "__arrow_c_stream__") and hasattr(table, "columns")


def _save(table: Any, file: Path, source: str) -> None:
    """Write a table as Parquet.

    Raises:
        DataError: a column that holds values of several kinds.
    """
    if _is_saved_by_itself(table):
        table.to_parquet(str(file))
        return
    import pyarrow
    from pyarrow import parquet

    try:
        if type(table).__module__.partition(".")[0] == "pandas":  # its index is no column
            table = pyarrow.Table.from_pandas(table, preserve_index=False)
        parquet.write_table(pyarrow.table(table), file)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{source}: expected values of one kind in each column: {first_line(error)}") from error


def hub_tables(source: str) -> contextlib.AbstractContextManager[Path]:
    """Give the tables of a data set on the hub, see `_tables`; it is downloaded unless it is in the cache.

    Args:
        source: hf:user/name, or hf:user/name:configuration.

    Raises:
        DataError: no such data set or configuration, or the hub cannot be reached.
        ImportError: datasets is not installed.
    """
    with extra("sentence-transformers"):
        from datasets import load_dataset
    name, _, configuration = source.removeprefix(PREFIX).partition(":")
    try:
        return _tables(load_dataset(name, configuration or None), name.rpartition("/")[2], source)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{source}: expected a data set on the Hugging Face hub as {PREFIX}user/name or "
            f"{PREFIX}user/name:configuration; it did not load: {first_line(error)}"
        ) from error


@contextlib.contextmanager
def _tables(found: Any, name: str, source: str) -> Iterator[Path]:
    """Give a Parquet file, or a folder with one for each split; class names and pictures are inside them.

    They are there as long as the block lasts. A DataError raised in it names the source instead of them.

    Args:
        found: a Dataset or a frame, or a dict of them by split; splits whose names are unknown are left out.
        name: what the data set is called.
        source: what the user knows it by.

    Raises:
        DataError: several splits, none of which has a known name.
    """
    tables = dict(found) if isinstance(found, dict) else {"": found}
    if not tables.keys() & {"", *SPLIT_NAMES}:
        if len(tables) > 1:
            raise DataError(f"{source}: expected splits named {', '.join(SPLIT_NAMES)}, got {', '.join(tables)}.")
        tables = {"": next(iter(tables.values()))}  # one table, whatever it is called
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch, name)
        known: dict[Path, str] = {}
        for split, table in tables.items():
            file = place / f"{split}.parquet" if split else Path(f"{place}.parquet")
            file.parent.mkdir(exist_ok=True)
            _save(table, file, source)
            known[file] = f"{source}, split {split}" if split else source
        try:
            yield place if place.is_dir() else file
        except DataError as error:
            said = str(error)
            for file, shown in {**known, place: source}.items():
                said = said.replace(str(file), shown)
            raise DataError(said) from None


READER = Reader(
    name="hugging_face",
    describes="a data set saved by Hugging Face's datasets (save_to_disk), with columns as below; from the hub: "
    "hf:user/name or hf:user/name:configuration",
    claims=_claims,
    unpack=_saved_tables,
)
