"""The ground plan as pixels: a colour for how many views see a person, or how large the best one sees it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.look.coverage import Coverage

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]
Colour = tuple[int, int, int]

# From, colour (viridis), words; the page has the same.
VIEWS_SEEN: tuple[tuple[float, Colour, str], ...] = (
    (1, (70, 50, 126), "1 view"),
    (2, (39, 127, 142), "2 views"),
    (3, (74, 193, 109), "3 views"),
    (4, (253, 231, 37), "4 or more"),
)
PERSON_PIXELS: tuple[tuple[float, Colour, str], ...] = (
    (1, (70, 50, 126), "under 20 px"),
    (20, (54, 92, 141), "20 px"),
    (40, (39, 127, 142), "40 px"),
    (60, (31, 161, 135), "60 px"),
    (80, (74, 193, 109), "80 px"),
    (120, (253, 231, 37), "120 px and more"),
)
NOBODY: Colour = (24, 27, 34)


def paint(values: Floats, steps: tuple[tuple[float, Colour, str], ...]) -> Image:
    """Values (Hg, Wg) -> RGB (Hg, Wg, 3), north (large y) up."""
    image = np.full((*values.shape, 3), NOBODY, np.uint8)
    for least, colour, _ in steps:
        image[values >= least] = colour
    return np.ascontiguousarray(image[::-1])


def maps(covered: Coverage) -> tuple[tuple[str, Image, tuple[tuple[float, Colour, str], ...]], ...]:
    """(title, image, legend) of both plans, one pixel a cell."""
    seen, best = covered.seen_by.astype(np.float64), covered.best
    most = max(1, len(covered.views))
    legend = tuple(step for step in VIEWS_SEEN if step[0] <= most)
    return (
        ("Views that see a person", paint(seen, VIEWS_SEEN), legend),
        ("Height of a person in its best view", paint(best, PERSON_PIXELS), PERSON_PIXELS),
    )


def png_bytes(image: Image) -> bytes:
    """RGB (H, W, 3) as PNG."""
    done, data = cv2.imencode(".png", image[..., ::-1])
    assert done
    return data.tobytes()
