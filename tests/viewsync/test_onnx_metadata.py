"""Our own reading and writing of ONNX metadata against the onnx package."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from viewsync.onnx_metadata import read_metadata, stamp


def model(**metadata: str) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    result = helper.make_model(graph, producer_name="tests", doc_string="d" * 300)
    helper.set_model_props(result, metadata)
    return result


facts = st.dictionaries(
    st.text(max_size=5),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=300), st.lists, max_leaves=4),
    max_size=4,
)


@given(first=facts, second=facts)
def test_the_onnx_package_reads_what_we_stamp_and_the_graph_is_unchanged(
    first: dict[str, object], second: dict[str, object]
) -> None:
    before = model(author="someone", viewsync='{"old": 1}', licence="free")
    data = stamp(stamp(before.SerializeToString(), first), second)
    assert read_metadata(data) == second
    after = onnx.load_from_string(data)
    props = {prop.key: prop.value for prop in after.metadata_props}
    assert len(props) == len(after.metadata_props) == 3 and props["author"] == "someone"
    assert after.graph == before.graph and after.opset_import == before.opset_import
    assert after.doc_string == before.doc_string


def test_a_model_without_our_entry() -> None:
    assert read_metadata(model(author="someone").SerializeToString()) is None


@pytest.mark.parametrize(
    "data", [b"\xff\xff", b"\x0a", b"\x00\x00", b"not an onnx file", b"\x0b\x01", b"\x80" * 20]
)
def test_what_is_no_model_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an ONNX model"):
        read_metadata(data)


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_a_value_error(data: bytes) -> None:
    try:
        read_metadata(data)
    except ValueError:
        pass
