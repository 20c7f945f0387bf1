"""A fusion graph that believes that nobody moved: the test of whether the flow is what helps.

`flow_m`, a graph's published flow, is followed back through nodes that only move values about to where they
are computed; there they are multiplied by zero, for the graph's own warp as much as for the output. A graph
that matches cells of the ground believes its matches in other ways, too (who is accounted for by whom). There
every displacement but zero is ruled out in the scores themselves, so that whatever is made of them, flow,
match and evidence, is what this graph makes of people who stand where they stood.
"""

from __future__ import annotations

from typing import Final

import onnx
from onnx import TensorProto, helper

from viewsync.errors import BundleError

FLOW: Final = "flow_m"
MATCH: Final = "match"
_MOVES = frozenset(
    {"Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split"}
    | {"Squeeze", "Transpose", "Unsqueeze"}
)
_ZERO: Final = "viewsync_no_flow"
# Beyond any score, those of cells that nobody looks at included.
_RULED_OUT: Final = -1e6


def without_flow(model: bytes, name: str) -> bytes:
    """The ONNX model, where nobody has moved; name: of the graph, for messages.

    Raises BundleError where the graph publishes no `flow_m`, where nothing but the output depends on it, or
    where it publishes matches and its scores are not found.
    """
    loaded = onnx.load_from_string(model)
    graph = loaded.graph
    outputs = {output.name for output in graph.output}
    if FLOW not in outputs:
        raise BundleError(
            f"graph {name} publishes no {FLOW}, so there is no flow to take away; choose another method"
        )
    _multiply_by_zero(graph, name)
    if MATCH in outputs:
        _rule_out_displacements(graph, name)
    onnx.checker.check_model(loaded)
    data: bytes = loaded.SerializeToString()
    return data


def _multiply_by_zero(graph: onnx.GraphProto, name: str) -> None:
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


def _rule_out_displacements(graph: onnx.GraphProto, name: str) -> None:
    """Score matrices (P, N, N) of cells against cells of the same grid: all but their diagonals go."""
    found = _scores(graph)
    if not found:
        raise BundleError(
            f"graph {name} publishes {MATCH}, but no scores are found in it; choose another method"
        )
    graph.initializer.extend(
        [
            helper.make_tensor(f"{_ZERO}_one", TensorProto.FLOAT, [], [1.0]),
            helper.make_tensor(f"{_ZERO}_out", TensorProto.FLOAT, [], [_RULED_OUT]),
        ]
    )
    for number, scores in enumerate(found):
        own = [f"{_ZERO}_{word}_{number}" for word in ("shape", "empty", "stay", "move", "out", "scores")]
        shape, empty, stay, move, out, ruled = own
        for user in graph.node:
            for place, value in enumerate(user.input):
                if value == scores:
                    user.input[place] = ruled
        nodes = [
            helper.make_node("Shape", [scores], [shape], start=1),
            helper.make_node("ConstantOfShape", [shape], [empty]),
            helper.make_node("EyeLike", [empty], [stay]),
            helper.make_node("Sub", [f"{_ZERO}_one", stay], [move]),
            helper.make_node("Mul", [move, f"{_ZERO}_out"], [out]),
            helper.make_node("Add", [scores, out], [ruled]),
        ]
        after = next(at for at, node in enumerate(graph.node) if scores in node.output) + 1
        for node in reversed(nodes):
            graph.node.insert(after, node)


def _scores(graph: onnx.GraphProto) -> list[str]:
    """Products of matrices that a soft maximum is taken of: S, where max(S) is taken away from S."""
    products = [node.output[0] for node in graph.node if node.op_type == "MatMul"]
    peaks = {(node.input[0], node.output[0]) for node in graph.node if node.op_type == "ReduceMax"}
    apart = {tuple(node.input) for node in graph.node if node.op_type == "Sub"}
    return [
        product
        for product in products
        if any((product, peak) in apart for of, peak in peaks if of == product)
    ]


def _beyond(graph: onnx.GraphProto, user: onnx.NodeProto, way: set[str]) -> bool:
    """Whether this use of the flow leads anywhere but to the published output."""
    if not way.intersection(user.output):
        return True
    following = [node for output in user.output for node in graph.node if output in node.input]
    return any(_beyond(graph, node, way) for node in following)
