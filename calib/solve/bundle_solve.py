"""Minimising a bundle's rows with scipy's least squares, in coordinates in which every unknown matters alike.

In metres and pixels the problem is so badly conditioned that the iterative solver inside least squares hardly
moves. So it works in y with x = x0 + T y, where T makes the columns of J T orthonormal at x0: the points are
eliminated as in every bundle adjustment (Schur complement; Triggs et al. 2000, section 6), what is left is
small and dense. T is made anew every few steps; between, J T drifts only a little.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import LinearOperator

from calib.solve.bundle_rows import Rows

Floats = NDArray[np.float64]

# Steps between two choices of coordinates, and how often they are chosen at most.
_STEPS = 8
_ROUNDS = 25
# A step that lowers the cost by less than this share is the last one.
_SETTLED = 1e-5
# The scale of residuals is taken anew until it changes by less than this share.
_STEADY = 0.03
# A share of the largest weight, so that what no pixel tells stays where it is.
_DAMPING = 1e-10
# Huber's: beyond this many standard deviations a pixel pulls no harder. 95 % as good as least squares for
# clicks without wrong ones.
_HUBER = 1.345
_SURE_PX = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class _Coordinates:
    """x = x0 + T y. y holds first what stands for all but the points ("dense"), then three for each point."""

    x0: Floats
    dense: NDArray[np.intp]
    points: slice
    from_dense: Floats
    points_from_dense: Floats
    points_from_own: Floats  # (P, 3, 3)

    def x(self, y: Floats) -> Floats:
        """(unknowns,) -> (unknowns,)."""
        x = self.x0.copy()
        count = len(self.dense)
        x[self.dense] += self.from_dense @ y[:count]
        own = np.einsum("pij,pj->pi", self.points_from_own, y[count:].reshape(-1, 3))
        x[self.points] += self.points_from_dense @ y[:count] + own.ravel()
        return x

    def jacobian(self, jacobian: csr_matrix) -> LinearOperator:
        """By x, sparse (rows, unknowns) -> by y: J T, which is never multiplied out."""
        transposed = jacobian.T.tocsr()

        def from_y(y: Floats) -> Floats:
            result: Floats = jacobian @ (self.x(np.ravel(y)) - self.x0)
            return result

        def to_y(residuals: Floats) -> Floats:
            by_x = transposed @ np.ravel(residuals)
            by_points = by_x[self.points]
            own = np.einsum("pij,pi->pj", self.points_from_own, by_points.reshape(-1, 3))
            dense = self.from_dense.T @ by_x[self.dense] + self.points_from_dense.T @ by_points
            return np.concatenate([dense, own.ravel()])

        return LinearOperator(jacobian.shape, matvec=from_y, rmatvec=to_y, dtype=np.float64)


def _coordinates(rows: Rows, x0: Floats, weights: Floats) -> _Coordinates:
    weighted = (diags(np.sqrt(weights)) @ rows.jacobian(x0)).tocsc()
    points = rows.points_at
    dense = np.concatenate([np.arange(points.start), np.arange(points.stop, rows.unknowns)])
    by_dense, by_points = weighted[:, dense], weighted[:, points]
    count = by_points.shape[1] // 3
    squares = (by_points.T @ by_points).tocoo()  # three by three a point
    own = np.zeros((count, 3, 3))
    own[squares.row // 3, squares.row % 3, squares.col % 3] = squares.data
    root = _inverse_root(own)
    cross = np.asarray((by_points.T @ by_dense).todense()).reshape(count, 3, len(dense))
    eliminated = -(root @ np.swapaxes(root, 1, 2) @ cross).reshape(-1, len(dense))
    schur = (by_dense.T @ by_dense).toarray() + cross.reshape(-1, len(dense)).T @ eliminated
    # Turns, pixels and lens coefficients differ by orders of magnitude: first to a common size.
    size = np.sqrt(np.maximum(np.diag(schur), 1e-12))
    from_dense = _inverse_root((schur / size / size[:, None])[None])[0] / size[:, None]
    scaled = _Coordinates(x0, dense, points, from_dense, eliminated @ from_dense, root)
    # Least squares trusts its first step up to length 1: let that be the length of Gauss and Newton's.
    gradient = scaled.jacobian(rows.jacobian(x0)).rmatvec(weights * rows.residuals(x0))
    length = max(float(np.linalg.norm(gradient)), 1e-9)
    return _Coordinates(
        x0, dense, points, length * from_dense, length * scaled.points_from_dense, length * root
    )


def _inverse_root(squares: Floats) -> Floats:
    """Symmetric (..., n, n) -> T with Tᵀ A T = 1; what A hardly weighs is not blown up."""
    values, vectors = np.linalg.eigh(squares)
    floor = np.maximum(_DAMPING * values[..., -1:], 1e-12)
    result: Floats = vectors / np.sqrt(np.maximum(values, floor))[..., None, :]
    return result


def robust_scale(offsets: Floats) -> float:
    """Offsets in pixels, any shape -> the standard deviation of the better half's kind (median based)."""
    return max(_SURE_PX, 1.4826 * float(np.median(np.abs(offsets)))) if offsets.size else _SURE_PX


def minimise(rows: Rows) -> tuple[Floats, int]:
    """The unknowns that minimise Huber's loss of the rows, its scale taken from the residuals themselves, and
    how many times the rows were evaluated.
    """
    x, evaluations = rows.start_vector(), 0
    pixels = 2 * len(rows.seen.pixels)
    scale, settled = np.inf, False
    for _ in range(_ROUNDS):
        residuals = rows.residuals(x)
        now = _HUBER * robust_scale(residuals[:pixels])
        # Once it hardly changes the scale stays, so that there is one cost to bring down.
        settled = settled or abs(now - scale) <= _STEADY * now
        scale = scale if settled else now
        weights = np.minimum(1.0, scale / np.maximum(np.abs(residuals), 1e-12))
        weights[pixels:] = 1.0
        chosen = _coordinates(rows, x, weights)
        solution = least_squares(
            lambda y, chosen=chosen: rows.residuals(chosen.x(y)),
            np.zeros(rows.unknowns),
            jac=lambda y, chosen=chosen: chosen.jacobian(rows.jacobian(chosen.x(y))),
            method="trf",
            tr_solver="lsmr",
            loss="huber",
            f_scale=scale,
            max_nfev=_STEPS,
            ftol=_SETTLED,
        )
        evaluations += int(solution.nfev)
        x = chosen.x(solution.x)
        if settled and solution.status > 0:
            break
    return x, evaluations
