"""PETS2009 calibration: Tsai's camera model in one XML file per view -> `Camera`.

Tsai (1987): camera axes like OpenCV's, R = Rz Ry Rx, world and t in millimetres, z up. Sensor coordinates
are f·x/z in mm; the radial term goes from distorted to undistorted, r_u = r_d (1 + κ₁ r_d²), and pixels are
X_d·sx/dpx + cx, Y_d/dpy + cy. The files' pixels are kept as they are: integer coordinates are pixel
centres, as Tsai's calibration code measures them.
"""

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.errors import CalibError

_LARGEST_FILE_BYTES = 64 * 1024
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
    path = Path(xml_path)
    root = _root(path)
    geometry = _numbers(path, root, "Geometry", ("width", "height", "dpx", "dpy"))
    intrinsic = _numbers(path, root, "Intrinsic", ("focal", "kappa1", "cx", "cy", "sx"))
    extrinsic = _numbers(path, root, "Extrinsic", ("tx", "ty", "tz", "rx", "ry", "rz"))
    width, height = int(geometry["width"]), int(geometry["height"])
    focal = intrinsic["focal"]
    if min(width, height, geometry["dpx"], geometry["dpy"], focal, intrinsic["sx"]) <= 0:
        raise CalibError(f"{path}: width, height, dpx, dpy, focal and sx must be positive: check the file")
    K = np.array(
        [
            [focal * intrinsic["sx"] / geometry["dpx"], 0.0, intrinsic["cx"]],
            [0.0, focal / geometry["dpy"], intrinsic["cy"]],
            [0.0, 0.0, 1.0],
        ]
    )
    try:
        distortion, worst_px = _brown_from_tsai(intrinsic["kappa1"] * focal**2, K, width, height)
        camera = Camera(
            K,
            _rotation(extrinsic["rx"], extrinsic["ry"], extrinsic["rz"]),
            np.array([extrinsic["tx"], extrinsic["ty"], extrinsic["tz"]]) / 1000.0,
            distortion,
            width,
            height,
        )
    except CalibError as error:
        raise CalibError(f"{path}: {error}") from None
    if worst_px > _WORST_FIT_PX:
        raise CalibError(
            f"{path}: kappa1 = {intrinsic['kappa1']} cannot be written as Brown-Conrady distortion "
            f"(off by {worst_px:.2f} px): check focal and kappa1"
        )
    if camera.centre[2] <= 0:
        raise CalibError(
            f"{path}: the camera is below ground ({camera.centre[2]:.1f} m): the world must have z up"
        )
    return camera


def _root(path: Path) -> ElementTree.Element:
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise CalibError(f"{path}: is too large for a PETS2009 camera file: check the path")
        text = path.read_bytes()
    except OSError as error:
        raise CalibError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error
    if b"<!ENTITY" in text:
        raise CalibError(f"{path}: declares XML entities, which no PETS2009 camera file does: check the file")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise CalibError(f"{path}: is not whole XML ({error}): get the file again") from error


def _numbers(path: Path, root: ElementTree.Element, tag: str, names: tuple[str, ...]) -> dict[str, float]:
    element = root.find(tag)
    if root.tag != "Camera" or element is None:
        raise CalibError(f"{path}: has no <Camera><{tag} …>: give a PETS2009 file such as View_001.xml")
    numbers = {}
    for name in names:
        text = element.get(name)
        try:
            number = float(text) if text is not None else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise CalibError(f"{path}: {tag} {name} is {text!r}: it must be a finite number")
        numbers[name] = number
    return numbers


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
