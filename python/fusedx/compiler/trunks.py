"""The parts of an encoder graph that may run in int8: its trunks, each as a graph of its own and back again.

A trunk is a run of nodes that network.py appended together: a ResNet or a ViT, from its first convolution to the value that is averaged
over space.  Everything that decides or weighs (saliency, region scores and ranks, attention over regions, logits, projections to the
features) lies outside of the trunks, and so does the trunk that the saliency comes from, see quantize.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusedx.engine.encoder.graph import Graph, Node

#: Image trunk or tile trunk, by the prefix of its constants.
IMAGE, TILES = "image", "tiles"
TRUNKS = {"encoder_x.f.": IMAGE, "dn_resnet.f.": TILES, "encoder_x_l.f.": TILES}
SALIENCY_TRUNK = {"ds_net.f.": IMAGE}


@dataclass(frozen=True, slots=True)
class Trunk:
    """Nodes ``start`` to ``stop`` of a graph.  ``source``, ``result``: the value read and the value made.  ``reads``: image or tiles."""

    prefix: str
    reads: str
    start: int
    stop: int
    source: str
    result: str

    def cut(self, graph: Graph) -> Graph:
        """The trunk alone, with its constants."""
        nodes = graph.nodes[self.start : self.stop]
        constants = {name: graph.constants[name] for node in nodes for name in node.inputs if name in graph.constants}
        return Graph([self.source], [self.result], nodes, constants)


def find(graph: Graph, prefixes: dict[str, str]) -> list[Trunk]:
    """The trunks of ``prefixes`` that the graph has, in order."""
    found = []
    for prefix, reads in prefixes.items():
        own = [i for i, node in enumerate(graph.nodes) if any(n in graph.constants and n.startswith(prefix) for n in node.inputs)]
        if not own:
            continue
        start, stop = own[0], own[-1] + 1
        # What follows the last convolution or product without weights of its own: the sum with the residual, and its Relu.
        while graph.nodes[stop].op in ("Add", "Relu") and not any(n in graph.constants for n in graph.nodes[stop].inputs):
            stop += 1
        made = {node.outputs[0] for node in graph.nodes[start:stop]}
        read = {n for node in graph.nodes[start:stop] for n in node.inputs if n not in made and n not in graph.constants}
        used = {n for node in graph.nodes[stop:] for n in node.inputs} | set(graph.outputs)
        (source,), (result,) = read, made & used
        found.append(Trunk(prefix, reads, start, stop, source, result))
    return sorted(found, key=lambda trunk: trunk.start)


def replace(graph: Graph, parts: list[tuple[Trunk, Graph]]) -> Graph:
    """``graph`` with some trunks exchanged for others of the same source and result; constants that nothing reads any more are left out."""
    out = Graph(list(graph.inputs), list(graph.outputs))
    constants, at = dict(graph.constants), 0
    for trunk, part in parts:
        out.nodes += [*graph.nodes[at : trunk.start], *part.nodes]
        constants.update(part.constants)
        at = trunk.stop
    out.nodes += graph.nodes[at:]
    read = {name for node in out.nodes for name in node.inputs}
    out.constants = {name: array for name, array in constants.items() if name in read}
    return out


def linear_products(graph: Graph) -> tuple[list[Node], list[Node]]:
    """(what has weights and may run in int8, everything else)."""
    heavy: list[Node] = []
    rest: list[Node] = []
    for node in graph.nodes:
        weights = graph.constants.get(node.inputs[1]) if node.op in ("Conv", "MatMul") else None
        (heavy if weights is not None and weights.dtype == np.float32 else rest).append(node)
    return heavy, rest
