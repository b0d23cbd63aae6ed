"""Any denoiser as a small ONNX file: inputs y (batch, *event) and sigma (), output x_hat, all
float32."""

import copy
import io
import logging
import warnings
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..denoisers import Denoiser

OPSET = 20
# between torch and the exported graph, in units of the largest value, of y too, at least 1
TOLERANCE = 1e-5
HALVED = 1024  # bytes of a tensor from which on half of them are worth a node of the graph
BATCHES = (1, 2, 33)  # the batch size is free: the check runs several

# Tracing takes seconds and depends on the structure of a denoiser alone; its numbers are put in
# afterwards.
_graphs: dict[tuple, list[Any]] = {}


def export(
    denoiser: Denoiser, sigmas: Tensor | None = None, event: tuple[int, ...] | None = None
) -> bytes:
    """The denoiser as an ONNX model (opset 20), as bytes; equal denoisers give equal bytes.

    sigmas (L,), positive: the levels at which the graph will run; needed by denoisers that are
    fitted anew at each level, which answer at the nearest of them. event: the shape of one y, where
    the denoiser does not fix it. Raises ValueError when the denoiser cannot be exported, naming
    what stands in the way, and when the model differs from torch in float64 by more than TOLERANCE
    on random inputs: then it would show the reader another denoiser.
    """
    event = denoiser.event_shape if event is None else tuple(event)
    if event is None:
        raise ValueError(
            f"{type(denoiser).__name__} takes images of any size: pass event=(channels, height, width)"
        )
    given, denoiser = denoiser, copy.deepcopy(denoiser).double().eval()
    # as the graph's input holds them
    levels = torch.tensor([0.05, 1.0, 20.0]) if sigmas is None else sigmas.float()
    for module, fitted in zip(denoiser.modules(), given.modules(), strict=True):
        if hasattr(module, "tabulate"):
            if sigmas is None:
                raise ValueError(
                    f"{type(module).__name__} is fitted at each noise level: pass sigmas=schedule[:-1]"
                )
            module.tabulate(levels.double(), fitted)  # whose fits are kept: they cost time
    data = _model(denoiser, event, torch.float32)
    gap = _gap(denoiser, data, levels, event)
    # large numbers that cancel need more digits inside, where onnxruntime can give them
    if not gap <= TOLERANCE:
        try:
            data = _model(denoiser, event, torch.float64)
            gap = _gap(denoiser, data, levels, event)
        except ValueError:
            pass
    if not gap <= TOLERANCE:
        raise ValueError(
            f"the exported {type(denoiser).__name__} differs from torch by {gap:.1e}, even in float64"
        )
    return data


def _model(denoiser: Denoiser, event: tuple[int, ...], dtype: torch.dtype) -> bytes:
    """The model whose stored numbers and inner arithmetic have the given type."""
    import onnx

    state = {
        k: v.detach().to(dtype) if v.is_floating_point() else v.detach()
        for k, v in denoiser.state_dict().items()
    }
    # by the names too: a convolution without a bias has the structure of one with a bias
    candidates = _graphs.setdefault((dtype, event, tuple(state), _structure(denoiser)), [])
    graph = next((g for g in candidates if _fits(g, state)), None)
    if graph is None:
        graph = _trace(denoiser, state, event, dtype)
        candidates.append(graph)
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    inputs = list(model.graph.input)
    del model.graph.input[2:]
    numbers = [
        onnx.numpy_helper.from_array(state[i.name].numpy(force=True), i.name) for i in inputs[2:]
    ]
    model.graph.initializer.extend(numbers)
    _halve(model)
    return model.SerializeToString(deterministic=True)


def _halve(model: Any) -> None:
    """Stores numbers that float16 holds exactly, as the weights of networks that ship are, in half
    the bytes; the graph begins by making them float32 again."""
    import onnx

    casts = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.nbytes < HALVED:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


