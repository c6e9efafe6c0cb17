"""The encoder's graph as a torch module: straight-line code that torch.compile can fuse."""

from __future__ import annotations

from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch

from fusedx.engine.cuda.encoder import Network
from fusedx.engine.cuda.prior_tail import prior_tail
from fusedx.engine.encoder import onnx_file
from fusedx.engine.encoder.graph import Graph, Node
from fusedx.engine.encoder.half import BFLOAT16
from fusedx.engine.encoder.tensorrt.typed import typed
from fusedx.engine.encoder.torch import OPERATORS

#: From the saliency map and the image to the chosen cells' corners and tiles, in one kernel.
PRIOR_TAIL = "PriorTail"


def fuse_prior_tail(graph: Graph) -> Graph:
    """The same graph with the region choice and the tile gather, some thirty small operators, as one PriorTail node.

    They are found by what network.py always makes: the value ``cells_rc`` (corners, float [B,6,2]) and the one GatherND.
    """
    gather = next((n for n in graph.nodes if n.op == "GatherND"), None)
    corners = next((n for n in graph.nodes if n.outputs == ("cells_rc",)), None)
    if gather is None or corners is None:
        return graph
    tiles = next(n for n in graph.nodes if gather.outputs[0] in n.inputs)
    saliency = next(n.inputs[0] for n in graph.nodes if n.outputs == ("saliency",))
    first = next(i for i, n in enumerate(graph.nodes) if saliency in n.outputs) + 1
    fused = Node(PRIOR_TAIL, (saliency, graph.inputs[0]), ("cells_rc", *tiles.outputs), {})
    kept = [n for n in graph.nodes if n is not corners and n is not tiles]
    return without_unused(Graph(list(graph.inputs), list(graph.outputs), [*kept[:first], fused, *kept[first:]], graph.constants))


def without_unused(graph: Graph) -> Graph:
    """Nodes and constants that lead to no output left out."""
    needed, nodes = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            needed |= set(node.inputs)
            nodes.append(node)
    constants = {name: array for name, array in graph.constants.items() if name in needed}
    return Graph(list(graph.inputs), list(graph.outputs), nodes[::-1], constants)


def open_network(path: Path, device: torch.device, precision: str, *, compiler: str | None) -> tuple[Network, list[str]]:
    """encoder.onnx as a function of images float32 [B,3,224,224], and the names of its outputs.

    precision: fp32, bf16 or fp16, with float32 kept where the answer is decided (tensorrt/typed.py says where).
    compiler: a backend of torch.compile, or None to run operator by operator.
    """
    graph = fuse_prior_tail(typed(onnx_file.read(path), precision))
    network = EncoderModule(graph, device).eval()
    run: Any = network if compiler is None else compiled(network, compiler)
    return lambda images, branch: run(images.contiguous(memory_format=torch.channels_last)), graph.outputs


def compiled(network: EncoderModule, compiler: str) -> Any:
    """The module as a compiled function, one form a batch size.

    torch counts the forms of a code object, whichever module they are of, and gives up after eight: every form has its own copy.
    """
    forms: dict[int, Any] = {}

    def run(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if len(images) not in forms:
            own = FunctionType(EncoderModule.forward.__code__.replace(), EncoderModule.forward.__globals__)
            forms[len(images)] = torch.compile(MethodType(own, network), backend=compiler, dynamic=False, fullgraph=True)
        return forms[len(images)](images)

    return run


class EncoderModule(torch.nn.Module):
    """image [B,3,224,224] -> every output, as a tuple in the graph's order.

    Weights of convolutions are stored channels-last, as tensor cores want them; a value is dropped after its last use.
    """

    def __init__(self, graph: Graph, device: torch.device) -> None:
        super().__init__()
        self._input, self._outputs = graph.inputs[0], tuple(graph.outputs)
        self._constants: dict[str, Any] = {}
        for name, array in graph.constants.items():
            self._constants[name] = _on_device(array, device)
        table = OPERATORS | _OPERATORS
        kept = set(graph.outputs)
        last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
        self._program = [
            (table[node.op], node.inputs, node.outputs, node.attributes, [n for n in set(node.inputs) - kept if last[n] == i])
            for i, node in enumerate(graph.nodes)
        ]

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = {**self._constants, self._input: image}
        for function, inputs, outputs, attributes, done in self._program:
            result = function(*[values[name] for name in inputs], **attributes)
            for name, value in zip(outputs, result if len(outputs) > 1 else (result,), strict=True):
                values[name] = value
            for name in done:
                del values[name]
        return tuple(values[name] for name in self._outputs)


def _on_device(array: np.ndarray, device: torch.device) -> Any:
    """A weight; shapes and axes as plain lists or numbers, because they are arguments, not data."""
    if array.dtype == np.int64:
        return array.tolist()
    tensor = _tensor(array).to(device)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view("<i2").copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array, order="C"))


def _reduce(method: str) -> Any:
    """The typed graph gives the axes as an input, the compiled one as an attribute."""
    return lambda x, axes, *, keepdims: getattr(torch, method)(x, dim=tuple(axes), keepdim=bool(keepdims))


def _gather_nd(data: torch.Tensor, indices: torch.Tensor, *, batch_dims: int) -> torch.Tensor:
    """[B,N,...], int64 [B,K,1] -> [B,K,...] for any B, without a loop over the batch."""
    where = indices.reshape(*indices.shape[:2], *[1] * (data.ndim - 2)).expand(-1, -1, *data.shape[2:])
    return torch.gather(data, 1, where)


_TYPES = {"float": torch.float32, "int64": torch.int64, "float16": torch.float16, "bfloat16": torch.bfloat16}
_OPERATORS = {
    PRIOR_TAIL: prior_tail,
    "Cast": lambda x, *, to: x.to(_TYPES[to]),
    "Gather": lambda x, index, *, axis: x.select(axis, index) if isinstance(index, int) else x.index_select(axis, x.new_tensor(index)),
    "GatherND": _gather_nd,
    "ReduceMax": _reduce("amax"),
    "ReduceMean": _reduce("mean"),
    "ReduceMin": _reduce("amin"),
    "ReduceSum": lambda x, axes, *, keepdims: x.sum(dim=tuple(axes), keepdim=bool(keepdims)),
    "Reshape": lambda x, shape: x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape)]),
}
