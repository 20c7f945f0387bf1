"""What cameras saw of a crowd, made once and kept: H.264 as it leaves the cameras, features, and the truth.

A file's name is the hash of all that decides what is in it, the simulator's own code included, so nothing
stale is ever read and nothing needs to be told apart by hand. Files appear whole or not at all, so that
several processes may fill one cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import ThreadType
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

import viewsync.sim
from edge.extractor import FeatureExtractor
from edge.frames import RateGate
from viewsync.bundle import Bundle
from viewsync.errors import InternalError
from viewsync.sim.camera_clock import FrameSchedule
from viewsync.sim.codec import Encoder
from viewsync.sim.crowd import STEP_S, Crowd
from viewsync.sim.render import Renderer
from viewsync.sim.scenes import SimScene, from_scene, load
from viewsync.units import SECOND_NS

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]
# The simulator's modules that crowds and pictures come from: all of it that this file imports.
DRAWN_BY = ("body", "camera_clock", "codec", "crowd", "figure", "render", "scenes", "texture")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A crowd before cameras for a while. schedules: when each view takes its pictures, true seconds."""

    scene: SimScene
    crowd: int
    people: int
    seconds: float
    schedules: Mapping[str, FrameSchedule]

    def __post_init__(self) -> None:
        if set(self.schedules) - set(self.scene.scene.cameras) or not self.schedules:
            have = ", ".join(self.scene.scene.cameras)
            raise ValueError(f"schedules for {', '.join(self.schedules)}; the scene has cameras {have}")
        if not self.seconds > 0:
            raise ValueError(f"a scenario lasts {self.seconds} s; give more than nothing")


@dataclass(frozen=True, slots=True)
class Footage:
    """One camera's stream. true_s (F,): when each picture was taken; units: its H.264 access units."""

    fps: float
    true_s: Floats
    units: tuple[bytes, ...]


class Truth:
    """Where everybody is at any instant: what `Crowd.state` says, from its steps kept on disk."""

    def __init__(self, xy: NDArray[np.float32], scene: SimScene) -> None:
        """xy: (T, N, 2) metres, every STEP_S from time 0."""
        self._xy, self._grid = xy, scene.scene.ground

    def places(self, true_s: float) -> Floats:
        """Everyone in the region at `true_s`, hidden or not: (N, 2) metres."""
        index = min(int(true_s / STEP_S), len(self._xy) - 2)
        before, after = self._xy[index].astype(np.float64), self._xy[index + 1].astype(np.float64)
        xy = before + (true_s / STEP_S - index) * (after - before)
        inside: Floats = xy[self._grid.contains(xy)]
        return inside

    def count(self, true_s: float) -> int:
        """How many are in the region at `true_s`."""
        return len(self.places(true_s))


def simulated(bundle: Bundle) -> SimScene:
    """The scene to simulate for this bundle: the plaza with its props where the cameras are the plaza's."""
    plaza, ours = load("plaza"), bundle.scene
    cameras = plaza.scene.cameras
    if ours.name == "plaza" and all(
        view in cameras and np.allclose(cameras[view].P, camera.P) for view, camera in ours.cameras.items()
    ):
        return plaza
    return from_scene(ours)


class Cache:
    """A folder of footage, features and truth, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def truth(self, scenario: Scenario) -> Truth:
        """Where the scenario's people are, to a little after its end."""
        key = _key("truth", _crowd_facts(scenario), scenario.seconds)
        path = self.folder / f"truth-{key}.npy"
        if not path.exists():
            crowd = _crowd(scenario)
            steps = int(scenario.seconds / STEP_S) + 3
            xy = np.stack([crowd.state(step * STEP_S).xy for step in range(steps)])
            _write_whole(path, xy.astype(np.float32))
        return Truth(np.load(path, mmap_mode="r", allow_pickle=False), scenario.scene)

    def footage(self, scenario: Scenario) -> dict[str, Footage]:
        """The stream of every camera of the scenario; all that lack are rendered in one walk of the crowd."""
        paths = {
            view: self.folder / f"video-{_footage_key(scenario, view)}.npz" for view in scenario.schedules
        }
        lacking = [view for view, path in paths.items() if not path.exists()]
        if lacking:
            for view, footage in _film(scenario, lacking).items():
                _write_whole(paths[view], footage)
        return {view: _read_footage(path) for view, path in paths.items()}

    def features(self, scenario: Scenario, bundle: Bundle, view: str, rate_hz: float) -> Features:
        """What the agent extracts from this view's stream, at most `rate_hz` a second."""
        schedule = scenario.schedules[view]
        key = _key(_footage_key(scenario, view), bundle.features_hash(view), rate_hz)
        path = self.folder / f"features-{key}.npy"
        footage = self.footage(scenario)[view]
        gate = RateGate(rate_hz)
        taken = [n for n, at_s in enumerate(footage.true_s) if gate.admit(round(at_s * SECOND_NS))]
        if not path.exists():
            extractor = FeatureExtractor.of_bundle(bundle, view, "cpu", 1)
            camera = scenario.scene.scene.cameras[view]
            size = (camera.width, camera.height)
            images = _decode(footage)
            arrays = [extractor.extract(images[n], size)[0].array for n in taken]
            spec = bundle.manifest.features
            empty = np.zeros((0, spec.channels, spec.height, spec.width), np.uint8)
            _write_whole(path, np.stack(arrays) if arrays else empty)
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        return Features(schedule.fps, footage.true_s[taken], values)