class _Functional(nn.Module):
    """The denoiser with its numbers as arguments. It is no submodule, so that none of them becomes
    a constant."""

    def __init__(self, denoiser: Denoiser, names: list[str], dtype: torch.dtype):
        super().__init__()
        self.call = lambda state, *inputs: functional_call(
            denoiser, dict(zip(names, state, strict=True)), inputs
        )
        self.dtype = dtype

    def forward(self, y: Tensor, sigma: Tensor, state: list[Tensor]) -> Tensor:
        return self.call(state, y.to(self.dtype), sigma.to(self.dtype)).float()


def traced(module: Any, given: tuple, **named: Any) -> Any:
    """The ONNX model of a module traced at `given`, in silence, without what is left of the tracing:
    paths of this machine, names that change from run to run, shapes nobody asks for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, given, opset_version=OPSET, dynamo=True, external_data=False, **named
            )
    finally:
        logger.setLevel(level)
    assert program is not None  # only old exporters return nothing
    model = program.model_proto
    del model.graph.value_info[:], model.metadata_props[:], model.graph.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    for i, node in enumerate(model.graph.node):
        del node.metadata_props[:]
        node.doc_string, node.name = "", str(i)
    return model


def _trace(
    denoiser: Denoiser, state: dict[str, Tensor], event: tuple[int, ...], dtype: torch.dtype
) -> Any:
    names = list(state)
    shapes = {"y": {0: torch.export.Dim("batch", min=1)}, "sigma": {}, "state": [{} for _ in names]}
    try:
        model = traced(
            _Functional(denoiser, names, dtype).eval(),
            (torch.ones(3, *event), torch.tensor(1.0), [state[n] for n in names]),
            input_names=["y", "sigma", *names],
            output_names=["x_hat"],
            dynamic_shapes=shapes,
        )
    # the exporter has many classes of errors, all of which mean the same here
    except Exception as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(
            f"{type(denoiser).__name__} cannot be exported to ONNX: {reason}"
        ) from error
    used = {name for node in model.graph.node for name in node.input}
    kept = [i for i in model.graph.input if i.name in used or i.name in ("y", "sigma")]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    for function in model.functions:
        raise ValueError(
            f"{type(denoiser).__name__} exports the function {function.name}, which browsers do not have"
        )
    return model


def _structure(denoiser: Denoiser) -> tuple:
    """All of a denoiser but its tensors: classes and plain attributes, which tracing turns into
    constants."""
    plain = (bool, int, float, str, tuple, list, Tensor, type(None))
    return tuple(
        (
            name,
            type(m),
            *sorted(
                (k, repr(v)) for k, v in vars(m).items() if isinstance(v, plain) and k[0] != "_"
            ),
        )
        for name, m in denoiser.named_modules()
    )


def _fits(graph: Any, state: dict[str, Tensor]) -> bool:
    shapes = {
        i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim)
        for i in graph.graph.input[2:]
    }
    return all(
        name in state and tuple(state[name].shape) == shape for name, shape in shapes.items()
    )


def _gap(denoiser: Denoiser, data: bytes, sigmas: Tensor, event: tuple[int, ...]) -> float:
    """Largest difference between the model and the denoiser, in float64, in units of the largest
    value, at least 1.

    y is one of the values: an answer near 1 to a y of 20 is a difference of two numbers that
    float32 has rounded.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(
            f"{type(denoiser).__name__} exports to ONNX, but no runtime takes it: {error}"
        ) from error
    names = {i.name for i in session.get_inputs()}  # a blind denoiser has no sigma
    g, gaps = torch.Generator().manual_seed(0), []
    for sigma in sigmas[torch.linspace(0, len(sigmas) - 1, 3).long()].tolist():
        for batch in BATCHES:
            y = (1 + sigma) * torch.randn(batch, *event, generator=g)
            with torch.no_grad():
                expected = denoiser(y.double(), sigma)
            feeds = {"y": y.numpy(), "sigma": np.array(sigma, dtype=np.float32)}
            (found,) = session.run(None, {k: v for k, v in feeds.items() if k in names})
            largest = max(1.0, float(expected.abs().max()), float(y.abs().max()))
            gaps.append(float((torch.from_numpy(found) - expected).abs().max()) / largest)
    return max(gaps)
