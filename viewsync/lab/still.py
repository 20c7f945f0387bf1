"""A fusion graph without its flow: the test of whether the flow is what helps.

`flow_m`, a graph's published flow, is followed back through nodes that only move values about to where they
are computed; there they are multiplied by zero, for the graph's own warp as much as for the output.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from viewsync.errors import BundleError

FLOW = "flow_m"
_MOVES = frozenset(
    {"Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split"}
    | {"Squeeze", "Transpose", "Unsqueeze"}
)
_ZERO = "viewsync_no_flow"


def without_flow(model: bytes, name: str) -> bytes:
    """The ONNX model with a flow of zero everywhere; name: of the graph, for messages.

    Raises BundleError where the graph publishes no `flow_m`, or nothing but the output depends on it.
    """
    loaded = onnx.load_from_string(model)
    graph = loaded.graph
    if all(output.name != FLOW for output in graph.output):
        raise BundleError(
            f"graph {name} publishes no {FLOW}, so there is no flow to take away; choose another method"
        )
    made = {output: node for node in graph.node for output in node.output}
    constants = {item.name for item in graph.initializer} | {item.name for item in graph.input}
    sources: set[str] = set()
    waiting, seen = [FLOW], set[str]()
    while waiting:
        value = waiting.pop()
        node = made.get(value)
        if value in seen or node is None or value in constants:
            continue
        seen.add(value)
        if node.op_type in _MOVES:
            waiting += list(node.input) if node.op_type == "Concat" else [node.input[0]]
        else:
            sources.add(value)
    users = {source: [node for node in graph.node if source in node.input] for source in sources}
    if not any(_beyond(graph, user, seen) for found in users.values() for user in found):
        raise BundleError(f"graph {name}: nothing but its output uses the flow; choose another method")
    graph.initializer.append(helper.make_tensor(_ZERO, TensorProto.FLOAT, [], [0.0]))
    for number, source in enumerate(sorted(sources)):
        still = f"{_ZERO}_{number}"
        for user in users[source]:
            for place, value in enumerate(user.input):
                if value == source:
                    user.input[place] = still
        after = list(graph.node).index(made[source]) + 1
        graph.node.insert(after, helper.make_node("Mul", [source, _ZERO], [still]))
    onnx.checker.check_model(loaded)
    data: bytes = loaded.SerializeToString()
    return data


def _beyond(graph: onnx.GraphProto, user: onnx.NodeProto, way: set[str]) -> bool:
    """Whether this use of the flow leads anywhere but to the published output."""
    if not way.intersection(user.output):
        return True
    following = [node for output in user.output for node in graph.node if output in node.input]
    return any(_beyond(graph, node, way) for node in following)
