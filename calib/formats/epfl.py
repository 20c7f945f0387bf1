"""EPFL's multi-camera pedestrian videos: text of K and P = [R | t] per camera, or ground homographies.

https://www.epfl.ch/labs/cvlab/data/data-pom-index-php/: "two homographies per camera, mapping respectively
the ground plane and the head plane", or "the generic projective camera format". Text has a line `camera N`
before each camera's numbers. Homographies take pixels to a top view of free scale; the same in JSON
(`homography`: one 3×3 per view, with frame_width and frame_height) is how github.com/chengche6230/ReST gives
those of CAMPUS and PETS2009.

A homography alone is a camera only once its lens is known: here square pixels, no distortion and the
principal point in the middle of the picture, which leaves the focal length to be solved (Hartley &
Zisserman, 8.8: the images of the ground's axes are orthogonal and of equal scale). Measured on PETS2009: the
focal length comes out within 10 %; mark points and refine before measuring with it.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.errors import CalibError
from calib.formats.foreign import Foreign, ForeignCamera, Wishes
from calib.formats.source import NotThis, Source, image_size, numbers, shared_place

Floats = NDArray[np.float64]

_HEADING = re.compile(r"^[ \t=#*-]*(?:camera|view)[ \t]*([\w-]+)\b.*$", re.IGNORECASE | re.MULTILINE)
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ROW = re.compile(rf"^[ \t]*{_NUMBER}(?:[ \t,;]+{_NUMBER})*[ \t,;]*$")
_NOTE = (
    "lenses: solved from ground homographies, with square pixels, no distortion and the principal point in "
    "the middle; head planes are left out; refine before measuring"
)


def read(sources: Sequence[Source], wishes: Wishes) -> Foreign:
    """One file. JSON of several sequences needs `Wishes.which`; a scale always has to be said."""
    if len(sources) != 1:
        raise NotThis("one file has all cameras")
    (source,) = sources
    if source.text.lstrip().startswith(("{", "[")):
        return _read_json(source, wishes)
    headings = list(_HEADING.finditer(source.text))
    ends = [*(heading.start() for heading in headings[1:]), len(source.text)][: len(headings)]
    blocks = {heading: source.text[heading.end() : end] for heading, end in zip(headings, ends, strict=True)}
    if not any(_ROW.match(line) for text in blocks.values() for line in text.splitlines()):
        raise NotThis("no lines `camera N` with rows of numbers after them")
    notes: set[str] = set()
    cameras = [
        _camera(f"{source}: camera {heading[1]}", _named(heading[1]), text, wishes, notes)
        for heading, text in blocks.items()
    ]
    return Foreign(shared_place(sources), cameras, None, "z", scale_is_free=True, notes=tuple(notes))


def _named(name: str) -> str:
    return f"cam{name}" if name.isdigit() else name


def _read_json(source: Source, wishes: Wishes) -> Foreign:
    document = source.json()
    sequences = {
        name: fields
        for name, fields in (document.items() if isinstance(document, dict) else ())
        if isinstance(fields, dict) and "homography" in fields
    }
    if not sequences:
        raise NotThis("no sequence with homography")
    which = wishes.which or (next(iter(sequences)) if len(sequences) == 1 else None)
    if which not in sequences:
        problem = "holds several sequences" if which is None else f"has no sequence {which}"
        raise CalibError(f"{source}: {problem}: choose one with --which: {', '.join(sequences)}")
    fields = sequences[which]
    place = f"{source}: {which}"
    size = wishes.size or image_size(
        f"{place} (frame_width, frame_height)", [fields.get("frame_width"), fields.get("frame_height")]
    )
    if not isinstance(fields["homography"], list):
        raise CalibError(f"{place}.homography is no list of 3×3 matrices: get the whole file")
    cameras = [
        _from_homography(
            f"{place}: view {number}", f"view{number}", numbers(f"{place}: view {number}", each, 3, 3), size
        )
        for number, each in enumerate(fields["homography"], 1)
    ]
    return Foreign(str(source), cameras, None, "z", scale_is_free=True, notes=(_NOTE,))


def _camera(place: str, name: str, text: str, wishes: Wishes, notes: set[str]) -> ForeignCamera:
    """The camera of the lines under one heading: labels and, under each, rows of numbers."""
    rows: dict[str, list[list[float]]] = {"": []}
    label, size = "", wishes.size
    for line in text.splitlines():
        if _ROW.match(line):
            rows[label].append([float(word) for word in re.findall(_NUMBER, line)])
        elif line.strip(" \t=#*-"):
            label = line.strip().lower()
            rows.setdefault(label, [])
            if "size" in label and size is None:
                size = image_size(place, re.findall(r"\d+", label))

    def under(word: str) -> Any:
        return next((table for label, table in rows.items() if word in label and table), None)

    internal, external = under("internal"), under("external")
    if internal is not None or external is not None:
        K = numbers(f"{place}: internal parameters", _flat(internal), 3, 3)
        P = numbers(f"{place}: external parameters", _flat(external), 3, 4)
        k1, k2 = numbers(f"{place}: radial distortion", _flat(under("radial") or [[0.0, 0.0]]), 2)
        # The real file of the basketball sequence has a zero too many.
        tangential = (_flat(under("tangential")) or [0.0, 0.0])[:2]
        p1, p2 = numbers(f"{place}: tangential distortion", tangential, 2)
        return ForeignCamera(name, K, P[:, :3], P[:, 3], (k1, k2, p1, p2), size)
    table = under("ground") or next((table for table in rows.values() if table), [])
    if size is None:
        raise CalibError(f"{place}: its image size is not in the file: say it with --size, such as 360x288")
    notes.add(_NOTE)
    return _from_homography(place, name, numbers(f"{place}: homography", _flat(table[:3]), 3, 3), size)


def _flat(table: list[list[float]] | None) -> list[float] | None:
    return None if table is None else [number for row in table for number in row]


def _from_homography(place: str, name: str, top_from_image: Floats, size: tuple[int, int]) -> ForeignCamera:
    """Pixels -> top view, (3, 3) -> the camera that sees the ground so; det R is -1 where the top view is
    left-handed seen from above, as one with y down is.
    """
    if np.linalg.matrix_rank(top_from_image) < 3:
        raise CalibError(f"{place}: its homography has no inverse: correct its numbers")
    centre = (np.array(size) - 1) / 2
    image_from_top = np.linalg.inv(top_from_image)
    middle_from_image = np.array([[1.0, 0.0, -centre[0]], [0.0, 1.0, -centre[1]], [0.0, 0.0, 1.0]])
    h = middle_from_image @ image_from_top
    # One unknown, 1/f², in two linear equations: h1ᵀ ω h2 = 0, h1ᵀ ω h1 = h2ᵀ ω h2, ω = diag(1/f², 1/f², 1).
    slopes = np.array([h[:2, 0] @ h[:2, 1], h[:2, 0] @ h[:2, 0] - h[:2, 1] @ h[:2, 1]])
    rest = -np.array([h[2, 0] * h[2, 1], h[2, 0] ** 2 - h[2, 1] ** 2])
    inverse_square = float(slopes @ rest / max(float(slopes @ slopes), 1e-300))
    if not inverse_square > 0:
        raise CalibError(
            f"{place}: no focal length fits its homography (square pixels, principal point in the middle): "
            "mark points and solve this camera with viewsync calib extrinsics"
        )
    focal = inverse_square**-0.5
    K = np.array([[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]])
    axes = np.linalg.inv(K) @ image_from_top
    axes /= np.sqrt(np.linalg.norm(axes[:, 0]) * np.linalg.norm(axes[:, 1]))
    # The ground at the bottom of the picture is in front of the camera.
    seen = top_from_image @ np.array([centre[0], size[1] - 1.0, 1.0])
    if axes[2] @ (seen / seen[2]) < 0:
        axes = -axes
    left, _, right = np.linalg.svd(axes[:, :2], full_matrices=False)
    first, second = (left @ right).T
    third = np.cross(first, second)
    R = np.column_stack([first, second, third])
    if (-R.T @ axes[:, 2])[2] < 0:
        # Below its own top view: the top view is left-handed.
        R[:, 2] = -third
    return ForeignCamera(name, K, R, axes[:, 2], (), size)
