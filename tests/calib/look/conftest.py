"""The project's own plaza to look at: its cameras, pictures of a simulated crowd, exactly marked points."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from calib.camera import Camera
from calib.points import MarkedPoint
from calib.scene import Scene, save_scene
from viewsync.sim.crowd import Crowd
from viewsync.sim.render import Renderer
from viewsync.sim.scenes import plaza as simulated

SIZE = (768, 576)
# Debian's path; another one by CHROMIUM.
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Corners of kerbs, doors and signs: what somebody would survey.
SURVEYED = {
    "kiosk-a": (8.0, 7.2, 0.0),
    "kiosk-b": (9.9, 9.4, 0.0),
    "kerb-w": (3.0, 3.0, 0.0),
    "kerb-e": (16.0, 5.0, 0.0),
    "kerb-n": (6.0, 12.0, 0.0),
    "kerb-s": (11.0, 2.5, 0.0),
    "drain": (10.0, 6.0, 0.0),
    "pillar-top": (11.2, 12.6, 3.2),
    "sign": (4.6, 5.2, 2.2),
    "van-roof": (13.4, 4.6, 2.1),
}


@pytest.fixture(scope="session")
def plaza() -> Scene:
    """The plaza's scene, its cameras at SIZE."""
    scene = simulated().scene
    cameras = {view: camera.resized(*SIZE) for view, camera in scene.cameras.items()}
    return replace(scene, cameras=cameras)


@pytest.fixture(scope="session")
def marked(plaza: Scene) -> tuple[MarkedPoint, ...]:
    """SURVEYED, marked in every view whose picture has them."""
    points = []
    for name, world in SURVEYED.items():
        pixels = {view: camera.project(world) for view, camera in plaza.cameras.items()}
        seen = {view: pixel for view, pixel in pixels.items() if plaza.cameras[view].inside(pixel)}
        points.append(MarkedPoint(name, np.array(world), seen))
    return tuple(points)


@pytest.fixture(scope="session")
def pictures(plaza: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture of every view, named after it."""
    folder = tmp_path_factory.mktemp("pictures")
    # At the simulator's own size, which takes a quarter of the time; full size for the documentation.
    native = simulated()
    place = replace(native, scene=plaza) if os.environ.get("VIEWSYNC_SCREENSHOTS") else native
    crowd = Crowd(place.walk_area, 18, 5, place.obstacles)
    state = crowd.state(4.0)
    for view in plaza.cameras:
        image = cv2.resize(Renderer(place, view, seed=5).render(state, crowd.appearance), SIZE)
        assert cv2.imwrite(str(folder / f"{view}.png"), image[..., ::-1])
    return folder


@pytest.fixture
def scene_file(plaza: Scene, tmp_path: Path) -> Path:
    """A scene.yaml of the plaza, to change."""
    save_scene(plaza, tmp_path / "scene.yaml")
    return tmp_path / "scene.yaml"


Posed = Callable[..., Camera]


@pytest.fixture(scope="session")
def posed() -> Posed:
    """A camera with another R or t, or other intrinsics."""

    def change(camera: Camera, **other: object) -> Camera:
        given = {name: other.get(name, getattr(camera, name)) for name in ("K", "R", "t", "distortion")}
        return Camera(*given.values(), other.get("width", camera.width), other.get("height", camera.height))

    return change


# No longer than a module: its driver keeps a loop running, which other tests of asyncio do not expect.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium, or set CHROMIUM to its path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()
