"""A model as a folder of files: where it lies, what is in it, how it is written and read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.curves import PlattCandidate, calibration_from_dict
from sigmax.calibration.familiar import Familiar
from sigmax.calibration.novelty import Novelty
from sigmax.calibration.record import Record
from sigmax.encoders import load_encoder, save_encoder
from sigmax.errors import DataError
from sigmax.files import recover_folder, replace_folder
from sigmax.losses import MatchLoss, make_loss
from sigmax.model.fingerprints import texts_fingerprint, vectors_fingerprint
from sigmax.model.hub import fetch, is_hub_name
from sigmax.model.stored import FILES, checked_texts, read_candidates, write_candidates
from sigmax.model.vectors import Vectors

if TYPE_CHECKING:
    from sigmax.encoders.lexical import Lexical
    from sigmax.model.reranker import Reranker

__all__ = [
    "DATABASE",
    "FEW",
    "FORMAT",
    "INDEX",
    "PARTS",
    "Parts",
    "check_place",
    "find_folder",
    "read_folder",
    "write_folder",
]

#: Raised whenever a saved folder can no longer be read by older versions.
FORMAT = 4
#: Candidates that lie in a text file and are encoded when they are first needed; more lie in Parquet, their vectors
#: beside them. Folders of fewer are of format 2, those with a lexical view 3, those with a second look 4.
FEW = 10_000
#: Bytes of a tensor from which it stays mapped, as vectors of candidates do: only what a query touches is read.
MAPPED_FROM = 2**26

#: The folder of an index over the candidates, see `sigmax.model.index`; what begins like it is one being built.
INDEX = "index"
#: What was fitted on what a database returns, see `sigmax.model.database`.
DATABASE = "database"

#: What a model folder holds.
PARTS = frozenset(
    {"README.md", "sigmax.json", *FILES, "dev.safetensors", "none.safetensors", "novelty.safetensors", INDEX, DATABASE}
    | {"query_encoder", "candidate_encoder", "lexical", "reranker"}
)


class Parts(TypedDict):
    """What is saved of a model: the arguments of `DualEncoder`."""

    query_encoder: nn.Module
    candidate_encoder: nn.Module | None
    loss: MatchLoss
    candidates: Sequence[str]
    candidate_ids: Sequence[str]
    candidate_vectors: Vectors | None
    lexical: Lexical | None
    reranker: Reranker | None
    none_vector: Tensor | None
    pictures: bool
    novelty: Novelty | None
    calibrator: Calibrator | None
    facts: dict[str, Any]


def find_folder(source: str | Path, revision: str | None = None) -> Path:
    """Return where a model lies: a folder here, or one of the hub, fetched.

    Args:
        source: a folder; or, as a text that is no folder here, a model on the hub such as "user/name".
        revision: of a model on the hub, a branch, tag or commit; None for the newest.

    Raises:
        DataError: not a model folder; a hub that has no such model or cannot be reached.
        ValueError: a revision of a folder here.
    """
    folder = Path(source)
    recover_folder(folder)
    if isinstance(source, str) and is_hub_name(source) and not folder.exists():
        return fetch(source, revision)
    if revision is not None:
        raise ValueError(f"{folder}: expected no `revision` of a folder here, got {revision!r}.")
    if not (folder / "sigmax.json").exists():
        what = "an empty or other folder" if folder.is_dir() else "a file" if folder.exists() else "nothing"
        raise DataError(
            f"{folder}: expected a folder with sigmax.json, as `sigmax train DATA -o {folder}` makes it, got {what}."
        )
    return folder


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
    found = {name for name in found if not name.startswith((f".{INDEX}.", f".{DATABASE}."))}
    if found - PARTS:
        raise DataError(
            f"{folder}: a model beside which something else would be lost ({', '.join(sorted(found - PARTS))}). Choose "
            "another folder, or move it."
        )


def write_folder(folder: Path, parts: Parts, *, card: str) -> None:
    """Write a model; one that was there stays whole until this one is.

    Vectors and weights are safetensors; sigmax.json holds scale, bias, family, similarity, calibration and facts. Up to
    `FEW` candidates lie in candidates.jsonl; more in candidates.parquet, row by row with candidates.safetensors, their
    vectors.

    Args:
        folder: where.
        parts: what is saved.
        card: its README.md.

    Raises:
        DataError: something else is there.
        OSError: it cannot be written; nothing is left behind.
    """
    check_place(folder)
    loss, calibrator, none_vector = parts["loss"], parts["calibrator"], parts["none_vector"]
    lexical, reranker, many = parts["lexical"], parts["reranker"], len(parts["candidates"]) > FEW
    saved = None if calibrator is None else calibrator.as_dict()
    # So many are told apart by no calibration, but for one that was fitted when there were fewer.
    if calibrator is not None and saved is not None and many and not isinstance(calibrator.calibration, PlattCandidate):
        saved["candidate_ids"] = []
    about = {
        "format": FORMAT if reranker is not None else 3 if many or lexical is not None else 2,
        "loss": loss.objective.name,
        "similarity": loss.similarity,
        "logit_scale": loss.logit_scale.item(),
        "logit_bias": None if loss.logit_bias is None else loss.logit_bias.item(),
        "calibrator": saved,
        "two_encoders": parts["candidate_encoder"] is not None,
        "pictures": parts["pictures"],
        **({} if reranker is None else {"reranker": reranker.config()}),
        "facts": parts["facts"],
    }
    if many:
        encoders = parts["query_encoder"], parts["candidate_encoder"]
        about["fingerprints"] = {
            "vectors": vectors_fingerprint(*encoders, loss.similarity),
            "candidates": texts_fingerprint(parts["candidate_ids"], parts["candidates"]),
        }
    with replace_folder(folder) as fresh:
        try:
            save_encoder(parts["query_encoder"], fresh / "query_encoder")
            if parts["candidate_encoder"] is not None:
                save_encoder(parts["candidate_encoder"], fresh / "candidate_encoder")
            if lexical is not None:
                save_encoder(lexical, fresh / "lexical")
            if reranker is not None:
                reranker.save(fresh / "reranker")
        except SafetensorError as error:
            raise OSError(f"{folder}: could not be written ({error}). Is the disk full?") from error
        vectors = parts["candidate_vectors"] if many else None
        write_candidates(fresh, parts["candidate_ids"], parts["candidates"], vectors)
        if calibrator is not None and (tensors := calibrator.as_tensors()):
            save_arrays(tensors, str(fresh / "dev.safetensors"))
        if parts["novelty"] is not None:
            save_arrays(parts["novelty"].as_tensors(), str(fresh / "novelty.safetensors"))
        if none_vector is not None:
            save_file({"vector": none_vector.detach().cpu()}, str(fresh / "none.safetensors"))
        (fresh / "sigmax.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (fresh / "README.md").write_text(card, encoding="utf-8")


def read_folder(folder: Path) -> Parts:
    """Read what `write_folder` wrote, in this version or an older one.

    Raises:
        DataError: a newer format, or a damaged folder.
    """
    try:
        about = json.loads((folder / "sigmax.json").read_text(encoding="utf-8"))
        if about["format"] > FORMAT:
            raise DataError(
                f"{folder}: written in format {about['format']}, this version of Sigmax reads up to {FORMAT}. Upgrade."
            )
        loss = make_loss(
            about["loss"],
            logit_scale=about["logit_scale"],
            logit_bias=about["logit_bias"] or 0.0,
            similarity=about["similarity"],
        )
        candidate_ids, candidates, vectors = read_candidates(folder)
        none_file = folder / "none.safetensors"
        parts = Parts(
            query_encoder=load_encoder(folder / "query_encoder"),
            candidate_encoder=load_encoder(folder / "candidate_encoder") if about["two_encoders"] else None,
            loss=loss,
            candidates=candidates,
            candidate_ids=candidate_ids,
            candidate_vectors=vectors,
            lexical=_read_lexical(folder / "lexical"),
            reranker=_read_reranker(about, folder / "reranker"),
            none_vector=load_file(str(none_file))["vector"] if none_file.exists() else None,
            pictures=about.get("pictures", False),
            novelty=_read_novelty(folder / "novelty.safetensors"),
            calibrator=_read_calibrator(about, folder),
            facts=dict(about["facts"]),
        )
        for module in (parts["query_encoder"], parts["candidate_encoder"], parts["lexical"], parts["reranker"]):
            for tensor in () if module is None else (*module.parameters(), *module.buffers()):
                if tensor.nbytes < MAPPED_FROM:  # safetensors maps files: one cut short later would end the process
                    tensor.data = tensor.data.clone()
        return parts
    except DataError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
        FileNotFoundError,
        SafetensorError,
    ) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{folder}: the model folder is damaged ({type(error).__name__}: {reason}). Train it again."
        ) from error


def _read_lexical(folder: Path) -> Lexical | None:
    if not folder.exists():
        return None
    from sigmax.encoders.lexical import Lexical

    return Lexical.read(folder)


def _read_reranker(about: dict[str, Any], folder: Path) -> Reranker | None:
    if "reranker" not in about:
        return None
    from sigmax.model.reranker import Reranker

    return Reranker.read(folder, **about["reranker"])


def _read_calibrator(about: dict[str, Any], folder: Path) -> Calibrator | None:
    if about["format"] == 1:  # a curve and a threshold, before rules were
        curve = about["calibration"]
        return curve and Calibrator(calibration_from_dict(curve), (), threshold=float(about["threshold"]))
    if about["calibrator"] is None:
        return None
    record = folder / "dev.safetensors"
    tensors = load_arrays(str(record)) if record.exists() else None
    checked_texts(about["calibrator"]["candidate_ids"])
    if tensors is None:
        return Calibrator.from_dict(about["calibrator"], None)
    return Calibrator.from_dict(about["calibrator"], Record.from_tensors(tensors), Familiar.from_tensors(tensors))


def _read_novelty(file: Path) -> Novelty | None:
    return Novelty.from_tensors(load_arrays(str(file))) if file.exists() else None
