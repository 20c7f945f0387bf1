"""Training and measuring on sets as their authors distribute them: small files in their layout, before the
small scene's cameras.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import ModuleType

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from calib.formats import read_rig
from calib.formats.pets2009 import load_camera
from calib.ground import view_from_ground
from calib.scene import load_scene
from viewsync.cli import main
from viewsync.errors import UserError
from viewsync.nets.model import UNKNOWN_OFFSET_S
from viewsync.training.authors import AUTHORS, AuthorsSet
from viewsync.training.authors_shots import LAYOUTS, AuthorsShots, straightened
from viewsync.training.checkpoint import load_state
from viewsync.training.config import TrainConfig
from viewsync.training.snapshots import Sampling
from viewsync.training.train import Progress, train

# The paper's: all views in their places, the first the reference.
FIXED = Sampling(3.0, drop=0.0, unknown=0.0, reference=0)


@pytest.fixture(scope="module")
def small(small_scene: Path) -> AuthorsSet:
    """CityStreet, but with the small scene's pictures and ground; an odd number of rows, as in PETS2009."""
    ground = load_scene(small_scene).ground
    return replace(
        AUTHORS["citystreet"], image=(72, 96), map=(ground.rows - 1, ground.columns), ground=ground
    )


@pytest.fixture(scope="module")
def folder(
    small: AuthorsSet, tmp_path_factory: pytest.TempPathFactory, support: Callable[[str], ModuleType]
) -> Path:
    root = tmp_path_factory.mktemp("authors")
    support("authors_files").write(small, root)
    return root


