"""Features are what the camera saw: computed by other means."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.extractor import FeatureExtractor
from viewsync.bundle import Bundle
from viewsync.errors import SourceError

SIZE = (192, 144)


@pytest.mark.parametrize("view", ["north", "south"])
@pytest.mark.parametrize("scale", [1, 2])
def test_features_are_the_undistorted_picture(view: str, scale: int, tiny_bundle: Path) -> None:
    """The tiny encoder averages 4 × 4 pixels, so its features can be computed by other means: OpenCV's own
    undistortion, and a mean.
    """
    bundle = Bundle.load(tiny_bundle)
    camera, pinhole = bundle.scene.cameras[view], bundle.pinhole(view)
    rng = np.random.default_rng(3)
    small = rng.integers(0, 256, (18, 24, 3), dtype=np.uint8)
    size = (SIZE[0] * scale, SIZE[1] * scale)
    image = cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)
    at_scale = camera.resized(*size)
    maps = cv2.initUndistortRectifyMap(
        at_scale.K, camera.distortion, None, pinhole.K, (pinhole.width, pinhole.height), cv2.CV_32FC1
    )
    seen = cv2.remap(image, *maps, cv2.INTER_LINEAR).astype(np.float64)
    colour = seen.reshape(pinhole.height // 4, 4, pinhole.width // 4, 4, 3).mean(axis=(1, 3))
    expected = np.concatenate([colour, colour.mean(axis=2, keepdims=True)], axis=2).transpose(2, 0, 1)

    extractor = FeatureExtractor.of_bundle(bundle, view, "cpu", threads=1)
    (tensor,) = extractor.extract(image, size)
    assert tensor.name == "features" and tensor.array.dtype == np.uint8
    assert tensor.array.shape == expected.shape
    # Half a level of rounding, and OpenCV's 1/32 px of sampling on a smooth picture.
    assert np.abs(tensor.array - expected).max() <= 1.0


def test_another_size_of_the_same_aspect_is_the_same_camera(tiny_bundle: Path) -> None:
    extractor = FeatureExtractor.of_bundle(Bundle.load(tiny_bundle), "north", "cpu", threads=1)
    large = cv2.resize(np.random.default_rng(4).integers(0, 256, (9, 12, 3), dtype=np.uint8), (768, 576))
    by_size = []
    for size in ((768, 576), (384, 288), (192, 144), (768, 576)):
        image = cv2.resize(large, size, interpolation=cv2.INTER_AREA)
        by_size.append(extractor.extract(image, (768, 576))[0].array.astype(int))
    assert np.array_equal(by_size[0], by_size[3])
    for other in by_size[1:3]:
        assert np.abs(other - by_size[0]).mean() < 1.5  # a pixel-centre mistake would shift edges by more


def test_another_aspect_ratio_is_refused_naming_both_sizes(tiny_bundle: Path) -> None:
    extractor = FeatureExtractor.of_bundle(Bundle.load(tiny_bundle), "north", "cpu", threads=1)
    with pytest.raises(SourceError, match=r"320x180.*192x144.*calibrate"):
        extractor.extract(np.zeros((180, 320, 3), np.uint8), (320, 180))
