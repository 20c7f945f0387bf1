"""An image to quantised features: one remap to the bundle's pinhole camera, then the encoder."""

from __future__ import annotations

from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from calib.camera import Camera
from calib.errors import CalibError
from edge.frames import RgbImage
from viewsync.bundle import Bundle
from viewsync.errors import SourceError
from viewsync.ort import Provider, check_signature, open_session
from viewsync.wire import Tensor

# The name under which the hub looks for them.
TENSOR = "features"


class FeatureExtractor:
    """Extracts one view's features. State: the remap tables, made anew when the image's size changes.

    camera: the calibrated one; pinhole: what the encoder wants to see; `wanted_size` is its (width, height).
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        input_name: str,
        output_name: str,
        camera: Camera,
        pinhole: Camera,
    ) -> None:
        self._session = session
        self._input_name = input_name
        self._output_name = output_name
        self._camera = camera
        self._pinhole = pinhole
        self._size: tuple[int, int] | None = None
        self._maps: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
        self.wanted_size = pinhole.width, pinhole.height

    @classmethod
    def of_bundle(cls, bundle: Bundle, view: str, provider: Provider, threads: int) -> Self:
        """The extractor of one of the bundle's views. Raises BundleError, UserError."""
        encoder, pinhole = bundle.manifest.encoder, bundle.pinhole(view)
        session = open_session(bundle.encoder_bytes, provider, threads)
        check_signature(
            encoder.file, session, {encoder.input.name: encoder.input}, {encoder.output.name: encoder.output}
        )
        camera = bundle.scene.cameras[view]
        return cls(session, encoder.input.name, encoder.output.name, camera, pinhole)

    def extract(self, image: RgbImage, stream_size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Features of an RGB image (H, W, 3): `features` uint8 (C, h, w).

        stream_size: (width, height) before the image was made smaller. Raises SourceError where the stream
        has another aspect ratio than the calibrated camera.
        """
        maps = self._tables((image.shape[1], image.shape[0]), stream_size)
        seen = cv2.remap(image, maps[0], maps[1], cv2.INTER_LINEAR)
        (features,) = self._session.run([self._output_name], {self._input_name: seen[None]})
        return (Tensor(TENSOR, np.ascontiguousarray(features[0])),)

    def _tables(
        self, size: tuple[int, int], stream_size: tuple[int, int]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        if self._maps is None or size != self._size:
            try:
                # The stream's own size decides: the smaller image was rounded to whole pixels.
                self._camera.resized(*stream_size)
            except CalibError:
                camera = self._camera
                raise SourceError(
                    f"the stream is {stream_size[0]}x{stream_size[1]}, but its camera in scene.yaml is "
                    f"{camera.width}x{camera.height}, another aspect ratio; choose the stream that was "
                    "calibrated, or calibrate this one"
                ) from None
            map_x, map_y = self._camera.resized(*size).remap_to(self._pinhole)
            # Fixed-point tables: the same 1/32 px that OpenCV would round to at every frame.
            self._maps = cv2.convertMaps(map_x, map_y, cv2.CV_16SC2)
            self._size = size
        return self._maps
