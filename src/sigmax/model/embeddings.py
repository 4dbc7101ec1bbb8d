"""Vectors of a data set's queries or candidates as a Parquet file, for search indexes and other tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigmax.errors import DataError, lookup
from sigmax.files import replace_file

if TYPE_CHECKING:
    from sigmax.data.dataset import MatchDataset
    from sigmax.data.pictures import Advance
    from sigmax.model.dual_encoder import DualEncoder

__all__ = ["SIDES", "write_embeddings"]

#: What can be encoded, and what several of it are called.
SIDES = {"query": "queries", "candidate": "candidates"}
#: Rows encoded and written at a time.
_ROWS = 2048


def write_embeddings(
    model: DualEncoder,
    data: MatchDataset,
    path: str | Path,
    *,
    side: str = "query",
    advance: Advance | None = None,
) -> tuple[int, int]:
    """Encode one side of a data set and write it as Parquet, a part at a time.

    The columns are `id`, `text` (of pictures `picture`, their name) and `embedding`, a list of d float32 numbers as
    `DualEncoder.encode` gives them, not normalised. The schema's metadata tell under `sigmax`, as JSON, how they make
    logits: similarity ("cosine" or "dot"), logit_scale and logit_bias. Readable by pyarrow, pandas, datasets, DuckDB.

    Args:
        model: what encodes.
        data: whose queries, of all splits, or candidates.
        path: the file; one that was there stays whole until this one is.
        side: "query" or "candidate".
        advance: told now and then how much is done, from 0 to 1, and what it is.

    Returns:
        Rows written, and d.

    Raises:
        DataError: pictures for a model of texts or the other way round, or labels that the model does not know.
        UnknownNameError: another side.
        OSError: it cannot be written; nothing is left behind.
    """
    import pyarrow
    from pyarrow import parquet

    several = lookup(SIDES, side, "side")
    pictures = side == "query" and data.pictures
    if side == "query" and data.pictures != model.pictures:
        kinds = ("texts", "pictures")
        raise DataError(f"{data.name}: holds {kinds[data.pictures]}, the model reads {kinds[model.pictures]}.")
    items: Sequence[Any] = data.queries if side == "query" else data.candidates
    ids = data.query_ids if side == "query" else data.candidate_ids
    width = model.encode(items[:1], side).shape[1]
    bias = model.loss.logit_bias
    about = {
        "side": side,
        "similarity": model.loss.similarity,
        "logit_scale": model.loss.logit_scale.item(),
        "logit_bias": None if bias is None else bias.item(),
    }
    schema = pyarrow.schema(
        {
            "id": pyarrow.string(),
            "picture" if pictures else "text": pyarrow.string(),
            "embedding": pyarrow.list_(pyarrow.float32(), width),
        },
        metadata={"sigmax": json.dumps(about)},
    )
    with replace_file(Path(path)) as file, parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, len(items), _ROWS):
            part = items[start : start + _ROWS]
            vectors = pyarrow.array(model.encode(part, side).flatten().numpy())
            columns = [
                pyarrow.array(ids[start : start + _ROWS]),
                pyarrow.array([str(item) for item in part]),
                pyarrow.FixedSizeListArray.from_arrays(vectors, width),
            ]
            writer.write_table(pyarrow.table(columns, schema=schema))
            if advance is not None:
                advance((start + len(part)) / len(items), f"encoding {len(items):,} {several}")
    return len(items), width
