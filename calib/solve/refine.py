"""All cameras made to agree at once: bundle adjustment over surveyed points, cross-view clicks and boards.

Surveyed points stay where they are and so hold the world's origin, axes and scale. Without at least three of
them off one line, the cameras as a whole stay where they were (the best similarity, or where boards give the
scale the best rigid motion). A board counts for several cameras only where it rested: seen at different times
in the hand, it was in different places. Wrong clicks pull no harder than clicks at the edge of what is usual
(Huber's loss), and are listed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera, nearest_rotation
from calib.errors import CalibError
from calib.points import MarkedPoint, Residuals, check_unique
from calib.projection import intrinsics_of
from calib.solve.bundle_rows import Observations, Rows, State
from calib.solve.bundle_solve import minimise, robust_scale
from calib.solve.lens_columns import Lens, lens_asked, lens_columns
from calib.solve.refine_start import BoardView, is_spread, placed_boards, start_places
from calib.solve.similarity import Similarity, similarity_of_cameras

Floats = NDArray[np.float64]

# A camera with fewer clicks and corners than this stays as it is.
_FEWEST = 4
# One pixel for a metre or a radian: far below what any click says, and enough to make steps unique.
_GAUGE = 1e-3
# A click this many times further off than is usual is told to be wrong.
_WRONG_SIGMAS = 5.0
_WRONG_PX = 5.0


@dataclass(frozen=True, slots=True)
class WrongClick:
    """A click that the others contradict: whose it is and how far off, pixels."""

    point: str
    camera: str
    off_px: float


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """What `refine` found.

    cameras: in the order given; points: by name, (3,) metres, where each point is, surveyed ones as given;
    before, residuals: of the clicks, board_residuals: of the corners, by placement; wrong: clicks that the
    others contradict, worst first; world: what holds origin, axes and scale, in words; notes: what to know
    about it, one line each.
    """

    cameras: Mapping[str, Camera]
    points: Mapping[str, Floats]
    before: Residuals
    residuals: Residuals
    board_residuals: Residuals
    wrong: tuple[WrongClick, ...]
    world: str
    notes: tuple[str, ...]
    evaluations: int

    @property
    def rms_before_px(self) -> float:
        """Root mean square distance of all clicks and corners at the start."""
        return self.before.overall.rms_px

    @property
    def rms_after_px(self) -> float:
        """Root mean square distance of all clicks and corners at the end."""
        both = np.concatenate([self.residuals.distances_px, self.board_residuals.distances_px])
        return float(np.sqrt(np.nanmean(both**2)))


def refine(
    cameras: Mapping[str, Camera],
    points: Sequence[MarkedPoint],
    boards: Sequence[BoardView] = (),
    *,
    solve_intrinsics: bool | Lens = False,
    fixed: Collection[str] = (),
) -> Refined:
    """The cameras that agree best with the clicks (and resting boards), from cameras that roughly do.

    solve_intrinsics: False or "keep": poses only; "focal": fx and fy by one factor; "focal+k1"; True or
    "all": also the principal point and k2. fixed: cameras that keep their pose. CalibError where there is
    nothing to refine, a camera is not known, or the points say less than is asked.
    """
    lens = lens_asked(solve_intrinsics)
    problem = _Problem(cameras, points, boards, lens, fixed)
    x, evaluations = minimise(problem.rows)
    return problem.refined(problem.rows.state(x), evaluations)


class _Problem:
    """Names and records on one side, arrays on the other."""

    def __init__(
        self,
        cameras: Mapping[str, Camera],
        points: Sequence[MarkedPoint],
        boards: Sequence[BoardView],
        lens: Lens,
        fixed: Collection[str],
    ) -> None:
        check_unique(points)
        for what, names in (("fixed", fixed), ("board", {view.camera for view in boards})):
            for name in names:
                if name not in cameras:
                    raise CalibError(f"{what}: there is no camera {name!r}; known: {', '.join(cameras)}")
        self.cameras, self.names, self.lens = dict(cameras), list(cameras), lens
        self.notes: list[str] = []
        points, behind = _in_front(cameras, points)
        if behind:
            self.notes.append(
                f"left out, as they would be behind the camera: {', '.join(behind)}; check position and click"
            )
        usable = [(point, [view for view in point.pixels if view in cameras]) for point in points]
        self.used = [point for point, seen in usable if len(seen) >= 2 or (point.world is not None and seen)]
        self.placed = placed_boards(cameras, boards)
        self.boards = [view for view in boards if view.placement in self.placed]
        unplaced = sorted({view.placement for view in boards} - {*self.placed})
        if unplaced:
            self.notes.append(f"board(s) seen edge-on only were not used: {', '.join(unplaced)}")
        if not self.used and not self.boards:
            raise CalibError(
                f"there is nothing to refine with: {', '.join(behind[:5])} would be behind the camera; "
                "place the cameras anew"
                if behind
                else "there is nothing to refine with: mark surveyed points, or points that two cameras see"
            )
        left_out = len(points) - len(self.used)
        if left_out:
            self.notes.append(
                f"{left_out} point(s) were not used: seen by one camera only and not surveyed, or by none"
            )
        self.placements = sorted({view.placement for view in self.boards})
        self.observations = self._observations()
        self.moving = self._moving(fixed)
        self.surveyed = np.array([point.world is not None for point in self.used], dtype=bool)
        start = self._start()
        width = max(camera.width for camera in cameras.values())
        lenses, deviations = lens_columns(lens, start.intrinsics, width)
        self.rows = Rows(
            start,
            self.observations,
            np.array([camera.K[0, 1] for camera in cameras.values()]),
            lens=lenses,
            deviations=deviations,
            free_points=~self.surveyed,
            moving=self.moving,
            gauge=_GAUGE,
        )
        self.held = is_spread([point.world for point in self.used if point.world is not None]) or bool(fixed)

    def _observations(self) -> Observations:
        number = {name: index for index, name in enumerate(self.names)}
        self.click_points, self.click_views = [], []
        pixels: list[Floats] = []
        points: list[int] = []
        for index, point in enumerate(self.used):
            for view, pixel in point.pixels.items():
                if view in number:
                    self.click_points.append(point.name)
                    self.click_views.append(view)
                    pixels.append(pixel)
                    points.append(index)
        clicks = len(pixels)
        corners = [np.zeros((clicks, 3))]
        placements = [-1] * clicks
        views = list(self.click_views)
        for sight in self.boards:
            pixels.extend(sight.pixels)
            corners.append(sight.corners)
            placements += [self.placements.index(sight.placement)] * len(sight.pixels)
            views += [sight.camera] * len(sight.pixels)
            points += [0] * len(sight.pixels)
        self.clicks, self.views = clicks, views
        return Observations(
            np.array(pixels).reshape(-1, 2),
            np.array([number[view] for view in views], dtype=np.intp),
            np.array(points, dtype=np.intp),
            np.array(placements, dtype=np.intp),
            np.concatenate(corners),
        )

    def _moving(self, fixed: Collection[str]) -> NDArray[np.bool_]:
        counts = np.bincount(self.observations.camera, minlength=len(self.names))
        moving = counts >= _FEWEST
        few = [f"{name} ({count})" for name, count in zip(self.names, counts, strict=True) if count < _FEWEST]
        if few:
            self.notes.append(
                f"left as they are, with fewer than {_FEWEST} clicks or corners: {', '.join(few)}"
            )
        moving[[self.names.index(name) for name in fixed]] = False
        if not moving.any():
            raise CalibError(f"no camera has {_FEWEST} clicks or more: mark more points")
        return moving

    def _start(self) -> State:
        cameras = list(self.cameras.values())
        placed = self.placed
        return State(
            np.stack([camera.R for camera in cameras]),
            np.stack([camera.t for camera in cameras]),
            np.stack([intrinsics_of(camera) for camera in cameras]),
            start_places(self.cameras, self.used),
            np.array([placed[name][0] for name in self.placements]).reshape(-1, 3, 3),
            np.array([placed[name][1] for name in self.placements]).reshape(-1, 3),
        )

    def _residuals(self, state: State) -> tuple[Residuals, Residuals]:
        offsets = self.observations.pixels - self.rows.predicted(state)[0]
        names = [self.placements[index] for index in self.observations.placement[self.clicks :]]
        return (
            Residuals(tuple(self.click_points), tuple(self.click_views), offsets[: self.clicks]),
            Residuals(tuple(names), tuple(self.views[self.clicks :]), offsets[self.clicks :]),
        )

    def refined(self, state: State, evaluations: int) -> Refined:
        before, boards_before = self._residuals(self.rows.start)
        after, boards_after = self._residuals(state)
        cameras = {name: self._camera(name, state) for name in self.names}
        places = state.points
        if self.held:
            world = "held by the surveyed points" if self.surveyed.any() else "held by the fixed cameras"
        else:
            scaled = not self.boards and self.surveyed.sum() < 2
            back = similarity_of_cameras(cameras, self.cameras, scaled=scaled)
            if self.surveyed.any():
                back = Similarity.identity()
            cameras = {name: back.camera(camera) for name, camera in cameras.items()}
            places = back.points(places)
            world = (
                "only partly held: fewer than three surveyed points off one line"
                if self.surveyed.any()
                else "kept as it was: no point is surveyed"
                + ("; the scale is the boards'" if self.boards else "; the scale is as it was")
            )
        self.notes += [
            f"camera {name}: its lens model folds back inside the image; solve fewer intrinsics"
            for name, camera in cameras.items()
            if self.lens != "keep" and not np.isfinite(camera.rays(_corners(camera))).all()
        ]
        return Refined(
            MappingProxyType(cameras),
            MappingProxyType({point.name: place for point, place in zip(self.used, places, strict=True)}),
            _joined(before, boards_before),
            after,
            boards_after,
            _wrong(after),
            world,
            tuple(self.notes),
            evaluations,
        )

    def _camera(self, name: str, state: State) -> Camera:
        index, given = self.names.index(name), self.cameras[name]
        if self.lens == "keep" and not self.moving[index]:
            return given
        fx, fy, cx, cy, *distortion = state.intrinsics[index]
        K = [[fx, given.K[0, 1], cx], [0, fy, cy], [0, 0, 1]]
        rotation = nearest_rotation(state.rotations[index])
        return Camera(
            np.array(K), rotation, state.translations[index], np.array(distortion), given.width, given.height
        )


def _in_front(
    cameras: Mapping[str, Camera], points: Sequence[MarkedPoint]
) -> tuple[list[MarkedPoint], list[str]]:
    """The points without the clicks of surveyed ones that are behind the camera, and those clicks in words.
    No camera is off by so much that such a click could be right.
    """
    kept, behind = [], []
    for point in points:
        place = point.world
        wrong = [
            view
            for view in point.pixels
            if place is not None
            and view in cameras
            and not cameras[view].R[2] @ (place - cameras[view].centre) > 0
        ]
        behind += [f"{point.name} in {view}" for view in wrong]
        pixels = {view: pixel for view, pixel in point.pixels.items() if view not in wrong}
        kept.append(replace(point, pixels=pixels) if wrong else point)
    return kept, behind


def _corners(camera: Camera) -> Floats:
    width, height = camera.width, camera.height
    return np.array([[x, y] for x in (0.0, width - 1.0) for y in (0.0, height - 1.0)])


def _joined(first: Residuals, second: Residuals) -> Residuals:
    return Residuals(
        first.points + second.points,
        first.cameras + second.cameras,
        np.concatenate([first.offsets_px, second.offsets_px]),
    )


def _wrong(after: Residuals) -> tuple[WrongClick, ...]:
    limit = max(_WRONG_PX, _WRONG_SIGMAS * robust_scale(after.offsets_px))
    rows = zip(after.points, after.cameras, after.distances_px.tolist(), strict=True)
    found = [WrongClick(*row) for row in rows if row[2] > limit]
    return tuple(sorted(found, key=lambda click: -click.off_px))
