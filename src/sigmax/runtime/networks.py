"""Encoders as networks: what reads their texts, and texts' inputs to vectors as ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, load
from torch import Tensor, nn

from sigmax.encoders.frozen import FrozenEncoder
from sigmax.encoders.labels import with_constant
from sigmax.encoders.module import encodes
from sigmax.encoders.ngrams import NgramEmbedding
from sigmax.encoders.static import StaticVectors
from sigmax.errors import DataError, first_line
from sigmax.runtime.graphs import OPSET, bag_model

__all__ = ["NETWORKS", "Network", "network_of"]


@dataclass(frozen=True, eq=False)
class Network:
    """A query encoder, exported."""

    model: ModelProto  #: with the output vectors (b, d)
    reader: dict[str, Any]  #: settings of what makes its inputs, see `sigmax.runtime.reading.READERS`
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)  #: that the reader needs


class End(NamedTuple):
    """What follows an encoder's vectors."""

    cosine: bool = False  #: whether they are brought to length 1
    constant: bool = False  #: whether a coordinate of 1 is then added, which meets the labels' biases


def network_of(encoder: nn.Module, *, cosine: bool, int8: bool, constant: bool = False) -> Network:
    """Make an encoder a network.

    Args:
        encoder: of the queries.
        cosine: whether vectors are brought to length 1.
        int8: whether weights are kept as int8.
        constant: whether a coordinate of 1 is then added.

    Raises:
        DataError: an encoder that cannot be exported.
    """
    for kind, made in NETWORKS.items():
        if isinstance(encoder, kind):
            return made(encoder, End(cosine, constant), int8)
    if hasattr(encoder, "tokenizer"):
        return _transformer(encoder, End(cosine, constant), int8)
    raise DataError(
        f"The encoder {type(encoder).__name__} cannot be exported: n-grams, static vectors, transformers over texts "
        "and linear heads on them can. Serve the model folder itself."
    )


# -- bags ----------------------------------------------------------------------------------------


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array


def _bags(encoder: nn.Module, end: End, int8: bool, frozen: Any = None) -> Network | None:
    if isinstance(encoder, NgramEmbedding):
        read = encoder.features
        settings = {name: getattr(read, name) for name in ("words", "characters", "digits_alike")}
        model = bag_model(
            _array(encoder.table.weight), int8=int8, cosine=end.cosine, constant=end.constant, frozen=frozen
        )
        return Network(model, {"kind": "ngrams", **settings}, {"buckets": read.buckets, "idf": read.idf})
    if isinstance(encoder, StaticVectors):
        model = bag_model(
            _array(encoder.embedding.weight), int8=int8, cosine=end.cosine, constant=end.constant, frozen=frozen
        )
        return Network(model, {"kind": "tokens", "tokenizer": encoder.tokenizer.to_str()})
    return None


def _table(encoder: nn.Module, end: End, int8: bool) -> Network:
    made = _bags(encoder, end, int8)
    assert made is not None
    return made


def _frozen(encoder: FrozenEncoder, end: End, int8: bool) -> Network:
    layer = None if encoder.linear else _array(cast(nn.Linear, encoder.layer).weight)
    follows = {"mean": _array(encoder.mean), "deviation": _array(encoder.deviation), "layer": layer}
    made = _bags(encoder.trunk, end, int8, follows)
    if made is not None:
        return made
    if not hasattr(encoder.trunk, "tokenizer"):
        raise DataError(
            f"The frozen encoder {type(encoder.trunk).__name__} cannot be exported. Serve the model folder."
        )

    def after(vectors: Tensor) -> Tensor:
        made: Tensor = encoder({"vectors": vectors})["sentence_embedding"]
        return made

    return _transformer(encoder.trunk, end, int8, after)


# -- transformers --------------------------------------------------------------------------------

#: A network's inputs, and where an encoding of the tokenizers package has them.
_ATTRIBUTES = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
#: Texts of different lengths, so that the exporter sees that lengths differ.
_EXAMPLES = ("a text", "a somewhat longer text of several words", "one")


class _Vectors(nn.Module):
    """Inputs in their order -> vectors, as they are compared with candidates."""

    def __init__(self, encoder: nn.Module, names: list[str], end: End, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self.names, self.end, self.after = encoder, names, end, after

    def forward(self, *inputs: Tensor) -> Tensor:
        features = dict(zip(self.names, inputs, strict=True))
        vectors: Tensor = self.after(self.encoder(features)["sentence_embedding"].float())
        if self.end.cosine:
            vectors = vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        return with_constant(vectors) if self.end.constant else vectors


def _transformer(
    encoder: nn.Module, end: End, int8: bool, after: Callable[[Tensor], Tensor] = lambda vectors: vectors
) -> Network:
    given = {name: value for name, value in encodes(encoder).preprocess(list(_EXAMPLES)).items()}
    names = [name for name, value in given.items() if isinstance(value, Tensor)]
    tokenizer = getattr(getattr(encoder, "tokenizer", None), "backend_tokenizer", None)
    unknown = sorted(set(names) - _ATTRIBUTES.keys())
    if tokenizer is None or unknown or not names:
        what = f"takes {', '.join(unknown)}" if unknown else "has no tokenizer of the tokenizers package"
        raise DataError(f"The encoder cannot be exported: it {what}. Serve the model folder itself.")
    module = _Vectors(encoder, names, end, after).eval()
    dynamic = tuple({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for _ in names)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                tuple(given[name].cpu() for name in names),
                dynamo=True,
                dynamic_shapes=(dynamic,),
                input_names=names,
                output_names=["vectors"],
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # the exporter's own types have no common base
        raise DataError(
            f"PyTorch's exporter cannot read this encoder ({first_line(error)}). Serve the model folder."
        ) from error
    assert program is not None
    model: ModelProto = program.model_proto
    reader = {
        "kind": "encodings",
        "tokenizer": tokenizer.to_str(),
        "inputs": {name: _ATTRIBUTES[name] for name in names},
    }
    return Network(_quantized(model) if int8 else model, reader)


def _quantized(model: ModelProto) -> ModelProto:
    """Matrix products in int8, weights per column; activations are measured as they come. Tables stay as they are."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as scratch, _quiet():
        path = Path(scratch, "int8.onnx")
        quantize_dynamic(model, path, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
        return load(str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what exporters say of themselves off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


#: How an encoder becomes a network, by its class; subclasses count. Others are read by PyTorch's exporter.
NETWORKS: dict[type[nn.Module], Callable[[Any, End, bool], Network]] = {
    NgramEmbedding: _table,
    StaticVectors: _table,
    FrozenEncoder: _frozen,
}
