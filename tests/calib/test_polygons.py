"""Polygons: what is inside one, against an independent judge."""

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calib.polygons import area, image_mask, inside_polygon

corner = st.tuples(st.integers(-20, 20), st.integers(-20, 20))


@given(st.lists(corner, min_size=3, max_size=8), st.lists(corner, min_size=1, max_size=8))
def test_inside_is_what_opencv_says(corners, places):
    polygon = np.array(corners, np.float64)
    # A quarter off the corners' raster: nobody agrees about what lies on a border.
    points = np.add(places, (0.25, 0.37))
    judged = [cv2.pointPolygonTest(polygon.astype(np.float32), point.tolist(), True) for point in points]
    mine = inside_polygon(polygon, points)
    for point, distance, ours in zip(points, judged, mine, strict=True):
        if abs(distance) > 1e-3:
            assert ours == (distance > 0), point


def test_nan_is_nowhere_and_area_has_a_sign():
    square = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 3.0], [0.0, 3.0]])
    assert not inside_polygon(square, [np.nan, 1.0])
    assert area(square) == 6.0 and area(square[::-1]) == -6.0


def test_a_mask_covers_the_pixels_inside():
    triangle = np.array([[3.0, 2.0], [40.0, 8.0], [12.0, 33.0]])
    mask = image_mask([triangle], 50, 40)
    x, y = np.meshgrid(np.arange(50), np.arange(40))
    inside = inside_polygon(triangle, np.stack([x, y], axis=-1))
    # Along the border OpenCV paints every pixel that the outline touches.
    near = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3))).astype(bool)
    assert mask[inside].all() and not mask[~near].any()
    assert not image_mask([], 5, 4).any()
