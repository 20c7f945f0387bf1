"""Panoptic Studio: JSON with `cameras`, each name, resolution, K, distCoef, R, t; cm, y pointing down.

Layout: github.com/CMU-Perceptual-Computing-Lab/panoptic-toolbox (Joo et al., "Panoptic Studio: A Massively
Multiview System for Social Motion Capture", ICCV 2015); distCoef is k1, k2, p1, p2, k3. Heads are at y =
-150, ankles at -10.
"""

from collections.abc import Sequence

from calib.errors import CalibError
from calib.formats.foreign import UNITS_M, Foreign, ForeignCamera, Wishes
from calib.formats.source import NotThis, Source, entry, image_size, numbers, shared_place


def read(sources: Sequence[Source], wishes: Wishes) -> Foreign:
    """One file of up to 521 cameras (480 VGA, 31 HD, 10 Kinects): `Wishes.only` takes some."""
    if len(sources) != 1:
        raise NotThis("one file has all cameras")
    (source,) = sources
    document = source.json()
    cameras = document.get("cameras") if isinstance(document, dict) else None
    recognised = isinstance(cameras, list) and any(
        isinstance(fields, dict) and {"distCoef", "K"} <= fields.keys() for fields in cameras
    )
    if not recognised:
        raise NotThis("no list of cameras with K and distCoef")
    made = []
    for index, fields in enumerate(cameras or ()):
        name = str(entry(f"{source}: cameras[{index}]", fields, "name"))
        place = f"{source}: camera {name}"
        made.append(
            ForeignCamera(
                name,
                numbers(f"{place}: K", fields.get("K"), 3, 3),
                numbers(f"{place}: R", fields.get("R"), 3, 3),
                numbers(f"{place}: t", fields.get("t"), 3),
                numbers(f"{place}: distCoef", fields.get("distCoef"), 5),
                image_size(place, fields.get("resolution")),
            )
        )
    if not made:
        raise CalibError(f"{source}: its list of cameras is empty: get the whole file")
    return Foreign(shared_place(sources), made, UNITS_M["cm"], "-y")
