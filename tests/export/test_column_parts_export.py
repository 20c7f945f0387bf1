"""`column` with its parts as a graph: what ONNX Runtime says is what torch says, for any number of views."""

import numpy as np
import onnxruntime
import pytest
import torch

from export.graphs import fusion_onnx, outputs_of
from viewsync.nets.config import COLUMN_PARTS, MATCHER_PARTS, UNKNOWN_OFFSET_S, ModelConfig
from viewsync.nets.model import CountingModel
from viewsync.nets.two_frames import Before

OTHERS = tuple(part for part in COLUMN_PARTS if part not in MATCHER_PARTS)
BEFORE = ("features_before", "present_before", "before_s")
ROWS, COLUMNS, HEIGHTS, CHANNELS = 10, 14, 3, 4  # 5 × 7 cells to match on: odd, as large cells like least


def inputs(views: int, method: str = "column") -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(views)
    offset = torch.tensor([0.0, 0.7, -2.0, UNKNOWN_OFFSET_S])
    features = torch.rand(views, CHANNELS, 9, 14, generator=g)
    grids = torch.rand(views, HEIGHTS, ROWS, COLUMNS, 2, generator=g) * 2.2 - 1.1
    before = (
        torch.rand(views, CHANNELS, 9, 14, generator=g),
        torch.tensor([1.0, 1.0, 0.0, 1.0])[:views],
        torch.tensor([1.0, 2.0, 0.0, 0.5])[:views],
    )
    return {
        "features": features,
        "present": torch.ones(views),
        "offset_s": offset[:views],
        **(dict(zip(BEFORE, before, strict=True)) if method == "column-2" else {}),
        "view_from_ground": grids,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "parts"),
    [("column", OTHERS), ("column", MATCHER_PARTS), ("column", COLUMN_PARTS), ("column-2", MATCHER_PARTS)],
)
def test_parts_together_export(method: str, parts: tuple[str, ...]) -> None:
    torch.manual_seed(1)
    sizes = {"channels": CHANNELS, "heights": HEIGHTS, "width": 16, "cell_m": 0.5}
    model = CountingModel(ModelConfig(methods=(method,), column_parts=parts, **sizes)).eval()  # type: ignore[arg-type]
    if "subcell" in parts:  # which says nothing at first
        assert model.column is not None
        torch.nn.init.normal_(model.column.subcell.out.weight)
    file, names = fusion_onnx(model, method, inputs(4, method))
    assert names == outputs_of(method)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    for views, present in ((3, 3), (4, 4), (4, 3), (4, 2)):
        given = inputs(views, method)
        given["present"][present:] = 0.0
        density, flow, match = session.run(list(names), {k: v.numpy() for k, v in given.items()})
        with torch.inference_mode():
            answer = model.fuse(
                *(given[k][None] for k in ("features", "view_from_ground", "present", "offset_s")),
                (method,),
                before=Before(*(given[k][None] for k in BEFORE)) if method == "column-2" else None,
            )
        assert answer.synchronised is not None
        np.testing.assert_allclose(density, answer.density[method][0].numpy(), atol=1e-5)
        np.testing.assert_allclose(flow[1:], answer.synchronised.flow_m[0].numpy(), atol=1e-3)
        np.testing.assert_allclose(match[1:], answer.synchronised.evidence[0, :, 0].numpy(), atol=1e-4)
        # With one other view alone, less moves.
        assert np.abs(flow).max() > (0.05 if present > 2 else 0.01)