@dataclass(frozen=True, slots=True)
class Features:
    """Features of one view: true_s (F,) when each frame was taken, values (F, C, h, w) uint8."""

    fps: float
    true_s: Floats
    values: Bytes


def _crowd(scenario: Scenario) -> Crowd:
    scene = scenario.scene
    return Crowd(scene.walk_area, scenario.people, scenario.crowd, scene.obstacles)


def _film(scenario: Scenario, views: Sequence[str]) -> dict[str, Footage]:
    crowd = _crowd(scenario)
    cameras = scenario.scene.scene.cameras
    renderers = {view: Renderer(scenario.scene, view, scenario.crowd) for view in views}
    encoders = {
        view: Encoder.create(cameras[view].width, cameras[view].height, scenario.schedules[view].fps)
        for view in views
    }
    shots = sorted(
        (at_s, view) for view in views for at_s in scenario.schedules[view].between(-1.0, scenario.seconds)
    )
    times: dict[str, list[float]] = {view: [] for view in views}
    units: dict[str, list[bytes]] = {view: [] for view in views}
    for at_s, view in shots:
        image = renderers[view].render(crowd.state(at_s), crowd.appearance)
        units[view].append(bytes(encoders[view].encode(image)))
        times[view].append(at_s)
    return {
        view: Footage(scenario.schedules[view].fps, np.array(times[view]), tuple(units[view]))
        for view in views
    }


def _decode(footage: Footage) -> list[Bytes]:
    """The pictures (H, W, 3) RGB of a stream, as a reader sees them."""
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count, decoder.thread_type = 1, ThreadType.SLICE
    shown = [frame for unit in footage.units for frame in decoder.decode(av.Packet(unit))]
    shown += decoder.decode(None)
    if len(shown) != len(footage.units):
        raise InternalError(f"{len(footage.units)} frames are kept and {len(shown)} came out of the decoder")
    return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in shown]


def _read_footage(path: Path) -> Footage:
    with np.load(path, allow_pickle=False) as file:
        data, ends = file["data"].tobytes(), file["ends"].tolist()
        units = tuple(data[start:end] for start, end in pairwise([0, *ends]))
        return Footage(float(file["fps"]), file["true_s"], units)


# --- names and files --------------------------------------------------------------------------------------


def _crowd_facts(scenario: Scenario) -> list[Any]:
    scene = scenario.scene
    return [_simulator(), scenario.crowd, scenario.people, scene.walk_area, scene.obstacles]


def _footage_key(scenario: Scenario, view: str) -> str:
    schedule, camera = scenario.schedules[view], scenario.scene.scene.cameras[view]
    return _key(
        _crowd_facts(scenario),
        [[str(value) for value in box_facts] for box_facts in map(_box_facts, scenario.scene.props)],
        scenario.scene.sun,
        view,
        [camera.K.tolist(), camera.R.tolist(), camera.t.tolist(), camera.distortion.tolist()],
        [camera.width, camera.height],
        [schedule.fps, schedule.phase_s, schedule.drop_rate, schedule.seed],
        scenario.seconds,
    )


def _box_facts(box: object) -> list[Any]:
    return [getattr(box, name) for name in box.__slots__]  # type: ignore[attr-defined]


def _key(*facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


@cache
def _simulator() -> str:
    """Hash of the code that draws crowds: pictures of older code are not this one's."""
    digest = hashlib.sha256()
    for name in DRAWN_BY:
        digest.update(Path(viewsync.sim.__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()


def _write_whole(path: Path, content: NDArray[Any] | Footage) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as part:
        try:
            if isinstance(content, Footage):
                data = np.frombuffer(b"".join(content.units), np.uint8)
                ends = np.cumsum([len(unit) for unit in content.units], dtype=np.int64)
                np.savez(part, fps=content.fps, true_s=content.true_s, data=data, ends=ends)
            else:
                np.save(part, content)
            part.flush()
            os.replace(part.name, path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise
