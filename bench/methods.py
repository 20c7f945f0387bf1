"""What each method of synchronisation costs for a view, at the size of the paper's features for PETS2009.

Time and operations do not depend on the weights, which are drawn by chance. All methods share projection,
fusion and decoder with `none`, which moves nothing; a method's cost is what it takes beyond that.
"""

from __future__ import annotations

import importlib.util
from functools import partial

import numpy as np

from bench.rows import Row
from bench.timing import Case, take_turns, torch_threads

METHODS = ("column", "column-2", "sls", "cls-plane", "cls-cat", "cls-cor", "cls-epi")
# 384×288 pictures at stride 4: the finest grid of the paper.
ROWS, COLUMNS = 72, 96
# Scales of Eq. 18 that are timed, in strides of that grid, and all that the paper has.
STRIDES, PAPER_STRIDES = (4, 2), (4, 2, 1)


def method_rows(rounds: int) -> list[Row]:
    """One row for each method: ms per view by one thread, the fastest of `rounds` times less the fastest of
    `none`'s, for a neighbour only ever adds. Facts: parameters and operations (GFLOP per view, a
    multiplication and an addition are two), those with all of the paper's scales, too.
    """
    titles = {m: f"method: {m}, per view, beyond none, one thread, torch" for m in METHODS}
    if importlib.util.find_spec("torch") is None:
        why = "torch not installed; run: pip install -c constraints.txt -e '.[train]'"
        return [Row(name=f"method.{m}", what=titles[m], unit="ms", skipped=why) for m in METHODS]

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from viewsync.nets.config import CAMERA_LEVEL, TWO_FRAMES
    from viewsync.nets.model import CountingModel, ModelConfig
    from viewsync.nets.two_frames import Before
    from viewsync.sim.scenes import plaza
    from viewsync.training.geometry import scene_fundamentals, scene_grids, scene_planes

    scene = plaza().scene
    others = len(scene.cameras) - 1
    torch.manual_seed(0)

    def made(method: str, strides: tuple[int, ...] = STRIDES) -> CountingModel:
        config = ModelConfig(
            methods=(method,),
            heights=len(scene.heights_m),
            cell_m=scene.ground.cell_m,
            grid=(ROWS, COLUMNS) if method.startswith("cls-") else (0, 0),
            flow_strides=strides,
        )
        return CountingModel(config).eval()

    def answered(model: CountingModel, device: str = "cpu") -> object:
        method = model.config.methods[0]
        pictures, places, there, off_s, geometry, over = (
            tensor.to(device) for tensor in (features, grids, present, offset_s, lines, planes)
        )
        # A second before, as far as time and operations go the same pictures.
        before = Before(pictures, there, torch.ones_like(there)) if method in TWO_FRAMES else None
        with torch.inference_mode():
            return model.fuse(pictures, places, there, off_s, (method,), geometry, before=before, planes=over)

    def timed(model: CountingModel, number: int) -> object:
        return answered(model)

    def gflop(model: CountingModel) -> float:
        # Shapes alone decide: on the device that computes nothing.
        with FlopCounterMode(display=False) as counter:
            answered(model.to("meta"), "meta")
        return float(counter.get_total_flops()) / 1e9

    def parameters(model: CountingModel) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    features = torch.rand(1, others + 1, made("none").config.channels, ROWS, COLUMNS)
    grids = torch.from_numpy(scene_grids(scene, 4 * COLUMNS, 4 * ROWS))[None]
    lines = torch.from_numpy(scene_fundamentals(scene, COLUMNS, ROWS)[0])[None]
    planes = torch.from_numpy(scene_planes(scene, COLUMNS, ROWS)[0])[None]
    present, offset_s = torch.ones(1, others + 1), torch.tensor([[0.0, *np.linspace(-2, 2, others)]])
    offset_s = offset_s.to(torch.float32)
    models = {method: made(method) for method in ("none", *METHODS)}
    cases = {method: Case(partial(timed, model)) for method, model in models.items()}
    with torch_threads(1):
        spent = take_turns(cases, rounds, warm_up=1)
    still_gflop, still_parameters = gflop(made("none")), parameters(models["none"])
    rows = []
    for method in METHODS:
        wall = spent[method].wall_ms.min() - spent["none"].wall_ms.min()
        processor = spent[method].processor_ms.min() - spent["none"].processor_ms.min()
        facts = {
            "parameters": parameters(models[method]) - still_parameters,
            "gflop": (gflop(made(method)) - still_gflop) / others,
        }
        if method in CAMERA_LEVEL:
            facts["gflop_paper_scales"] = (gflop(made(method, PAPER_STRIDES)) - still_gflop) / others
        rows.append(
            Row(
                name=f"method.{method}",
                what=titles[method],
                unit="ms",
                figure=float(wall / others),
                processor=float(processor / others),
                samples=rounds,
                facts=facts,
            )
        )
    return rows
