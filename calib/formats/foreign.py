"""Cameras as a file has them, and the one place where they become ours: metres, right-handed, z up.

A format says what it knows: the unit, the axis that points up, the image size. What it does not know the
user says (`Wishes`), or it is found from the cameras and told in the notes, or the import is refused with
the question to answer. Nothing is assumed in silence.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.camera import Camera, nearest_rotation
from calib.errors import CalibError
from calib.rig import Rig, is_usable_name

Floats = NDArray[np.float64]

UNITS_M = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "ft": 0.3048, "in": 0.0254}
# What our own exports write, and read back as said.
WORLD = "viewsync: metres, right-handed, z up"

# file_from_ours, a rotation, for each axis of the file that points up: its columns are our x, y, z axes in
# the file's.
AXES: dict[str, Floats] = {
    "z": np.eye(3),
    "-z": np.diag([1.0, -1.0, -1.0]),
    "y": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
    "-y": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]),
    "x": np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "-x": np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
}
_MIRROR = np.diag([1.0, -1.0, 1.0])
# Cameras further apart, or higher, than this many metres over one ground plane: another unit.
_FARTHEST_M = 500.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user says of files that do not say it themselves, or of which only a part is wanted.

    unit_m: metres per unit; up: one of AXES; size: (width, height) pixels; only: names of cameras, all if
    empty; which: which rig of a file that holds several; raise_m: how far above the ground the file's
    height 0 is.
    """

    unit_m: float | None = None
    up: str | None = None
    size: tuple[int, int] | None = None
    only: tuple[str, ...] = ()
    which: str | None = None
    raise_m: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class ForeignCamera:
    """One camera in the file's own world and unit, x_camera = R x_world + t with OpenCV's camera axes.

    R may mirror (det -1) where the file's world is left-handed. distortion: OpenCV's order, any length.
    """

    name: str
    K: ArrayLike
    R: ArrayLike
    t: ArrayLike
    distortion: ArrayLike = ()
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Foreign:
    """What a file holds. unit_m or up is None where the format leaves it open.

    scale_is_free: the format has no unit at all, so that taking metres would be a guess; place: the file or
    folder, for messages.
    """

    place: str
    cameras: Sequence[ForeignCamera]
    unit_m: float | None = None
    up: str | None = None
    scale_is_free: bool = False
    notes: tuple[str, ...] = field(default=())


def settle(found: Foreign, wishes: Wishes) -> Rig:
    """Foreign cameras -> a rig in metres, right-handed, z up, with the notes that say what was done.

    Raises CalibError, naming file, camera and what to do, where that cannot be known or is implausible.
    """
    cameras, notes = _chosen(found, wishes)
    names = _names(found.place, cameras, notes)
    place = {id(camera): f"{found.place}: camera {camera.name}" for camera in cameras}
    rotations, mirrored = _rotations(found.place, cameras)
    up, how = _up(found, wishes, rotations, mirrored)
    unit_m, unit_note = _unit(found, wishes, rotations, cameras)
    notes.append(unit_note)
    shown = {
        "z": "",
        "-z": ": (x, y, z) is (x, -y, -z) here",
        "y": ": (x, y, z) is (x, -z, y) here",
        "-y": ": (x, y, z) is (x, z, -y) here",
        "x": ": (x, y, z) is (y, z, x) here",
        "-x": ": (x, y, z) is (y, -z, -x) here",
    }
    notes.append(f"axes: {up} points up in the file ({how}){shown[up]}")
    if mirrored:
        notes.append("handedness: left-handed in the file (det R = -1); y is turned over, det R = +1 now")
    else:
        notes.append("handedness: right-handed in the file, det R = +1 for every camera")
    if wishes.raise_m:
        notes.append(f"ground: {wishes.raise_m:g} m below the file's height 0, as you say")
    made = {}
    for name, camera, rotation in zip(names, cameras, rotations, strict=True):
        try:
            width, height = _size(camera, wishes)
            R = rotation @ AXES[up]
            # Dividing by 1000 is exact to the last digit, multiplying by 0.001 is not.
            t = np.asarray(camera.t, dtype=np.float64) / (1.0 / unit_m)
            made[name] = Camera(
                np.asarray(camera.K, dtype=np.float64),
                R,
                t - R[:, 2] * wishes.raise_m if wishes.raise_m else t,
                five(camera.distortion),
                width,
                height,
            )
        except CalibError as error:
            raise CalibError(f"{place[id(camera)]}: {error}") from None
    below = [name for name, camera in made.items() if camera.centre[2] <= 0]
    if below:
        notes.append(f"ground: {', '.join(below)} not above it (height 0); --up or --raise may be wrong")
    return Rig(made, (*notes, *found.notes))


def five(distortion: ArrayLike) -> Floats:
    """Coefficients in OpenCV's order (any number of them) -> (5,) k1, k2, p1, p2, k3.

    Raises CalibError for a lens that needs more than these five.
    """
    given = np.asarray(distortion, dtype=np.float64).ravel()
    if given[5:].any():
        raise CalibError(
            f"its lens model has {given.size} coefficients (rational, thin prism or tilted) that are not 0: "
            "calibrate it again with k1, k2, p1, p2, k3 alone"
        )
    result = np.zeros(5)
    result[: min(given.size, 5)] = given[:5]
    return result


