"""Bundle adjustment as one vector function: clicks and board corners in, residuals and a sparse Jacobian out.

Triggs et al., "Bundle adjustment: a modern synthesis" (2000). Unknown are a turn and a shift of every camera,
chosen intrinsics, the places of points that nobody surveyed, and a pose of every placement of a board.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from calib.projection import crosses, fold_radii, left_jacobians, pixels_and_slopes, rotations

Floats = NDArray[np.float64]
Whole = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Everything that projects: M cameras, P points, B placements (world from board). rotations (M, 3, 3),
    translations (M, 3), intrinsics (M, 9), points (P, 3), board_rotations (B, 3, 3), board_shifts (B, 3).
    """

    rotations: Floats
    translations: Floats
    intrinsics: Floats
    points: Floats
    board_rotations: Floats
    board_shifts: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """N pixels (N, 2), each in camera[n]. Of point[n] where placement[n] is -1, else of `corners`[n] (N, 3),
    in the frame of the board at that placement.
    """

    pixels: Floats
    camera: Whole
    point: Whole
    placement: Whole
    corners: Floats


class Rows:
    """The function that least squares minimises, around a starting `State`.

    lens: (M, 9, L), what each of L numbers per camera adds to its intrinsics; deviations: (L,), how far each
    may go for the price of one pixel. free_points: (P,) bool; moving: (M,) bool, cameras whose pose may
    change. gauge: the price in pixels of a metre or a radian that a camera moves; makes every step unique.
    """

    def __init__(
        self,
        start: State,
        seen: Observations,
        skews: Floats,
        *,
        lens: Floats,
        free_points: NDArray[np.bool_],
        moving: NDArray[np.bool_],
        deviations: Floats,
        gauge: float,
    ) -> None:
        self.start, self.seen = start, seen
        self._skews = skews
        self._lens = lens
        count, kinds = len(start.rotations), lens.shape[2]
        self._moving = np.flatnonzero(moving)
        self._free = np.flatnonzero(free_points)
        sizes = (6 * len(self._moving), kinds * count, 3 * len(self._free), 6 * len(start.board_shifts))
        self._ends = np.cumsum(sizes)
        self.points_at = slice(int(self._ends[1]), int(self._ends[2]))
        self.unknowns = int(self._ends[-1])
        poses = np.full(sizes[0], gauge)
        self._prior_weights = np.concatenate([poses, np.tile(1 / deviations, count)])
        self._indices()

    def _indices(self) -> None:
        """Which unknown each number of the Jacobian belongs to: the pattern never changes."""
        seen, start = self.seen, self.start
        count = len(seen.pixels)
        kinds = self._lens.shape[2]
        rows = np.arange(2 * count).reshape(count, 2)
        parts: list[tuple[Whole, Whole]] = []

        def block(chosen: Whole, first: Whole, width: int) -> None:
            columns = first[:, None, None] + np.arange(width)
            shape = (len(chosen), 2, width)
            parts.append(
                (
                    np.broadcast_to(rows[chosen][:, :, None], shape).ravel(),
                    np.broadcast_to(columns, shape).ravel(),
                )
            )

        slot = np.full(len(start.rotations), -1)
        slot[self._moving] = np.arange(len(self._moving))
        self._by_pose = np.flatnonzero(slot[seen.camera] >= 0)
        block(self._by_pose, 6 * slot[seen.camera[self._by_pose]], 6)
        block(np.arange(count), self._ends[0] + kinds * seen.camera, kinds)
        place = np.full(len(start.points) + 1, -1)
        place[self._free] = np.arange(len(self._free))
        self._by_point = np.flatnonzero((seen.placement < 0) & (place[seen.point] >= 0))
        block(self._by_point, self._ends[1] + 3 * place[seen.point[self._by_point]], 3)
        self._by_board = np.flatnonzero(seen.placement >= 0)
        block(self._by_board, self._ends[2] + 6 * seen.placement[self._by_board], 6)
        priors = int(self._ends[1])
        parts.append((2 * count + np.arange(priors), np.arange(priors)))
        self._rows = np.concatenate([part[0] for part in parts])
        self._columns = np.concatenate([part[1] for part in parts])
        self._shape = (2 * count + priors, self.unknowns)

    def start_vector(self) -> Floats:
        """(unknowns,) of the starting state."""
        start = self.start
        x = np.zeros(self.unknowns)
        poses, _, points, boards = np.split(x, self._ends[:3])
        poses.reshape(-1, 6)[:, 3:] = start.translations[self._moving]
        points.reshape(-1, 3)[:] = start.points[self._free]
        boards.reshape(-1, 6)[:, 3:] = start.board_shifts
        return x

    def state(self, x: Floats) -> State:
        """What the unknowns stand for."""
        start = self.start
        poses, intrinsics, points, boards = np.split(x, self._ends[:3])
        turns, shifts = start.rotations.copy(), start.translations.copy()
        by_camera = poses.reshape(-1, 6)
        turns[self._moving] = rotations(by_camera[:, :3]) @ turns[self._moving]
        shifts[self._moving] = by_camera[:, 3:]
        change = intrinsics.reshape(len(start.intrinsics), -1)
        lenses = start.intrinsics + np.einsum("mil,ml->mi", self._lens, change)
        # A focal length that a poor start drives through zero would never come back.
        lenses[:, :2] = np.maximum(lenses[:, :2], 1.0)
        places = start.points.copy()
        places[self._free] = points.reshape(-1, 3)
        by_board = boards.reshape(-1, 6)
        return State(
            turns, shifts, lenses, places, rotations(by_board[:, :3]) @ start.board_rotations, by_board[:, 3:]
        )

    def predicted(self, state: State) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Pixels (N, 2), their slopes by the point in the camera and by the intrinsics, and the points turned
        into the camera and (boards) into the world before they are shifted.
        """
        seen = self.seen
        world = (
            state.points[np.where(seen.placement < 0, seen.point, 0)] if len(state.points) else seen.corners
        )
        on_board = np.zeros_like(seen.corners)
        boards = self._by_board
        if len(boards):
            placement = seen.placement[boards]
            on_board[boards] = np.einsum("nij,nj->ni", state.board_rotations[placement], seen.corners[boards])
            world = world.copy()
            world[boards] = on_board[boards] + state.board_shifts[placement]
        turned = np.einsum("nij,nj->ni", state.rotations[seen.camera], world)
        folds = fold_radii(state.intrinsics[:, 4:])
        pixels, by_point, by_intrinsics = pixels_and_slopes(
            turned + state.translations[seen.camera],
            state.intrinsics[seen.camera],
            self._skews[seen.camera],
            folds[seen.camera],
        )
        return pixels, by_point, by_intrinsics, turned, on_board

    def residuals(self, x: Floats) -> Floats:
        """(2 N + priors,): predicted minus seen pixels, then what straying from the start costs."""
        pixels = self.predicted(self.state(x))[0]
        return np.concatenate([(pixels - self.seen.pixels).ravel(), self._prior_weights * self._strayed(x)])

    def _strayed(self, x: Floats) -> Floats:
        priors = int(self._ends[1])
        result: Floats = x[:priors] - self.start_vector()[:priors]
        return result

    def jacobian(self, x: Floats) -> csr_matrix:
        """Sparse (2 N + priors, unknowns)."""
        seen, state = self.seen, self.state(x)
        _, by_point, by_intrinsics, turned, on_board = self.predicted(state)
        poses, _, _, boards = np.split(x, self._ends[:3])
        vectors = np.zeros((len(state.rotations), 3))
        vectors[self._moving] = poses.reshape(-1, 6)[:, :3]
        chosen = self._by_pose
        by_turn = by_point[chosen] @ -crosses(turned[chosen]) @ left_jacobians(vectors)[seen.camera[chosen]]
        by_world = by_point @ state.rotations[seen.camera]
        onto = self._by_board
        board_vectors = boards.reshape(-1, 6)[:, :3]
        by_board_turn = by_world[onto] @ -crosses(on_board[onto])
        if len(onto):
            by_board_turn = by_board_turn @ left_jacobians(board_vectors)[seen.placement[onto]]
        values = [
            np.concatenate([by_turn, by_point[chosen]], axis=2).ravel(),
            (by_intrinsics @ self._lens[seen.camera]).ravel(),
            by_world[self._by_point].ravel(),
            np.concatenate([by_board_turn, by_world[onto]], axis=2).ravel(),
            self._prior_weights,
        ]
        return csr_matrix((np.concatenate(values), (self._rows, self._columns)), shape=self._shape)
