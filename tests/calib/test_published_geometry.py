"""Our geometry against what the paper's authors published: where each ground cell is seen, and fundamental
matrices.

What the files hold, found by fitting and held by these tests:

* pets2009: 177 rows × 152 columns, row by row; cell (r, c) is x = 0.4 c - 30.6 m, y = 0.4 r - 44.6 m, 1.75
  m up, seen through Tsai's full lens model. Positions are 2x/W - 1 of pixel x (its pixel 0 is the left
  edge). Points behind a camera are not left out: view 2 holds their mirror images.
* citystreet: cells count from 1, x = (4 (c + 1) - 281.6) · 76.25 mm and y likewise. With that, directions
  from the principal point agree to 10⁻⁴ rad. Radii do not: the authors stretch them by 1 - k1·r for small
  radius r, where the lens model with these coefficients shrinks them by 1 + k1·r². So directions are
  compared, and radii only at the centre.
* fundamental matrices are for full-size, distorted pixels, x₂ᵀ F x₁ = 0 for columns x, with F[2, 2] = 1.
  They do not fit the authors' own maps either (see below), so they were estimated from matches, and the
  tolerances are their errors.
"""

import csv
import gzip
import json

import numpy as np
import pytest

from calib.epipolar import epipolar_lines
from calib.formats import read_rig
from calib.formats.pets2009 import load_camera
from viewsync.sim.tracks import load_tracks


@pytest.fixture
def citystreet(data):
    """Right-handed with z up: the files' z points down, so cameras take (x, -y, -z)."""
    return read_rig([data / "citystreet-3cam" / "cameras.json"]).cameras


@pytest.fixture
def pets2009(data):
    return {
        f"view{view}": load_camera(data / "pets2009/calibration" / f"View_{view:03}.xml")
        for view in (1, 2, 3)
    }


def published_map(data, name, view, size):
    """Pixels (n, 2) of the cells, row by row, and whether they lie in the image."""
    with np.load(data / "paper-geometry" / f"{name}_ground_to_view.npz") as file:
        normalised = file[view].astype(np.float64).reshape(2, -1).T
    return (normalised + 1) / 2 * size, (np.abs(normalised) < 1).all(axis=-1)


# Pixels: view 2's is its distortion fit (0.2 px) seen at twice the slope; 0.1 px is float32 of the file and
# rounded constants.
@pytest.mark.parametrize(("view", "tolerance_px"), [("view1", 0.1), ("view2", 0.3), ("view3", 0.1)])
def test_pets2009_map_is_reproduced(data, pets2009, view, tolerance_px):
    camera = pets2009[view]
    row, column = (index.ravel() for index in np.indices((177, 152)))
    points = np.column_stack([0.4 * column - 30.6, 0.4 * row - 44.6, np.full(row.size, 1.75)])
    pixels, shown = published_map(data, "pets2009", view, (768, 576))
    in_front = camera.depth(points) > 0
    assert (shown & in_front).sum() > 8000
    ours = camera.project(points[shown & in_front])
    assert np.abs(ours - pixels[shown & in_front]).max() < tolerance_px
    # And the other way: nothing else is in our image, but for cells on its very border (theirs ends half a
    # pixel earlier).
    assert (camera.inside(camera.project(points)) & ~shown).sum() < 20


@pytest.mark.parametrize("view", ["view1", "view2", "view3"])
def test_citystreet_map_is_reproduced_in_direction(data, citystreet, view):
    camera = citystreet[view].undistorted()
    row, column = (index.ravel() for index in np.indices((192, 160)))
    x, y = ((4 * (index + 1) - origin) * 0.07625 for index, origin in ((column, 281.6), (row, 417.6)))
    # y -> -y: people take the same turn of axes as the cameras.
    ours = camera.project(np.column_stack([x, -y, np.full(x.size, 1.75)]))
    pixels, shown = published_map(data, "citystreet", view, (camera.width, camera.height))
    used = shown & ~np.isnan(ours[:, 0])
    assert used.sum() > 15_000
    a, b = ((points[used] - camera.K[:2, 2]) / np.diag(camera.K)[:2] for points in (pixels, ours))
    radius_a, radius_b = np.hypot(*a.T), np.hypot(*b.T)
    angle = np.arcsin((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / (radius_a * radius_b))
    # float32 positions, and constants rounded to four digits: 10⁻⁴ rad is 0.1 px at 1000 px from the centre.
    assert np.median(np.abs(angle)) < 1e-4 and np.quantile(np.abs(angle), 0.95) < 5e-4
    # The tolerances that the data's README states, in units of the [-1, 1] range, without distortion.
    error = np.abs(pixels - ours)[used] / (camera.width, camera.height) * 2
    assert np.median(error) < {"view1": 0.031, "view2": 0.013, "view3": 0.055}[view]
    # Their radial function as far as we know it: 1 - k1·r, to second order.
    near = radius_b < 0.2
    k1 = citystreet[view].distortion[0]
    np.testing.assert_allclose(
        (radius_a / radius_b)[near & (radius_b > 0.05)],
        1 - k1 * radius_a[near & (radius_b > 0.05)],
        atol=0.01,
    )


def heads(data):
    with gzip.open(data / "citystreet-3cam/people.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    turn = np.array([1.0, -1.0, 1.0]) / 1000
    return {
        kind: np.array([[float(row[f"{kind}_{axis}_mm"]) for axis in "xyz"] for row in rows]) * turn
        for kind in ("head", "orig")
    }


def test_citystreet_heads_are_seen(data, citystreet):
    people = heads(data)
    inside = {
        kind: np.stack([camera.inside(camera.project(points)) for camera in citystreet.values()])
        for kind, points in people.items()
    }
    # The data's README: every refined head in at least one view, 97 % of the original ones in all three.
    # Full lens model.
    assert inside["head"].any(axis=0).all()
    assert inside["orig"].all(axis=0).mean() >= 0.97


# Median distance in full-size distorted pixels of true matches from the published line. On the authors' own
# maps, without our cameras, F12 is 44 px off for CityStreet and 3 px for PETS2009, F13 48 px and 15 px.
@pytest.mark.parametrize(
    ("name", "second", "tolerance_px"),
    [("pets2009", 2, 3.0), ("pets2009", 3, 6.0), ("citystreet", 2, 50.0), ("citystreet", 3, 7.0)],
)
def test_real_people_lie_on_the_published_epipolar_lines(data, request, name, second, tolerance_px):
    cameras = request.getfixturevalue(name)
    published = json.loads((data / "paper-geometry/fundamental_matrices.json").read_text())
    F = np.array(published[name][f"F1{second}"])
    if name == "pets2009":
        tracks = load_tracks(data / "pets2009/annotations/PETS2009-S1L1-1.xml.gz", cameras["view1"])
        ground = tracks.xy[~np.isnan(tracks.xy[..., 0])]
        points = np.concatenate(
            [np.column_stack([ground, np.full(len(ground), z)]) for z in (0.0, 0.9, 1.75)]
        )
    else:
        points = heads(data)["orig"]
    first, other = cameras["view1"], cameras[f"view{second}"]
    x1, x2 = first.project(points), other.project(points)
    both = first.inside(x1) & other.inside(x2)
    assert both.sum() > 10_000

    def distance(matrix):
        lines = epipolar_lines(matrix, x1[both])
        return np.median(np.abs((lines[:, :2] * x2[both]).sum(axis=-1) + lines[:, 2]))

    assert distance(F) < tolerance_px
    # Which way round they are: transposed, they miss by far more.
    assert distance(F.T) > 2 * distance(F)
