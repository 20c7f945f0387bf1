"""Random rigs: the same number is the same rig, and every one is a rig that somebody might build."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner

from calib.scene import Scene, load_scene
from viewsync.cli import main
from viewsync.errors import UserError
from viewsync.sim.dataset import load_truth
from viewsync.sim.hard import looked_at
from viewsync.sim.rigs import GROUND, SIZE, Rig, draw_rig, rig_folder, save_rig_crowd, why_not
from viewsync.sim.scenes import COLUMN_HEIGHTS_M, Box, look_at


@pytest.fixture(scope="module")
def rigs() -> list[Rig]:
    return [draw_rig(number) for number in range(16)]


def test_a_number_is_a_rig_whatever_was_drawn_before(rigs: list[Rig]) -> None:
    for number in (9, 2):
        again = draw_rig(number)
        assert again == rigs[number]
    assert len({rig.place.scene for rig in rigs}) == len(rigs)
    eyes = [tuple(c.centre.round(3)) for rig in rigs for c in rig.place.scene.cameras.values()]
    assert len(set(eyes)) == len(eyes)


def test_every_rig_keeps_the_laws(rigs: list[Rig]) -> None:
    for rig in rigs:
        scene = rig.place.scene
        assert scene.ground == GROUND and GROUND.rows % 2 == 0 and GROUND.columns % 2 == 0
        assert 2 <= len(scene.cameras) <= 7 and scene.heights_m == COLUMN_HEIGHTS_M
        looks = np.stack([looked_at(scene, view) for view in scene.cameras])
        assert looks.mean(axis=(1, 2)).min() >= 0.2
        assert looks.any(axis=0).mean() >= 0.55 and (looks.sum(axis=0) > 1).mean() >= 0.2
        for camera in scene.cameras.values():
            assert (camera.width, camera.height) == SIZE
            assert np.linalg.det(camera.R) == pytest.approx(1.0, abs=1e-9)
            assert camera.centre[2] > 1.8  # z up, and above people's heads
            # It looks at the ground: the ray through the middle of the picture comes down.
            assert camera.rays([(SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2])[2] < 0
            for box in rig.place.props:
                inside = np.hypot(*(camera.centre[:2] - (box.x, box.y))) < min(box.length, box.width) / 2
                assert not (inside and camera.centre[2] < box.height)


def test_rigs_differ_in_all_that_is_random(rigs: list[Rig]) -> None:
    cameras = [camera for rig in rigs for camera in rig.place.scene.cameras.values()]
    assert {len(rig.place.scene.cameras) for rig in rigs} >= {2, 3, 4, 5, 6, 7}
    for spread, least in (
        ([c.centre[2] for c in cameras], 3.0),  # metres
        ([c.K[0, 0] for c in cameras], 150.0),  # pixels
        ([np.rad2deg(np.arcsin(-c.R[2, 2])) for c in cameras], 15.0),  # tilt
        ([c.distortion[0] for c in cameras], 0.1),
        ([looked_at(r.place.scene, v).mean() for r in rigs for v in r.place.scene.cameras], 0.4),
    ):
        assert np.ptp(spread) > least


BOX = Box("box", 8.0, 6.0, 3.0, 2.0, 6.0, 0.0, (9, 9, 9))


def scene_of(*looks: tuple[tuple[float, float, float], tuple[float, float, float], float]) -> Scene:
    cameras = {f"v{n}": look_at(eye, aim, focal, SIZE) for n, (eye, aim, focal) in enumerate(looks)}
    return Scene("tried", cameras, GROUND, COLUMN_HEIGHTS_M, {})


LEFT, RIGHT = ((-3.0, 6.0, 4.0), (7.0, 6.0, 0.0), 180.0), ((19.0, 6.0, 4.0), (9.0, 6.0, 0.0), 180.0)


@pytest.mark.parametrize(
    ("looks", "props", "reason"),
    [
        ((LEFT, RIGHT), (), ""),
        ((LEFT, ((8.0, 6.0, 4.0), (1.0, 6.0, 0.0), 180.0)), (BOX,), "a camera stands in a box"),
        (
            (LEFT, RIGHT),
            (Box("box", -1.0, 6.0, 1.0, 1.0, 3.0, 0.0, (9, 9, 9)),),
            "a box stands before a lens",
        ),
        ((LEFT, ((19.0, 6.0, 4.0), (30.0, 6.0, 0.0), 180.0)), (), "a view sees little of the ground"),
        ((LEFT, ((90.0, 6.0, 9.0), (9.0, 6.0, 0.0), 180.0)), (), "people are too small"),
        (
            (((8.0, 2.0, 4.0), (0.0, 6.0, 0.0), 160.0), ((8.0, 2.0, 4.0), (16.0, 6.0, 0.0), 160.0)),
            (),
            "a view shares nothing with the others",
        ),
    ],
)
def test_what_nobody_would_build_is_refused_with_its_reason(
    looks: tuple[tuple[tuple[float, float, float], tuple[float, float, float], float], ...],
    props: tuple[Box, ...],
    reason: str,
) -> None:
    assert why_not(scene_of(*looks), props) == reason


def test_layouts_that_were_refused_are_counted() -> None:
    counted: dict[str, int] = {}
    for number in range(40):
        for reason, times in draw_rig(number).refused.items():
            counted[reason] = counted.get(reason, 0) + times
    assert counted and all(reason.startswith(("a ", "people", "much", "little")) for reason in counted)


def test_the_command_makes_rigs_once_and_another_rig_never_joins(
    support: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    asked = ["sim", "rigs", "--out", str(tmp_path), "--rigs", "3:4", "--crowds", "1", "--workers", "1"]
    done = CliRunner().invoke(main, [*asked, "--frames", "2", "--interval", "0.5"])
    assert done.exit_code == 0, done.output
    where = rig_folder(tmp_path, 3)
    scene, truth = load_scene(where / "scene.yaml"), load_truth(where / "000300.npz")
    frames = np.load(where / "000300.npy")
    assert scene == draw_rig(3).place.scene and truth.views == tuple(scene.cameras)
    assert frames.shape == (len(truth.views), 2, SIZE[1], SIZE[0], 3) and truth.seen.any()
    before = (where / "000300.npz").stat().st_mtime_ns
    assert CliRunner().invoke(main, asked).exit_code == 0
    assert (where / "000300.npz").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="another scene"):
        save_rig_crowd(tmp_path, support("small_rigs").small_rig(3), 301, 2, 1.0)
