"""The flow of one real pair on its frames: where it takes features from, and what they should have been."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from viewsync.nets.encoder import STRIDE
from viewsync.nets.model import CountingModel
from viewsync.training.mohicans import Crowd, Pair, Real, encode, flow_of, methods_of, pairs, size_of
from viewsync.training.warp_error import moving

Picture = NDArray[np.uint8]
_ZOOM = 2
_COLOUR = (40, 40, 230)


def drawn(models: Sequence[CountingModel], crowd: Crowd, pair: Pair | None = None) -> Picture:
    """Panels (H, W, 3) in two columns: the reference's frame, the other view's of that instant and its own,
    then each method's flow on the latter, an arrow from a place that moves to where its features are taken.
    """
    pair = pair or max(pairs(crowd.numbers), key=lambda p: (p.reference == 0, p.step == 48, -p.frame))
    other = 1 - pair.reference
    real = Real(crowd, size_of(models[0]))
    wanted, given = (real.picture(other, frame) for frame in (pair.frame, pair.other_frame))
    where = moving(wanted, given, STRIDE)
    panels = [
        _panel(real.picture(pair.reference, pair.frame), f"reference, frame {pair.frame}"),
        _panel(wanted, f"other view, frame {pair.frame}: the truth"),
        _panel(given, f"other view, frame {pair.other_frame}: what there is"),
    ]
    for model in models:
        own = Real(crowd, size_of(model))
        features = encode(
            model, own.picture(pair.reference, pair.frame), own.picture(other, pair.other_frame)
        )
        for method in methods_of(model):
            moved = flow_of(model, method, features, own, pair)
            flow = moved.flow_px[-1][0, 0].numpy()
            panel, scale = (
                _panel(given, f"{method}: where features are taken from"),
                moved.strides[-1] * STRIDE,
            )
            for row, column in np.ndindex(*flow.shape[:2]):
                y, x = ((n + 0.5) * scale - 0.5 for n in (row, column))
                if not where[
                    min(int(y / STRIDE), where.shape[0] - 1), min(int(x / STRIDE), where.shape[1] - 1)
                ]:
                    continue
                start = _ZOOM * np.array([x, y])
                end = start + _ZOOM * scale * flow[row, column]
                tail, tip = ([int(v) for v in point] for point in (start, end))
                cv2.arrowedLine(panel, tail, tip, _COLOUR, 1, cv2.LINE_AA, tipLength=0.25)
            panels.append(panel)
    if len(panels) % 2:
        panels.append(np.full_like(panels[0], 255))
    return np.vstack([np.hstack(panels[n : n + 2]) for n in range(0, len(panels), 2)])


def _panel(grey: Picture, text: str) -> Picture:
    size = (grey.shape[1] * _ZOOM, grey.shape[0] * _ZOOM)
    panel = cv2.cvtColor(cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR)
    cv2.rectangle(panel, (0, 0), (size[0], 24), (0, 0, 0), -1)
    cv2.putText(panel, text, (8, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return panel.astype(np.uint8)
