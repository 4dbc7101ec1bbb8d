"""Export a model as ONNX, once its answers are seen to be as good as before."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

import sigmax
from sigmax.calibration.curves import Calibration, PlattCandidate
from sigmax.encoders.labels import has_biases
from sigmax.errors import DataError, check_least, extra
from sigmax.evaluation import calibrate, evaluate
from sigmax.files import check_file, replace_file
from sigmax.runtime.onnx_model import OnnxModel, load
from sigmax.runtime.package import FORMAT, KEY, Package, beside, joined

if TYPE_CHECKING:
    from onnx import ModelProto

    from sigmax.calibration.calibrator import Calibrator
    from sigmax.data.dataset import MatchDataset
    from sigmax.encoders.lexical import Lexical
    from sigmax.model.dual_encoder import DualEncoder
    from sigmax.model.matches import Offer
    from sigmax.runtime.networks import Network

__all__ = ["WATCHED", "WORSE", "Export", "export"]

#: Metrics that may not become worse, and whether that is less or more.
WATCHED = {"precision@1": -1, "log_loss": 1}
#: Part by which each may become worse.
WORSE = 0.02
#: Candidates that are asked as queries, to see that both models read texts alike.
PROBES = 64
#: What sums in float32 may differ by: of a logit, as a part of logit_scale and of the logit, with room for long sums.
ROUNDING = 1e-4
#: Largest file that the format holds.
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Export:
    """What was written, and what was measured."""

    path: str
    bytes: int  #: of both files
    int8: bool
    data: str | None = None  #: on which metrics were measured
    split: str | None = None
    before: dict[str, float] | None = None  #: metrics of the model, see `WATCHED`
    after: dict[str, float] | None = None  #: the same of what was written
    bound: float = WORSE  #: part by which each might have become worse

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return asdict(self)


def export(
    model: DualEncoder,
    path: str | Path,
    *,
    int8: bool = False,
    data: MatchDataset | None = None,
    split: str = "dev",
    worse: float = WORSE,
) -> Export:
    """Write a model of texts as FILE.onnx and FILE.npz, which `sigmax.runtime.load` and `sigmax serve` answer from.

    The network takes what texts are read to and gives vectors, logits, shares and presences; beside it lie the
    candidates with their vectors, what reads texts, and the dev split's record that rules decide from.

    With `int8`, rows of tables become int8 with a scale each, and matrix products of transformers int8 with a scale per
    column (onnxruntime's dynamic quantisation). Logits change, so that presences and rules are fitted anew on `split`.

    Args:
        model: with candidates; encoders of n-grams, static vectors, transformers, or frozen ones with a head.
        path: of the .onnx file; FILE.npz is written beside it.
        int8: whether to make it smaller and faster, at some loss of quality.
        data: to measure P@1 and log loss on, before and after; needed with `int8`.
        split: of the data.
        worse: part by which P@1 may fall and log loss rise.

    Returns:
        What was written and measured.

    Raises:
        DataError: a model that cannot be exported; answers that differ; quality that is lost, with the numbers. Nothing
            is written then.
        ImportError: the extra is missing.
        OSError: it cannot be written.
    """
    place = Path(path)
    check_least(0, worse=worse)
    if place.suffix != ".onnx":
        raise ValueError(f"Expected `path` to end in .onnx, got {place}.")
    for one in (place, beside(place)):
        check_file(one)
    if beside(place).exists() and not place.exists():
        raise DataError(f"{beside(place)}: is there already, without {place.name}. Choose another name, or move it.")
    if model.pictures:
        raise DataError("Models of pictures cannot be exported. Serve the model folder itself.")
    if model.reranker is not None:
        raise DataError(
            "A second look cannot be exported. Serve the model folder itself, or train without (rerank none)."
        )
    if not model.candidates:
        raise DataError("The model has no candidates to export. Calibrate it on data: sigmax calibrate DIR DATA.")
    if int8 and data is None:
        raise ValueError("Expected `data` with int8: what it costs is measured before anything is written.")
    with extra("onnx"):
        from sigmax.runtime.networks import network_of
    query = model.query_encoder
    was_training = model.training
    model.eval()
    try:
        biased = has_biases(model.candidate_encoder)
        network = network_of(query, cosine=biased or model.loss.similarity == "cosine", constant=biased, int8=int8)
        about: dict[str, Any] = {"int8": int8}
        with tempfile.TemporaryDirectory() as scratch:
            trial = Path(scratch, "trial.onnx")
            calibrator = model.calibrator
            made = _written(trial, model, network, calibrator, about)
            if not int8:
                _check_answers(model, made)
            measured: dict[str, Any] = {}
            if data is not None:
                if int8 and calibrator is not None:
                    calibrator = calibrate(made, data, split=split, method=_method(calibrator))
                measured = _measured(model, made, data, split, worse)
                about = {**about, **measured}
            _written(place, model, network, calibrator, about)
    finally:
        model.train(was_training)
    size = sum(one.stat().st_size for one in (place, beside(place)))
    return Export(str(place), size, int8, bound=worse, **measured)


def _method(calibrator: Calibrator) -> str:
    return str(calibrator.about.get("method", "auto"))


def _written(
    place: Path, model: DualEncoder, network: Network, calibrator: Calibrator | None, about: Mapping[str, Any]
) -> OnnxModel:
    """Write both files, the arrays first, and read them."""
    arrays = {**network.arrays, **_arrays(model, calibrator)}
    package = Package.of(arrays)
    lexical = model.lexical
    settings = {
        "format": FORMAT,
        "sigmax": sigmax.__version__,
        "fingerprint": package.fingerprint,
        "loss": model.loss.objective.name,
        "similarity": model.loss.similarity,
        "reader": network.reader,
        "lexical": None if lexical is None else _lexical_settings(lexical),
        "none": model.none_vector is not None,
        "calibrator": None if calibrator is None else calibrator.as_dict(),
        "facts": model.facts,
        "export": dict(about),
    }
    made = _finished(model, network.model, calibrator, {KEY: json.dumps(settings)})
    if made.ByteSize() > LARGEST:
        raise DataError(f"The model takes {made.ByteSize():,} bytes, more than an ONNX file holds. Try int8.")
    data = made.SerializeToString()
    del made
    package.write(beside(place))
    with replace_file(place) as file:
        file.write(data)
    return load(place)


def _finished(
    model: DualEncoder, network: ModelProto, calibrator: Calibrator | None, metadata: Mapping[str, str]
) -> ModelProto:
    from onnx import ModelProto

    from sigmax.runtime.graphs import finish

    made = ModelProto()
    made.CopyFrom(network)
    bias, none = model.loss.logit_bias, model.none_vector
    finish(
        made,
        scale=model.loss.logit_scale.item(),
        bias=None if bias is None else bias.item(),
        width=_offer(model).vectors.dense.shape[1],
        lexical=model.lexical is not None,
        none=None if none is None else model.loss.prepare(none.detach()[None])[0].cpu().numpy(),
        calibration=None if calibrator is None else _in_order(calibrator, model),
        metadata=metadata,
    )
    return made


def _in_order(calibrator: Calibrator, model: DualEncoder) -> Calibration:
    """The curve with one scale and bias for each candidate that is offered, where it tells them apart."""
    curve, places = calibrator.calibration, calibrator.places(model.candidate_ids)
    if not isinstance(curve, PlattCandidate) or places is None:
        return curve
    scales, biases = np.array((*curve.scales, curve.scale)), np.array((*curve.biases, curve.bias))
    return replace(curve, scales=tuple(scales[places].tolist()), biases=tuple(biases[places].tolist()))


def _offer(model: DualEncoder) -> Offer:
    """All candidates, whatever finds them otherwise."""
    return cast("Offer", model.offer(exact=True))


def _arrays(model: DualEncoder, calibrator: Calibrator | None) -> dict[str, NDArray[Any]]:
    offer = _offer(model)
    arrays: dict[str, NDArray[Any]] = {"vectors": offer.vectors.dense.float().numpy()}
    for name, texts in (("candidates", offer.candidates), ("candidate_ids", offer.candidate_ids)):
        arrays[name], arrays[f"{name}_ends"] = joined(texts)
    if model.lexical is not None:
        arrays |= _lexical_arrays(model.lexical)
        tokens = model.lexical.tokens(offer.candidates, "candidate")
        arrays |= {f"tokens_{name}": getattr(tokens, name) for name in ("keys", "values", "ends")}
    if model.novelty is not None:
        arrays |= {f"novelty_{name}": array for name, array in model.novelty.as_tensors().items()}
    if calibrator is not None:
        arrays |= {f"dev_{name}": array for name, array in calibrator.as_tensors().items()}
    return arrays


def _lexical_settings(lexical: Lexical) -> dict[str, Any]:
    about = {name: getattr(lexical, name) for name in ("mean_lengths", "k1", "b")}
    return about | {"stemmer": lexical.tokenizer.stemmer}


def _lexical_arrays(lexical: Lexical) -> dict[str, NDArray[Any]]:
    """Weights of the tokens that are known, and of one of each kind that no candidate has."""
    from sigmax.encoders.tokens import KINDS

    keys = lexical.keys.cpu().numpy()
    known = set(keys.tolist())
    unknown = [next(key for key in itertools.count(kind, 4) if key not in known) for kind in range(len(KINDS))]
    return {
        "lexical_keys": keys,
        "lexical_weights": lexical.weight_values(keys),
        "lexical_unknown": lexical.weight_values(np.array(unknown, np.int64)),
    }


# -- what must stay as it was --------------------------------------------------------------------


@torch.no_grad()
def _check_answers(model: DualEncoder, made: OnnxModel) -> None:
    """Compare both models' logits of some candidates, asked as queries: texts must be read alike.

    Raises:
        DataError: they differ by more than rounding does.
    """
    step = max(1, len(model.candidates) // PROBES)
    texts = [*model.candidates[::step][:PROBES], "What is it? Zwölf Boxkämpfer, 12 %", "日本 \u00a0 text 🙂"]
    expected, got = (one.logits(texts, model.candidates) for one in (model, made))
    off = np.abs(expected.values - got.values)
    alike = bool((off <= ROUNDING * (model.loss.logit_scale.item() + np.abs(expected.values))).all())
    for one, other in ((expected.none, got.none), (expected.novelty, got.novelty)):
        alike &= one is other or (one is not None and other is not None and np.allclose(one, other, atol=1e-3))
    if not alike:
        raise DataError(
            f"The exported network's logits differ from the model's by up to {float(off.max()):.2g}, or what goes with "
            "them does, more than rounding explains: texts are not read alike, or a part was left out. Serve the model "
            "folder itself."
        )


def _measured(model: DualEncoder, made: OnnxModel, data: MatchDataset, split: str, worse: float) -> dict[str, Any]:
    """Measure both.

    Raises:
        DataError: what was lost is more than allowed.
    """
    if list(data.candidates) != list(model.candidates):
        raise DataError(
            f"{data.name}: its candidates are not the model's, so that nothing can be compared. Give the data that it "
            "was trained on; for others, sigmax calibrate DIR DATA first."
        )
    before, after = (
        {name: found[name].value for name in WATCHED if name in found.draws}
        for found in (evaluate(one, data, split=split, draws=0) for one in (model, made))
    )
    lost = [name for name in before if WATCHED[name] * (after[name] - before[name]) > worse * abs(before[name])]
    if lost:
        told = "; ".join(f"{name} {before[name]:.4f} before, {after[name]:.4f} after" for name in before)
        raise DataError(
            f"Nothing was written: on {split} of {data.name}, {' and '.join(lost)} would become worse by more than "
            f"{worse:.0%} ({told}). Leave out int8, or allow more."
        )
    return {"data": data.name, "split": split, "before": before, "after": after}
