"""A step of training and the answers of a network as ONNX graphs, forward and backward by hand: a
tracer takes a hundred times as long and fixes what is free here."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..denoisers.mlp import ACTIVATIONS
from .export import OPSET
from .steps import Layers, exponents

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam, as torch has them


class _Graph:
    """ONNX nodes, one for each call: g.Add(a, b) is the name of the sum. Numbers become constants."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def __getattr__(self, op: str) -> Any:
        return lambda *inputs, count=1, **attributes: self.node(op, inputs, count, attributes)

    def node(self, op: str, inputs: Sequence, count: int, attributes: dict) -> Any:
        from onnx import helper

        names = [f"{len(self.nodes)}.{i}" for i in range(count)]
        given = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        self.nodes.append(helper.make_node(op, given, names, **attributes))
        return names[0] if count == 1 else names

    def constant(self, value: Any) -> str:
        plain = {int: np.float32, float: np.float32, list: np.int64}  # all others know their own
        array = np.asarray(value, dtype=plain.get(type(value)))
        name = f"{array.dtype}{array.shape}{array.tolist()}"
        self.constants[name] = array
        return name

    def columns(self, rows: str, *sizes: int) -> list[str]:
        return self.Split(rows, list(sizes), axis=1, count=len(sizes))

    def bytes(self, inputs: list[tuple], outputs: list[tuple]) -> bytes:
        """inputs, outputs: (name, number of dimensions, type); of outputs also the name here."""
        from onnx import TensorProto, checker, helper, numpy_helper

        for name, here, *_ in outputs:
            self.nodes.append(helper.make_node("Identity", [here], [name]))

        def info(name: str, rank: int, kind: str = "FLOAT") -> Any:
            return helper.make_tensor_value_info(name, getattr(TensorProto, kind), [None] * rank)

        graph = helper.make_graph(
            self.nodes,
            "denoiser",
            [info(*i) for i in inputs],
            [info(name, *rest) for name, _, *rest in outputs],
            [numpy_helper.from_array(a, name) for name, a in self.constants.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9
        )
        checker.check_model(model)
        return model.SerializeToString(deterministic=True)


def every(depths: Sequence[int], degrees: Sequence[int]) -> dict[str, bytes]:
    """All graphs of a lab by name: "silu 3 step", "degree 2 field"."""
    kinds = {f"{a} {n}": Layers((8,) * n, activation=a) for a in ACTIVATIONS for n in depths}
    kinds |= {f"degree {k}": Layers(degree=k) for k in degrees}
    exports = {"step": export_step, "field": export_field}
    return {f"{k} {what}": make(n) for k, n in kinds.items() for what, make in exports.items()}


def export_step(layers: Layers) -> bytes:
    r"""A step of training as an ONNX graph: forward, backward and Adam, float32 inside.

    Inputs, in this order: the parameters; `mean` and `square`, Adam's moments of all parameters one
    after the other, (n,); `step` from 1 and `rate`, (), float64; `batch` (size, 9), see
    `steps.rows`. Outputs: the first k + 2 anew, and `loss`, of the batch before the step, as
    `training.train` has it with the loss "edm", where

        m <- b_1 m + (1 - b_1) g,  v <- b_2 v + (1 - b_2) g^2,
        p <- p - rate (m / (1 - b_1^t)) / (sqrt(v / (1 - b_2^t)) + epsilon).

    Widths and batch are free: one graph serves all networks of a depth and an activation, in all
    forms, or all polynomials of a degree. Source: Kingma & Ba 2015, algorithm 1.
    """
    g, names = _Graph(), [name for name, _ in layers.named_parameters()]
    x, y, a, b, c, t, w = g.columns("batch", 2, 2, 1, 1, 1, 1, 1)
    f, taken = _forward(g, layers, y, c, t)
    error = g.Sub(g.Add(g.Mul(a, y), g.Mul(b, f)), x)
    loss = g.ReduceMean(g.Mul(w, g.Mul(error, error)), keepdims=0)
    size = g.Cast(g.Gather(g.Shape("batch"), np.int64(0)), to=1)
    slope = g.Div(g.Mul(g.Mul(w, b), error), size)  # of the loss, by what each layer gives
    slopes: list[str] = []
    for weight, (z, p) in zip(_weights(layers)[::-1], taken[::-1], strict=True):
        slopes = [g.Gemm(slope, z, transA=1), g.ReduceSum(slope, [0], keepdims=0), *slopes]
        slope = p and g.Mul(g.MatMul(slope, weight), _derivative(g, layers, p, z))
    flat = g.Concat(*(g.Reshape(s, [-1]) for s in slopes), axis=0)
    one, two = BETAS
    mean = g.Add("mean", g.Mul(1 - one, g.Sub(flat, "mean")))
    square = g.Add(g.Mul(two, "square"), g.Mul(1 - two, g.Mul(flat, flat)))
    # in float64, as 1 - .999 has four digits in float32
    first, second = (g.Sub(np.float64(1), g.Pow(np.float64(beta), "step")) for beta in BETAS)
    root = g.Sqrt(second)
    ahead = g.Cast(g.Div(g.Mul("rate", root), first), to=1)
    least = g.Cast(g.Mul(np.float64(EPSILON), root), to=1)
    change = g.Div(g.Mul(ahead, mean), g.Add(g.Sqrt(square), least))
    sizes = g.Concat(*(g.Reshape(g.Size(n), [1]) for n in names), axis=0)
    parts = g.Split(change, sizes, axis=0, count=len(names))
    moved = [g.Sub(n, g.Reshape(part, g.Shape(n))) for n, part in zip(names, parts, strict=True)]
    ranks = [*(p.ndim for p in layers.parameters()), 1, 1]
    state = list(zip([*names, "mean", "square"], [*moved, mean, square], ranks, strict=True))
    return g.bytes(
        [*((n, rank) for n, _, rank in state), *((n, 0, "DOUBLE") for n in ("step", "rate")), ("batch", 2)],
        [*((f"new.{n}", here, rank) for n, here, rank in state), ("loss", loss, 0)],
    )  # fmt: skip


def export_field(layers: Layers) -> bytes:
    """The network's answers as an ONNX graph: the parameters and `rows` (size, 6), y and the
    coefficients a, b, c and t, to `x_hat` (size, 2) and `trace` (size,), that of the Jacobian."""
    g = _Graph()
    y, a, b, c, t = g.columns("rows", 2, 1, 1, 1, 1)
    f, taken = _forward(g, layers, y, c, t)
    moved = (_moved(g, layers, y, c, taken, axis) for axis in (0, 1))
    trace = g.Add(g.Mul(2, a), g.Mul(b, g.Add(*moved)))
    x_hat = g.Add(g.Mul(a, y), g.Mul(b, f))
    return g.bytes(
        [*((n, p.ndim) for n, p in layers.named_parameters()), ("rows", 2)],
        [("x_hat", x_hat, 2), ("trace", g.Reshape(trace, [-1]), 1)],
    )


def _forward(g: _Graph, layers: Layers, y: str, c: str, t: str) -> tuple[str, list[tuple]]:
    """F(c y, t), and for each linear layer what it takes and what the activation before it took."""
    z = g.Mul(c, y)
    if layers.degree:
        z = g.Mul(*(_polynomials(g, layers, p, i)[0] for i, p in enumerate(g.columns(z, 1, 1))))
    else:
        z = g.Concat(z, t, axis=1)
    taken, weights = [(z, "")], _weights(layers)
    for weight in weights:
        p = g.Gemm(z, weight, weight.replace("weight", "bias"), transB=1)
        if weight != weights[-1]:
            z = {"relu": g.Relu, "tanh": g.Tanh}.get(
                layers.activation, lambda p: g.Mul(p, g.Sigmoid(p))
            )(p)
            taken.append((z, p))
    return p, taken


def _moved(g: _Graph, layers: Layers, y: str, c: str, taken: list[tuple], axis: int) -> str:
    """The derivative of F_axis by y_axis, (size, 1)."""
    if layers.degree:
        parts = [_polynomials(g, layers, z, i) for i, z in enumerate(g.columns(g.Mul(c, y), 1, 1))]
        v = g.Mul(c, g.Mul(*(part[i == axis] for i, part in enumerate(parts))))
    else:
        v = g.Mul(c, np.eye(3, dtype=np.float32)[axis : axis + 1])
    for weight, (z, p) in zip(_weights(layers), [*taken[1:], ("", "")], strict=True):
        v = g.Gemm(v, weight, transB=1)
        v = g.Mul(v, _derivative(g, layers, p, z)) if p else v
    return g.Gather(v, [axis], axis=1)


def _derivative(g: _Graph, layers: Layers, p: str, z: str) -> str:
    """Of the activation z = f(p)."""
    if layers.activation == "relu":
        return g.Cast(g.Greater(p, 0), to=1)
    if layers.activation == "tanh":
        return g.Sub(1, g.Mul(z, z))
    s = g.Sigmoid(p)
    return g.Add(s, g.Mul(z, g.Sub(1, s)))


def _polynomials(g: _Graph, layers: Layers, z: str, axis: int = 0) -> list[str]:
    """The factors that z (size, 1), coordinate `axis`, gives to each Hermite polynomial of two, and
    their derivatives."""
    he = [g.Add(g.Mul(0, z), 1), z]
    for n in range(1, layers.degree):
        he.append(g.Div(g.Sub(g.Mul(z, he[n]), g.Mul(math.sqrt(n), he[n - 1])), math.sqrt(n + 1)))
    slopes = [g.Mul(0, z), *(g.Mul(math.sqrt(n + 1), h) for n, h in enumerate(he[:-1]))]
    which = [e[axis] for e in exponents(layers.degree)]
    return [g.Gather(g.Concat(*parts, axis=1), which, axis=1) for parts in (he, slopes)]


def _weights(layers: Layers) -> list[str]:
    return [name for name, _ in layers.named_parameters() if name.endswith("weight")]