def _chosen(found: Foreign, wishes: Wishes) -> tuple[list[ForeignCamera], list[str]]:
    cameras = list(found.cameras)
    if not wishes.only:
        return cameras, []
    known = {camera.name: camera for camera in cameras}
    lacking = [name for name in wishes.only if name not in known]
    if lacking:
        some = ", ".join([*known][:12]) + (", …" if len(known) > 12 else "")
        raise CalibError(f"{found.place}: has no camera {lacking[0]!r}: it has {some}")
    return [known[name] for name in wishes.only], [
        f"cameras: {len(wishes.only)} of {len(cameras)}, as asked for"
    ]


def _names(place: str, cameras: Sequence[ForeignCamera], notes: list[str]) -> list[str]:
    if not cameras:
        raise CalibError(f"{place}: holds no camera: get the whole file")
    names = []
    for camera in cameras:
        name = camera.name
        if not is_usable_name(name):
            name = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-_.")[:64] or "camera"
            notes.append(f"names: {camera.name!r} is called {name} here")
        if name in names:
            raise CalibError(f"{place}: two cameras are called {name}: rename one of them, or leave it out")
        names.append(name)
    return names


def _rotations(place: str, cameras: Sequence[ForeignCamera]) -> tuple[list[Floats], bool]:
    """The nearest rotations, of a world with y turned over where the file's is left-handed, and whether."""
    rotations, mirrors = [], []
    for camera in cameras:
        given = np.asarray(camera.R, dtype=np.float64)
        mirrors.append(bool(np.linalg.det(given) < 0))
        given = given @ _MIRROR if mirrors[-1] else given
        # What is a rotation already keeps every digit.
        if np.abs(given @ given.T - np.eye(3)).max() > 1e-9:
            try:
                given = nearest_rotation(given)
            except CalibError as error:
                raise CalibError(f"{place}: camera {camera.name}: {error}") from None
        rotations.append(given)
    if any(mirrors) and not all(mirrors):
        odd = [camera.name for camera, mirror in zip(cameras, mirrors, strict=True) if mirror]
        raise CalibError(
            f"{place}: det R is -1 for {', '.join(odd)} and +1 for the other cameras, which cannot share a "
            "world: check their axes"
        )
    return rotations, all(mirrors)


def _up(found: Foreign, wishes: Wishes, rotations: Sequence[Floats], mirrored: bool) -> tuple[str, str]:
    if wishes.up is not None:
        # The user's axis is the file's own; ours have y turned over where the file is left-handed.
        if mirrored and wishes.up.endswith("y"):
            return ("y" if wishes.up == "-y" else "-y"), "as you say"
        return wishes.up, "as you say"
    if found.up is not None:
        return found.up, "the file or its format says so"
    # People mount cameras upright: what is up in their pictures is up in the world, on average.
    mean = np.mean([-rotation[1] for rotation in rotations], axis=0)
    axis = int(np.abs(mean).argmax())
    sign = 1.0 if mean[axis] > 0 else -1.0
    second = np.sort(np.abs(mean))[1]
    upright = min(-rotation[1, axis] * sign for rotation in rotations)
    if abs(mean[axis]) < 0.5 or second > 0.75 * abs(mean[axis]) or upright < 0.2:
        raise CalibError(
            f"{found.place}: does not say which axis points up, and the pictures do not agree on one: say it "
            "with --up (z, -z, y, -y, x or -x)"
        )
    return ("" if sign > 0 else "-") + "xyz"[axis], "found: it is up in the pictures"


def _unit(
    found: Foreign, wishes: Wishes, rotations: Sequence[Floats], cameras: Sequence[ForeignCamera]
) -> tuple[float, str]:
    if wishes.unit_m is not None:
        return wishes.unit_m, f"unit: {wishes.unit_m:g} m per unit of the file, as you say"
    if found.unit_m is not None:
        word = next((name for name, size in UNITS_M.items() if size == found.unit_m), f"{found.unit_m} m")
        return found.unit_m, f"unit: {word} by the file or its format, metres here"
    centres = np.array([-R.T @ np.asarray(c.t) for R, c in zip(rotations, cameras, strict=True)])
    spread = float(np.linalg.norm(centres - centres[0], axis=1).max())
    if found.scale_is_free:
        raise CalibError(
            f"{found.place}: has no unit of length (its cameras are up to {spread:.4g} units apart): say how "
            "many metres a unit is with --unit, such as --unit mm or --unit 1.75"
        )
    if max(spread, float(np.abs(centres).max())) > _FARTHEST_M:
        raise CalibError(
            f"{found.place}: does not state its unit, and as metres its cameras would be up to "
            f"{max(spread, float(np.abs(centres).max())):.4g} m away: say it, such as --unit mm (--unit m if "
            "that is right)"
        )
    return 1.0, "unit: not stated in the file; metres assumed (--unit says otherwise)"


def _size(camera: ForeignCamera, wishes: Wishes) -> tuple[int, int]:
    if camera.size is None:
        if wishes.size is None:
            raise CalibError("the file does not state the image size: say it with --size, such as 1920x1080")
        return wishes.size
    if wishes.size is not None and tuple(camera.size) != wishes.size:
        wide, high = camera.size
        raise CalibError(
            f"the file states an image size of {wide}x{high}: leave --size out, it does not resize"
        )
    return camera.size
