"""A rig: calibrated cameras in one world, as an importer returns them, before there is a ground grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from calib.camera import Camera
from calib.errors import CalibError
from calib.scene import checked_name


def is_usable_name(name: object) -> bool:
    """Whether a scene file takes this as a camera's name: 1 to 64 letters, digits, _ . -, no sign first."""
    try:
        checked_name("camera", name)
    except CalibError:
        return False
    return True


@dataclass(frozen=True, slots=True, eq=False)
class Rig:
    """Cameras by name, in a right-handed world in metres with z up, and what was found or assumed of it.

    notes: one line each, for people: units, axes, handedness, image sizes. Raises CalibError without cameras
    and for names that a scene file cannot hold; that each R is a rotation, `Camera` has checked.
    """

    cameras: Mapping[str, Camera]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.cameras:
            raise CalibError("a rig has no cameras: give at least one")
        for name in self.cameras:
            checked_name("camera", name)
        object.__setattr__(self, "cameras", MappingProxyType(dict(self.cameras)))
        object.__setattr__(self, "notes", tuple(self.notes))

    def __eq__(self, other: object) -> bool:
        """Equal cameras under equal names in the same order; notes are only words."""
        if not isinstance(other, Rig):
            return NotImplemented
        return list(self.cameras.items()) == list(other.cameras.items())

    def __hash__(self) -> int:
        return hash(tuple(self.cameras.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only mappings cannot be pickled.
        return type(self), (dict(self.cameras), self.notes)
