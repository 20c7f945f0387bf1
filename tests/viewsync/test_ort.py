"""Sessions run where they were asked to run, quietly, or say why not."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime as ort
import psutil
import pytest
from onnx import TensorProto, helper

from viewsync.bundle import Bundle
from viewsync.errors import BundleError, UserError
from viewsync.manifest import TensorSpec
from viewsync.ort import check_signature, nodes_by_provider, open_session, running_on, session_options

needs_cpu_build = pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="this onnxruntime has CUDA"
)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def test_a_cpu_session_runs_on_the_cpu(bundle: Bundle, tiny: ModuleType) -> None:
    session = open_session(bundle.encoder_bytes, "cpu", threads=1)
    assert session.get_providers() == ["CPUExecutionProvider"] and running_on(session) == "cpu"
    image = np.full((1, tiny.HEIGHT, tiny.WIDTH, 3), (40, 80, 120), np.uint8)
    (features,) = session.run(None, {"image": image})
    expected = np.array([40, 80, 120, 80], np.uint8).reshape(1, 4, 1, 1)  # the colour, and its mean
    np.testing.assert_array_equal(features, np.broadcast_to(expected, features.shape))


def test_an_idle_session_uses_no_processor_time(bundle: Bundle, tiny: ModuleType) -> None:
    # Spinning threads burn most of the time between runs. A share of time, so that load does not matter.
    session = open_session(bundle.encoder_bytes, "cpu", threads=2)
    image = np.zeros((1, tiny.HEIGHT, tiny.WIDTH, 3), np.uint8)
    session.run(None, {"image": image})
    process, wait = psutil.Process(), threading.Event()
    before, start = sum(process.cpu_times()[:2]), time.monotonic()
    for _ in range(10):
        session.run(None, {"image": image})
        wait.wait(0.05)
    used = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - start)
    assert used < 0.3


def test_threads_and_spinning_are_as_asked() -> None:
    options = session_options(3)
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


# Sessions of one graph that needs 64 MB between its nodes, run one after another; how much the process grew
# by the first run of each, MB.
GROWTH = """
import numpy as np, psutil
from onnx import TensorProto, helper
from viewsync.ort import open_session

def rss():
    return psutil.Process().memory_info().rss / 1e6

size = helper.make_tensor("size", TensorProto.INT64, [1], [16_000_000])
nodes = [
    helper.make_node("Expand", ["x", "size"], ["wide"]),
    helper.make_node("ReduceSum", ["wide"], ["y"], keepdims=0),
]
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
graph = helper.make_graph(nodes, "g", [x], [y], [size])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
sessions = [open_session(model.SerializeToString(), "cpu", threads=1) for _ in range(4)]
for session in sessions:
    before = rss()
    session.run(None, {"x": np.ones(1, np.float32)})
    print(rss() - before)
"""


def test_sessions_that_run_in_turn_share_their_memory() -> None:
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    first, *others = map(float, done.stdout.split())
    assert first > 50
    # The arena grows in powers of two and may touch two places of that size; four sessions alone would
    # need four.
    assert sum(others) < 1.5 * first


def test_nodes_can_be_asked_where_they_run(bundle: Bundle) -> None:
    session = ort.InferenceSession(
        bundle.fusion_bytes("none"),
        session_options(1, record_placement=True),
        providers=["CPUExecutionProvider"],
    )
    assert "GridSample" in nodes_by_provider(session)["CPUExecutionProvider"]


@needs_cpu_build
def test_cuda_without_cuda_is_refused_and_says_what_to_install(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="onnxruntime-gpu"):
        open_session(bundle.encoder_bytes, "cuda", threads=1)


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(), reason="this onnxruntime has no CUDA"
)
def test_cuda_refuses_a_graph_with_a_node_for_the_cpu_and_names_it(bundle: Bundle) -> None:
    # Unique has no CUDA kernel; Relu has one.
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Unique", ["r"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(UserError, match="Unique"):
        open_session(model.SerializeToString(), "cuda", threads=1)
    assert running_on(open_session(bundle.encoder_bytes, "cuda", threads=1)) == "cuda"


@needs_cpu_build
def test_the_fallback_is_taken_only_if_allowed_and_is_told(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    session = open_session(bundle.encoder_bytes, "cuda", threads=1, allow_cpu_fallback=True)
    assert running_on(session) == "cpu"
    assert "running on the CPU" in caplog.text


@pytest.mark.parametrize("model", [b"", b"not a model", b"\x08\x09"])
def test_a_model_that_is_none_is_a_bundle_error_of_one_line(model: bytes) -> None:
    with pytest.raises(BundleError, match="cannot load") as caught:
        open_session(model, "cpu", threads=1)
    assert "\n" not in str(caught.value)


def test_wrong_wishes_are_named(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="cpu, cuda"):
        open_session(bundle.encoder_bytes, "tpu", threads=1)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="threads is 0"):
        open_session(bundle.encoder_bytes, "cpu", threads=0)


def test_the_signature_must_be_the_manifests(bundle: Bundle) -> None:
    spec = bundle.manifest.fusion["column"]
    session = open_session(bundle.fusion_bytes("column"), "cpu", threads=1)
    check_signature("fusion-column.onnx", session, spec.inputs, spec.outputs)
    wrong: list[tuple[dict[str, TensorSpec], str]] = [
        ({k: v for k, v in spec.inputs.items() if k != "offset_s"}, "inputs"),
        (spec.inputs | {"present": TensorSpec(shape=("V",), dtype="uint8")}, "present is float32"),
        (spec.inputs | {"present": TensorSpec(shape=("V", 1), dtype="float32")}, "present is float32"),
        (spec.inputs | {"present": TensorSpec(shape=(3,), dtype="float32")}, ""),
        (spec.inputs | {"features": TensorSpec(shape=("V", 4, 18, 23), dtype="float32")}, "features is"),
        (spec.inputs | {"features": TensorSpec(shape=("V", "C", 18, 24), dtype="float32")}, "features is"),
    ]
    for inputs, message in wrong:
        if message:
            with pytest.raises(BundleError, match=message):
                check_signature("fusion-column.onnx", session, inputs, spec.outputs)
        else:
            check_signature("fusion-column.onnx", session, inputs, spec.outputs)
