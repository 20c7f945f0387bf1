"""PETS2009 calibration: Tsai's camera model in one XML file per view -> `Camera`.

Tsai (1987): camera axes like OpenCV's, R = Rz Ry Rx, world and t in millimetres, z up. Sensor coordinates
are f·x/z in mm; the radial term goes from distorted to undistorted, r_u = r_d (1 + κ₁ r_d²), and pixels are
X_d·sx/dpx + cx, Y_d/dpy + cy. The files' pixels are kept as they are: integer coordinates are pixel
centres, as Tsai's calibration code measures them.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.errors import CalibError
from calib.formats.foreign import UNITS_M, Foreign, ForeignCamera, Wishes, settle
from calib.formats.source import NotThis, Source, open_source, shared_place

# Three coefficients cannot follow every Tsai lens; a fit worse than this means that the numbers are not
# PETS2009's.
_WORST_FIT_PX = 2.0
# Tsai's polynomial folds where its slope reaches zero (in a corner of View_007); near there it has no smooth
# inverse.
_SHARE_OF_FOLD = 0.85


def load_camera(xml_path: Path | str) -> Camera:
    """Read one PETS2009 `View_00N.xml`; metres, right-handed, z up.

    The inverse of Tsai's distortion is no polynomial, so k1, k2, k3 are fitted over the image. Largest
    error against the file's own model: views 1, 3, 4 below 0.005 px; 2, 5, 6 below 0.2 px; 8 below 1.5 px;
    view 7 below 2 px over the 93 % of its image inside 0.85 of the radius where its kappa1 folds.
    CalibError names the file, the entry and what to do, also where fit or pose is implausible.
    """
    source = open_source(Path(xml_path))
    try:
        found = read([source], Wishes())
    except NotThis as reason:
        raise CalibError(f"{source}: {reason}: give a PETS2009 file such as View_001.xml") from None
    (camera,) = settle(found, Wishes()).cameras.values()
    return camera


def read(sources: Sequence[Source], wishes: Wishes) -> Foreign:
    """`<Camera name="View_001"><Geometry/><Intrinsic/><Extrinsic/></Camera>`, one file per view; mm, z up."""
    for source in sources:
        root = source.xml()
        if root.tag != "Camera" or root.find("Geometry") is None:
            raise NotThis("no <Camera><Geometry …>")
    return Foreign(
        place=shared_place(sources),
        cameras=[_camera(source) for source in sources],
        unit_m=UNITS_M["mm"],
        up="z",
        notes=("lenses: Tsai's kappa1, written as k1, k2, k3 fitted over the image",),
    )


def _camera(source: Source) -> ForeignCamera:
    root = source.xml()
    geometry = _numbers(source, root, "Geometry", ("width", "height", "dpx", "dpy"))
    intrinsic = _numbers(source, root, "Intrinsic", ("focal", "kappa1", "cx", "cy", "sx"))
    extrinsic = _numbers(source, root, "Extrinsic", ("tx", "ty", "tz", "rx", "ry", "rz"))
    width, height = int(geometry["width"]), int(geometry["height"])
    focal = intrinsic["focal"]
    if min(width, height, geometry["dpx"], geometry["dpy"], focal, intrinsic["sx"]) <= 0:
        raise CalibError(f"{source}: width, height, dpx, dpy, focal and sx must be positive: check the file")
    K = np.array(
        [
            [focal * intrinsic["sx"] / geometry["dpx"], 0.0, intrinsic["cx"]],
            [0.0, focal / geometry["dpy"], intrinsic["cy"]],
            [0.0, 0.0, 1.0],
        ]
    )
    R = _rotation(extrinsic["rx"], extrinsic["ry"], extrinsic["rz"])
    t = np.array([extrinsic["tx"], extrinsic["ty"], extrinsic["tz"]])
    distortion, worst_px = _brown_from_tsai(intrinsic["kappa1"] * focal**2, K, width, height)
    if not worst_px <= _WORST_FIT_PX:
        raise CalibError(
            f"{source}: kappa1 = {intrinsic['kappa1']} cannot be written as Brown-Conrady distortion "
            f"(off by {worst_px:.2f} px): check focal and kappa1"
        )
    height_mm = float((-R.T @ t)[2])
    if height_mm <= 0:
        raise CalibError(
            f"{source}: the camera is below ground ({height_mm / 1000:.1f} m): the world must have z up"
        )
    return ForeignCamera(root.get("name") or source.path.stem, K, R, t, distortion, (width, height))


def _numbers(source: Source, root: ElementTree.Element, tag: str, names: tuple[str, ...]) -> dict[str, float]:
    element = root.find(tag)
    if element is None:
        raise CalibError(f"{source}: has no <Camera><{tag} …>: give a PETS2009 file such as View_001.xml")
    found = {}
    for name in names:
        text = element.get(name)
        try:
            number = float(text) if text is not None else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise CalibError(f"{source}: {tag} {name} is {text!r}: it must be a finite number")
        found[name] = number
    return found


def _rotation(rx: float, ry: float, rz: float) -> NDArray[np.float64]:
    (ca, sa), (cb, sb), (cg, sg) = ((math.cos(angle), math.sin(angle)) for angle in (rx, ry, rz))
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, ca, -sa], [0.0, sa, ca]])
    about_y = np.array([[cb, 0.0, sb], [0.0, 1.0, 0.0], [-sb, 0.0, cb]])
    about_z = np.array([[cg, -sg, 0.0], [sg, cg, 0.0], [0.0, 0.0, 1.0]])
    rotation: NDArray[np.float64] = about_z @ about_y @ about_x
    return rotation


def _brown_from_tsai(
    kappa: float, K: NDArray[np.float64], width: int, height: int
) -> tuple[NDArray[np.float64], float]:
    """Brown-Conrady (5,) with r_d ≈ r_u (1 + k1 r_u² + k2 r_u⁴ + k3 r_u⁶) over the image, and its largest
    error in px.

    `kappa` is Tsai's κ₁ in normalised units, per squared distorted radius.
    """
    corners = np.array([[x, y] for x in (-0.5, width - 0.5) for y in (-0.5, height - 0.5)])
    farthest = float(np.hypot(*((corners - K[:2, 2]) / (K[0, 0], K[1, 1])).T).max())
    if kappa < 0:
        farthest = min(farthest, _SHARE_OF_FOLD / math.sqrt(-3 * kappa))
    # Chebyshev's spacing, denser outwards, makes least squares nearly the fit of smallest largest error.
    distorted = farthest * np.sin(np.linspace(0.0, math.pi / 2, 2001)[1:])
    undistorted = distorted * (1 + kappa * distorted**2)
    # In units of the farthest radius, for a well-conditioned system.
    scale = undistorted[-1]
    unit = undistorted / scale
    powers = np.stack([unit**3, unit**5, unit**7], axis=1)
    solution = np.linalg.lstsq(powers, (distorted - undistorted) / scale)[0]
    k1, k2, k3 = solution / scale ** np.array([2, 4, 6])
    squared = undistorted**2
    fitted = undistorted * (1 + squared * (k1 + squared * (k2 + squared * k3)))
    worst_px = float(np.abs(fitted - distorted).max() * max(K[0, 0], K[1, 1]))
    return np.array([k1, k2, 0.0, 0.0, k3]), worst_px
