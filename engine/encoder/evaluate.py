"""Runs a graph operator by operator with a table of functions: numpy in float64 for the reference, torch for the torch encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from fusedx.engine.encoder.graph import Graph
from fusedx.engine.errors import ModelFormatError

Operators = Mapping[str, Callable[..., Any]]


def evaluate(graph: Graph, constants: Mapping[str, Any], image: Any, operators: Operators) -> dict[str, Any]:
    """Outputs by name.  An intermediate value is dropped after its last use, so memory stays near the largest layer's."""
    values: dict[str, Any] = {graph.inputs[0]: image}
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    uses.update(graph.outputs)
    for node in graph.nodes:
        if node.op not in operators:
            raise ModelFormatError(f"the encoder graph uses {node.op}, which is not one of {', '.join(sorted(operators))}")
        try:
            arguments = [constants[n] if n in constants else values[n] for n in node.inputs]
        except KeyError as error:
            raise ModelFormatError(f"the encoder graph reads {error} before it is computed") from None
        values[node.outputs[0]] = operators[node.op](*arguments, **node.attributes)
        for name in node.inputs:
            uses[name] -= 1
            if not uses[name]:
                values.pop(name, None)
    return {name: values[name] for name in graph.outputs}
