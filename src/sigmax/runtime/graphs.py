"""The network of an exported model, operation by operation: bags of rows, similarity, scale, bias, presence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from sigmax.calibration.curves import SHARE_BOUND, Beta, Calibration, Isotonic, Platt, PlattCandidate, Quadratic
from sigmax.errors import DataError

__all__ = ["Nodes", "bag_model", "finish"]

#: Version of the operations.
OPSET = 20
#: Version of the file that holds them: what onnxruntime reads since 1.18.
IR_VERSION = 10


class Nodes:
    """Operations one after the other; each gives the name of what it makes."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._count = 0

    def __call__(self, operation: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Add an operation."""
        name = out or self._name(operation)
        self.nodes.append(helper.make_node(operation, inputs, [name], **attributes))
        return name

    def constant(self, value: Any, kind: type = np.float64) -> str:
        """Add an array, float64 by default."""
        name = self._name("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def into(self, graph: GraphProto) -> None:
        """Append all to a graph."""
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.constants)

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{self.prefix}/{what}_{self._count}"


# -- texts to vectors ----------------------------------------------------------------------------


def bag_model(
    table: NDArray[np.float32],
    *,
    int8: bool,
    cosine: bool,
    constant: bool = False,
    frozen: Mapping[str, NDArray[np.float32] | None] | None = None,
) -> ModelProto:
    """Return ids (b, l), weights (b, l) -> vectors (b, d): v = Σ_l weight_l · table[id_l].

    Args:
        table: (v, d).
        int8: whether each row is kept as int8 and its scale, max |row| / 127.
        cosine: whether vectors are brought to length 1.
        constant: whether a coordinate of 1 is then added.
        frozen: mean, deviation, and layer (None for a constant coordinate instead) that follow, see `FrozenEncoder`.
    """
    add = Nodes("sigmax/encoder")
    weights = "weights"
    if int8:
        scale = np.maximum(np.abs(table).max(1), 1e-30) / 127
        rows = add("Gather", add.constant(np.rint(table / scale[:, None]), np.int8), "ids")
        rows = add("Cast", rows, to=TensorProto.FLOAT)
        weights = add("Mul", weights, add("Gather", add.constant(scale, np.float32), "ids"))
    else:
        rows = add("Gather", add.constant(table, np.float32), "ids")
    row = add("Unsqueeze", weights, add.constant([1], np.int64))
    vectors = add("Squeeze", add("MatMul", row, rows), add.constant([1], np.int64))
    if frozen is not None:
        mean, deviation = (add.constant(frozen[name], np.float32) for name in ("mean", "deviation"))
        vectors = add("Div", add("Sub", vectors, mean), deviation)
        layer = frozen["layer"]
        if layer is not None:
            vectors = add("MatMul", vectors, add.constant(layer.T, np.float32))
        else:
            vectors = _with_constant(add, vectors)
    if cosine:
        length = add("ReduceL2", vectors, add.constant([-1], np.int64), keepdims=1)
        vectors = add("Div", vectors, add("Max", length, add.constant(1e-30, np.float32)))
    if constant:
        vectors = _with_constant(add, vectors)
    add("Identity", vectors, out="vectors")
    graph = helper.make_graph(
        [],
        "sigmax",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["b", "l"]),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["b", "l"]),
        ],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["b", "d"])],
    )
    add.into(graph)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _with_constant(add: Nodes, vectors: str) -> str:
    pads = add.constant([0, 0, 0, 1], np.int64)  # none before either axis, one after the last
    return add("Pad", vectors, pads, add.constant(1.0, np.float32), mode="constant")


# -- vectors to logits, shares and presences -----------------------------------------------------


def finish(
    model: ModelProto,
    *,
    scale: float,
    bias: float | None,
    width: int,
    lexical: bool,
    none: NDArray[np.float32] | None,
    calibration: Calibration | None,
    metadata: Mapping[str, str],
) -> None:
    """Append what follows the vectors (b, d) of a network: s = scale · ⟨vector, candidate⟩ + bias, and what it says.

    Inputs: candidates (m, d); shared (b, m), what shared words add, where the model has a lexical view; with_presence
    (), true unless given. Outputs: vectors; logits (b, m); none (b,), the logits of *none of these* where it was
    trained; share and presence (b, m), or (0, 0) where `with_presence` is false.

    Args:
        model: with an output named vectors.
        scale: logit_scale.
        bias: logit_bias; None without.
        width: d.
        lexical: whether there is the input `shared`.
        none: (d,) of *none of these*.
        calibration: the curve from logits to presence; None for a model that was not calibrated: presence is (0, 0).
        metadata: texts by name.
    """
    graph = model.graph
    add = Nodes("sigmax/match")

    def logits_of(candidates: str) -> str:
        scores = add("Gemm", "vectors", candidates, transB=1)
        scaled = add("Mul", scores, add.constant(scale, np.float32))
        return scaled if bias is None else add("Add", scaled, add.constant(bias, np.float32))

    logits = logits_of("candidates")
    if lexical:
        logits = add("Add", logits, "shared")
    add("Identity", logits, out="logits")
    outputs = [("logits", ["b", "m"])]
    if none is not None:
        add("Squeeze", logits_of(add.constant(none[None], np.float32)), add.constant([1], np.int64), out="none")
        outputs.append(("none", ["b"]))
    inputs = [helper.make_tensor_value_info("candidates", TensorProto.FLOAT, ["m", width])]
    if lexical:
        inputs.append(helper.make_tensor_value_info("shared", TensorProto.FLOAT, ["b", "m"]))
    inputs.append(helper.make_tensor_value_info("with_presence", TensorProto.BOOL, []))
    graph.initializer.append(numpy_helper.from_array(np.array(True), "with_presence"))
    full, empty = Nodes("sigmax/presence"), Nodes("sigmax/empty")
    _presence(full, none is not None, calibration)
    for name in ("share", "presence"):
        empty("Identity", empty.constant(np.zeros((0, 0)), np.float32), out=f"{name}_empty")
    add.nodes.append(
        helper.make_node(
            "If",
            ["with_presence"],
            ["share", "presence"],
            then_branch=_branch("then", full, ("share_full", "presence_full")),
            else_branch=_branch("else", empty, ("share_empty", "presence_empty")),
        )
    )
    outputs += [("share", None), ("presence", None)]  # type: ignore[list-item]
    add.into(graph)
    graph.input.extend(inputs)
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs)
    helper.set_model_props(model, {**{one.key: one.value for one in model.metadata_props}, **metadata})


def _branch(name: str, nodes: Nodes, outputs: Sequence[str]) -> GraphProto:
    values = [helper.make_tensor_value_info(one, TensorProto.FLOAT, [None, None]) for one in outputs]
    graph = helper.make_graph([], name, [], values)
    nodes.into(graph)
    return graph


def _presence(add: Nodes, none: bool, calibration: Calibration | None) -> None:
    add("Softmax", "logits", axis=-1, out="share_full")
    if calibration is None:
        add("Identity", add.constant(np.zeros((0, 0)), np.float32), out="presence_full")
        return
    if type(calibration) not in CURVES:
        raise DataError(
            f"The model's calibration, {calibration.kind}, has no form as a network. Calibrate it by another "
            "(sigmax calibrate --method platt), and export again."
        )
    s = add("Cast", "logits", to=TensorProto.DOUBLE)
    offered = s
    if none:
        column = add("Unsqueeze", add("Cast", "none", to=TensorProto.DOUBLE), add.constant([1], np.int64))
        offered = add("Concat", s, column, axis=1)
    largest = add("ReduceMax", offered, add.constant([-1], np.int64), keepdims=1)
    rest = add("ReduceSum", add("Exp", add("Sub", offered, largest)), add.constant([-1], np.int64), keepdims=1)
    odds = _share_odds(add, s, add("Add", largest, add("Log", rest)))
    presence = add("Sigmoid", CURVES[type(calibration)](add, calibration, s, odds))
    add("Cast", presence, to=TensorProto.FLOAT, out="presence_full")


def _share_odds(add: Nodes, s: str, total: str) -> str:
    """See `sigmax.calibration.curves.share_odds`."""
    gap = add("Min", add("Sub", s, total), add.constant(0.0))
    rest = add("Log", add("Sub", add.constant(1.0), add("Exp", gap)))
    return add("Clip", add("Sub", gap, rest), add.constant(-SHARE_BOUND), add.constant(SHARE_BOUND))


# -- curves, as in `sigmax.calibration.curves` ---------------------------------------------------


def _sum(add: Nodes, *terms: str) -> str:
    total = terms[0]
    for term in terms[1:]:
        total = add("Add", total, term)
    return total


def _times(add: Nodes, factor: Any, x: str) -> str:
    return add("Mul", add.constant(factor), x)


def _softplus(add: Nodes, x: str) -> str:
    small = add("Exp", add("Neg", add("Abs", x)))
    return add("Add", add("Max", x, add.constant(0.0)), add("Log", add("Add", small, add.constant(1.0))))


def _platt(add: Nodes, curve: Platt, s: str, r: str) -> str:
    return _sum(add, _times(add, curve.scale, s), _times(add, curve.share, r), add.constant(curve.bias))


def _beta(add: Nodes, curve: Beta, s: str, r: str) -> str:
    z = _sum(add, _times(add, curve.scale, s), add.constant(curve.bias))
    return _sum(
        add,
        _times(add, curve.b, _softplus(add, z)),
        _times(add, -curve.a, _softplus(add, add("Neg", z))),
        _times(add, curve.share_b, _softplus(add, r)),
        _times(add, -curve.share_a, _softplus(add, add("Neg", r))),
        add.constant(curve.c),
    )


def _quadratic(add: Nodes, curve: Quadratic, s: str, r: str) -> str:
    terms = [add.constant(curve.bias)]
    for view, x in enumerate((s, r)):
        low, high = curve.low[view], curve.high[view]
        above = add("Sub", x, add.constant(low))
        t = add("Clip", _times(add, 1 / (high - low), above), add.constant(0.0), add.constant(1.0))
        half = _times(add, 0.5, add("Mul", t, t))
        first = _times(add, high - low, add("Sub", t, half))
        first = add("Add", first, add("Min", above, add.constant(0.0)))
        last = _times(add, high - low, half)
        last = add("Add", last, add("Max", add("Sub", x, add.constant(high)), add.constant(0.0)))
        terms += [_times(add, curve.first[view], first), _times(add, curve.last[view], last)]
    return _sum(add, *terms)


def _isotonic(add: Nodes, curve: Isotonic, s: str, r: str) -> str:
    """Find the last knot at or below x by halving steps, then go along the line to the next."""
    places, heights = add.constant(curve.places), add.constant(curve.heights)
    end = len(curve.places) - 1
    x = _sum(add, _times(add, curve.scale, s), _times(add, curve.share, r))
    x = add("Clip", x, add.constant(curve.places[0]), add.constant(curve.places[-1]))
    at = add("Cast", add("Mul", x, add.constant(0.0)), to=TensorProto.INT64)
    for step in (2**power for power in reversed(range(max(1, math.ceil(math.log2(end + 1)))))):
        further = add("Min", add("Add", at, add.constant(step, np.int64)), add.constant(end, np.int64))
        at = add("Where", add("GreaterOrEqual", x, add("Gather", places, further)), further, at)
    after = add("Min", add("Add", at, add.constant(1, np.int64)), add.constant(end, np.int64))
    low, high = add("Gather", places, at), add("Gather", places, after)
    gap = add("Max", add("Sub", high, low), add.constant(1e-300))
    part = add("Clip", add("Div", add("Sub", x, low), gap), add.constant(0.0), add.constant(1.0))
    rise = add("Sub", add("Gather", heights, after), add("Gather", heights, at))
    return add("Add", add("Gather", heights, at), add("Mul", part, rise))


def _per_candidate(add: Nodes, curve: PlattCandidate, s: str, r: str) -> str:
    base = CURVES[type(curve.base)](add, curve.base, s, r)
    return add("Add", _times(add, curve.scales, base), add.constant(curve.biases))


#: Each curve as operations: (nodes, curve, logits, log odds of shares) -> log odds of presence, all float64.
CURVES: dict[type[Calibration], Callable[[Nodes, Any, str, str], str]] = {
    Platt: _platt,
    Beta: _beta,
    Quadratic: _quadratic,
    Isotonic: _isotonic,
    PlattCandidate: _per_candidate,
}