@pytest.fixture
def config(
    small: AuthorsSet, small_scene: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> TrainConfig:
    monkeypatch.setitem(LAYOUTS, "authors-citystreet", small)  # type: ignore[arg-type]
    return TrainConfig(
        scene=str(small_scene),
        layout="authors-citystreet",
        data=folder,
        methods=("cls-epi", "none"),
        fusion="concat",
        flow_loss="warp",
        flow_strides=(4,),
        steps=4,
        first_stage=0.25,
        batch=1,
        validate_every=2,
        validation_snapshots=1,
        threads=1,
    )


def run(config: TrainConfig, out: Path, stop_at: int | None = None) -> list[Progress]:
    seen: list[Progress] = []
    stop = Event()

    def report(step: Progress) -> None:
        seen.append(step)
        if stop_at is not None and step.step == stop_at - 1:
            stop.set()

    train(config, out, report, stop)
    return seen


def test_snapshots_are_the_files_frames_with_maps_of_the_references_instant(
    small: AuthorsSet, folder: Path, small_scene: Path
) -> None:
    shots = AuthorsShots(small, folder, "train", load_scene(small_scene), FIXED)
    assert len(shots) == 9 - 2 * 3 and shots.span_s == 8.0
    seen = set()
    for index in range(8):
        shot = shots.draw(4, index, plain=True)
        frame = round(shot.start_s)
        seen.add(tuple(shot.offset_s))
        assert list(shot.view) == [0, 1, 2] and shot.images.shape == (3, 72, 96, 3)
        assert shot.offset_s[0] == 0 and (np.abs(shot.offset_s) <= 3).all() and shot.xy.shape == (3, 0, 2)
        for view, offset in enumerate(shot.offset_s):  # the middle of the picture is no border
            assert (shot.images[view, 30:40, 40:50] == 10 * view + (frame + round(float(offset))) % 10).all()
        assert shot.maps is not None and shot.maps.ground.shape == (12, 16)
        # Fine cell (40, 60) is in row 10 of 11; rows run against y, and one is filled up.
        assert shot.maps.ground[0, 15] == pytest.approx(frame) and shot.maps.ground.sum() == pytest.approx(
            frame
        )
        assert shot.maps.views.shape == (3, 18, 24)
    assert len(seen) > 2
    again = [shots.draw(4, index, plain=True).offset_s for index in range(8)]
    assert {tuple(offset) for offset in again} == seen
    constant = AuthorsShots(
        small,
        folder,
        "test",
        load_scene(small_scene),
        replace(FIXED, tau_s=(0.0, 2.0, -1.0), synchronous=True),
    )
    shot = constant.draw(0, 0, plain=True)
    assert list(shot.offset_s) == [0.0, 2.0, -1.0] and len(constant) == 6 and shot.synchronous is not None
    frame = round(shot.start_s)
    assert [int(picture[35, 45, 0]) for picture in shot.synchronous] == [
        10 * v + frame % 10 for v in range(3)
    ]


def test_offsets_that_are_never_known_are_told_nowhere(
    small: AuthorsSet, folder: Path, small_scene: Path
) -> None:
    never = replace(FIXED, unknown=1.0)
    shots = AuthorsShots(small, folder, "test", load_scene(small_scene), never)
    for shot in (shots.draw(1, 0, plain=True), shots.draw(1, 0), *(s for s, _ in shots.spread(2))):
        assert shot.offset_s[0] == 0 and (shot.offset_s[1:] == UNKNOWN_OFFSET_S).all()
        assert (np.abs(shot.true_offset_s) <= 3).all()


def test_no_frame_is_taught_and_checked(small: AuthorsSet, folder: Path, small_scene: Path) -> None:
    scene = load_scene(small_scene)
    taught, checked = (
        AuthorsShots(small, folder, "train", scene, FIXED, part) for part in ("taught", "checked")
    )
    first, second = ({round(s.draw(0, k).start_s) for k in range(20)} for s in (taught, checked))
    assert first == {3, 4} and second == {5}


def test_a_straightened_map_keeps_its_people_and_puts_them_where_the_pinhole_sees_them(
    small_scene: Path,
) -> None:
    camera = load_scene(small_scene).cameras["left"].resized(384, 288)
    for pixel in ((60.0, 70.0), (200.0, 150.0), (310.0, 230.0)):
        x, y = np.meshgrid(np.arange(384), np.arange(288))
        spot = np.exp(-((x - pixel[0]) ** 2 + (y - pixel[1]) ** 2) / 18)
        straight = straightened((spot / spot.sum()).astype(np.float32), camera)
        assert straight.sum() == pytest.approx(1, abs=0.01)
        centre = np.array([(straight * x).sum(), (straight * y).sum()]) / straight.sum()
        wanted = camera.undistorted().project(camera.back_project(pixel))
        assert np.abs(centre - wanted).max() < 0.3


def test_training_goes_on_where_it_stopped_and_is_measured(config: TrainConfig, tmp_path: Path) -> None:
    whole = run(config, tmp_path / "whole")
    assert set(whole[0].losses) == {"marks"}  # stage one: density maps of the pictures
    assert {"cls-epi.flow", "cls-epi.density", "none.count", "sparsity"} <= set(whole[-1].losses)
    assert not {"visible", "partner"} & set(whole[-1].losses)
    assert run(config, tmp_path / "halves", 3) + run(config, tmp_path / "halves") == whole
    assert load_state(tmp_path / "halves/best") == load_state(tmp_path / "whole/best")
    out = tmp_path / "scores.json"
    words = ["evaluate", "--checkpoint", str(tmp_path / "whole/best"), "--frames", "9", "--json", str(out)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "cls-epi  MAE" in done.output and "F1 is not available: the authors' files have" in done.output
    found = json.loads(out.read_text())
    assert found["protocol"]["mean_people"] == 4.0 and found["protocol"]["snapshots"] == 3
    assert set(found["graphs"]["none"]) == {"mae", "nae", "density_mse"}
    constant = CliRunner().invoke(main, [*words, "--tau", "right=2", "--tau", "far=-2"])
    assert constant.exit_code == 0, constant.output
    assert json.loads(out.read_text())["protocol"]["mean_offset_s"] == 2.0
    never = CliRunner().invoke(main, [*words, "--offsets", "unknown"])
    assert never.exit_code == 0 and json.loads(out.read_text())["protocol"]["offsets"] == "unknown"
    wrong = CliRunner().invoke(main, [*words, "--tau", "up=2"])
    assert wrong.exit_code == 2 and "--tau up: the scene has left, right, far" in wrong.output


@pytest.mark.parametrize(
    "change",
    [
        {"methods": ("none",), "flow_loss": "none", "base": "mvms", "encoders": "view", "first_stage": 1.0},
        {"methods": ("reference-only",), "flow_loss": "none", "fusion": "masked"},
        {"methods": ("sls",), "flow_loss": "similarity", "tau_s": {"right": 2.0, "far": -2.0}},
    ],
)
def test_other_methods_and_regimes_train_on_them_too(
    config: TrainConfig, change: dict[str, object], tmp_path: Path
) -> None:
    steps = run(config.model_copy(update={"steps": 2, **change}), tmp_path)
    assert all(np.isfinite(list(step.losses.values())).all() for step in steps)
    assert steps[-1].validation is not None and np.isfinite(steps[-1].validation["score"])


def test_what_is_wrong_is_one_line_and_nothing_is_written(
    config: TrainConfig, small: AuthorsSet, folder: Path, small_scene: Path, tmp_path: Path
) -> None:
    def fails(message: str, **change: object) -> None:
        with pytest.raises(UserError, match=message):
            run(config.model_copy(update=change), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    fails("dmaps/train/Street_view1_dmap_10.h5: is missing .*; the authors' download", data=tmp_path)
    fails("street-train has 9 frames at 1 per second, too few for offsets of ±5 s", kappa_s=5.0)
    text = small_scene.read_text()
    moved = tmp_path / "moved.yaml"
    moved.write_text(text.replace("origin_m: [0.0, 0.0]", "origin_m: [1.0, 0.0]"))
    fails(r"under ground write origin_m: \[0, 0\], cell_m: 0.5, columns: 16, rows: 12", scene=str(moved))
    cut = tmp_path / "cut"
    (cut / "Street").parent.mkdir(parents=True, exist_ok=True)
    for source in folder.rglob("*.h5"):
        target = cut / source.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    shorter = cut / "Street/GP_dmaps/train/Street_groundplane_train_dmaps_10.h5"
    with h5py.File(shorter, "a") as file:
        fewer = file["density_maps"][:-2]
        del file["density_maps"]
        file["density_maps"] = fewer
    fails("files differ in their number of frames", data=cut)
    shorter.write_bytes(shorter.read_bytes()[:2000])
    fails("is no whole HDF5 file", data=cut)
    with pytest.raises(
        ValueError, match="column learns from positions, and authors-citystreet has density maps"
    ):
        TrainConfig(**{**config.model_dump(), "methods": ("column", "none"), "flow_loss": "none"})


@pytest.mark.parametrize("view", [1, 2, 3])
@pytest.mark.parametrize("name", list(AUTHORS))
def test_the_grounds_are_where_the_authors_own_maps_have_them(name: str, view: int) -> None:
    """Where each cell is seen in the middle of a picture, as they published it; further out CityStreet's lens
    is not the one of their maps.
    """
    if "VIEWSYNC_DATA" not in os.environ:
        pytest.skip("needs VIEWSYNC_DATA")
    data, authors = Path(os.environ["VIEWSYNC_DATA"]), AUTHORS[name]
    if name == "pets2009":
        camera = load_camera(data / f"pets2009/calibration/View_00{view}.xml")
    else:
        camera = read_rig([data / "citystreet-3cam/cameras.json"]).cameras[f"view{view}"]
    rows, columns = authors.map
    with np.load(data / "paper-geometry" / f"{name}_ground_to_view.npz") as file:
        theirs = file[f"view{view}"].reshape(2, rows, columns).transpose(1, 2, 0)
    if authors.flipped:
        theirs = theirs[::-1]
    ours = view_from_ground(camera.undistorted(), authors.ground, [1.75])[0][:rows]
    middle = (np.abs(theirs) < 0.12).all(axis=-1)[:, :-1]
    # In cells: the distance of both places by that of neighbours.
    cell = np.linalg.norm(theirs[:, 1:] - theirs[:, :-1], axis=-1)
    apart = np.linalg.norm(ours - theirs, axis=-1)[:, :-1] / cell
    assert middle.sum() > 25 and np.median(apart[middle]) < 0.75


@pytest.mark.parametrize("name", list(AUTHORS))
def test_the_command_writes_the_scene_that_the_files_are_read_with(name: str, tmp_path: Path) -> None:
    if not os.environ.get("VIEWSYNC_DATA"):
        pytest.skip("VIEWSYNC_DATA is not set: real cameras are needed")
    path = tmp_path / "set" / "scene.yaml"
    done = CliRunner().invoke(main, f"data scene {name} --out {path}".split())
    assert done.exit_code == 0, done.output
    scene = load_scene(path)
    # With cameras and ground in order, what is missing is the files.
    with pytest.raises(UserError, match="missing"):
        AuthorsShots(AUTHORS[name], tmp_path, "train", scene, FIXED)
    (reference, *_), grid = scene.cameras.values(), scene.ground
    x, y = grid.origin_x_m + grid.columns * grid.cell_m / 2, grid.origin_y_m + grid.rows * grid.cell_m / 2
    pixel = reference.project(np.array([[x, y, 0.0]]))[0]
    assert 0 <= pixel[0] < reference.width and 0 <= pixel[1] < reference.height
