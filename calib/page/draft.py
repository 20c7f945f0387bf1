"""What is being edited: a scene that need not be whole yet, and the marked points."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from numpy import float64
from numpy.typing import NDArray

from calib.camera import Camera
from calib.errors import CalibError
from calib.ground import GroundGrid
from calib.points import MarkedPoint, check_unique
from calib.scene import Scene, checked_name

Floats = NDArray[float64]
Size = tuple[int, int]
Polygons = Mapping[str, Floats]

# A start for a place about which nothing is known yet.
FIRST_GROUND = GroundGrid(-10.0, -10.0, 0.25, 80, 80)
FIRST_HEIGHTS_M = (0.1, 0.45, 0.85, 1.2, 1.5, 1.75)


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """sizes: (width, height) in pixels of every view, in order; cameras: of the views that have a pose;
    occluders: by view, then by name, pixels; lenses: intrinsics that are known of views without a pose (their
    poses mean nothing); the rest as in `Scene`.
    """

    name: str
    sizes: Mapping[str, Size]
    cameras: Mapping[str, Camera]
    ground: GroundGrid
    heights_m: tuple[float, ...]
    zones: Polygons
    region: Floats | None
    occluders: Mapping[str, Polygons]
    points: tuple[MarkedPoint, ...]
    lenses: Mapping[str, Camera] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_name("scene", self.name)
        for view in self.sizes:
            checked_name("camera", view)
        check_unique(self.points)
        for name in ("sizes", "cameras", "zones", "occluders", "lenses"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @classmethod
    def of(
        cls,
        name: str,
        scene: Scene | None,
        points: tuple[MarkedPoint, ...],
        sizes: Mapping[str, Size],
        lenses: Mapping[str, Camera] | None = None,
    ) -> "Draft":
        """A draft of a scene, or of none yet. sizes: of the pictures; a camera's own size counts more."""
        cameras = {} if scene is None else scene.cameras
        known = {view: (camera.width, camera.height) for view, camera in cameras.items()}
        return cls(
            name if scene is None else scene.name,
            {**known, **{view: size for view, size in sizes.items() if view not in known}},
            cameras,
            FIRST_GROUND if scene is None else scene.ground,
            FIRST_HEIGHTS_M if scene is None else scene.heights_m,
            {} if scene is None else scene.zones,
            None if scene is None else scene.region,
            {} if scene is None else scene.occluders,
            points,
            lenses or {},
        )

    def scene(self) -> Scene:
        """The scene of the views that have a pose. CalibError if none has."""
        if not self.cameras:
            raise CalibError(
                "no view has a pose yet: mark points, type their world positions, and solve a view's pose"
            )
        occluders = {view: polygons for view, polygons in self.occluders.items() if view in self.cameras}
        # In the order of the views, whichever was solved first.
        cameras = {view: self.cameras[view] for view in self.sizes if view in self.cameras}
        return Scene(self.name, cameras, self.ground, self.heights_m, self.zones, self.region, occluders)

    def lens(self, view: str) -> Camera | None:
        """A camera with the view's intrinsics, where they are known."""
        return self.cameras.get(view) or self.lenses.get(view)

    def point(self, name: str) -> MarkedPoint:
        """CalibError if there is no such point."""
        for point in self.points:
            if point.name == name:
                return point
        raise CalibError(f"there is no point {name!r}: it was renamed or removed")
