"""A bundle is used only if everything in it fits; what does not is one line: what, where, what to do."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from calib.ground import view_from_ground
from calib.scene import Scene
from viewsync.bundle import Bundle, bundle_hash, features_hash
from viewsync.bundle_writing import write_bundle
from viewsync.errors import BundleError
from viewsync.onnx_metadata import stamp
from viewsync.ort import open_session


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def zipped(folder: Path, inside: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"{inside}{file.name}")
    return path


def refused(path: Path, *expected: str) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.load(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    for text in expected:
        assert text in message, message
    return message


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and put its own hashes right, so that only what was changed is wrong."""
    document = yaml.safe_load((folder / "manifest.yaml").read_text())
    change(document)
    for name in document["hashes"]["files"]:
        if (folder / name).exists():
            document["hashes"]["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    document["hashes"]["bundle"] = bundle_hash(document)
    (folder / "manifest.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


# --- what is good ---------------------------------------------------------------------------------------


def test_folder_zip_and_zipped_folder_are_the_same_bundle(copy: Path, tiny: ModuleType) -> None:
    folder = Bundle.load(copy)
    for bundle in (folder, Bundle.load(zipped(copy)), Bundle.load(zipped(copy, "tiny/"))):
        assert bundle.manifest == folder.manifest and bundle.hash == folder.hash
        assert bundle.scene == tiny.tiny_scene()
        assert bundle.encoder_bytes == (copy / "encoder.onnx").read_bytes()
        assert bundle.fusion_bytes("none") == (copy / "fusion-none.onnx").read_bytes()
    assert list(folder.manifest.fusion) == ["column", "none", "reference-only"]


def test_a_bundle_written_as_zip_loads(tiny: ModuleType, tmp_path: Path) -> None:
    bundle = tiny.write_tiny_bundle(tmp_path / "deep" / "tiny.zip", graphs=("none",))
    assert Bundle.load(tmp_path / "deep" / "tiny.zip").hash == bundle.hash
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["tiny.zip"]  # nothing is left beside it


def test_the_same_parts_make_the_same_bundle(tiny: ModuleType, tiny_bundle: Path, tmp_path: Path) -> None:
    assert tiny.write_tiny_bundle(tmp_path / "again").hash == Bundle.load(tiny_bundle).hash


def test_onnx_files_carry_the_manifests_facts_and_pass_onnx_own_check(tiny_bundle: Path) -> None:
    for file in tiny_bundle.glob("*.onnx"):
        model = onnx.load(str(file))
        onnx.checker.check_model(model, full_check=True)
        assert [prop.key for prop in model.metadata_props] == ["viewsync"]


def test_pinhole_is_the_scene_camera_without_distortion_at_the_encoders_size(
    tiny_bundle: Path, tiny: ModuleType
) -> None:
    bundle = Bundle.load(tiny_bundle)
    pinhole, camera = bundle.pinhole("north"), bundle.scene.cameras["north"]
    assert (pinhole.width, pinhole.height) == (tiny.WIDTH, tiny.HEIGHT)
    assert not pinhole.distortion.any() and camera.distortion.any()
    point = np.array([4.0, 3.0, 0.0])
    np.testing.assert_allclose(
        (pinhole.project(point) + 0.5) / tiny.WIDTH,
        (camera.undistorted().project(point) + 0.5) / camera.width,
    )


def test_what_a_bundle_has_not_is_named_with_what_it_has(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    with pytest.raises(BundleError, match=r"'east'.*north, south, west"):
        bundle.pinhole("east")
    with pytest.raises(BundleError, match="'east'"):
        bundle.features_hash("east")
    with pytest.raises(BundleError, match=r"'epi'.*column, none, reference-only"):
        bundle.fusion_bytes("epi")


def test_features_hash_changes_with_what_makes_features_and_with_nothing_else(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    manifest, camera = bundle.manifest, bundle.scene.cameras["north"]
    same = features_hash(bundle.encoder_bytes, manifest.preprocessing, manifest.features, camera)
    assert same == bundle.features_hash("north")
    moved = replace(camera, t=camera.t + 1.0)
    assert features_hash(bundle.encoder_bytes, manifest.preprocessing, manifest.features, moved) == same
    zoomed, bent = (
        replace(camera, K=camera.K * [[1.01], [1.0], [1.0]]),
        replace(camera, distortion=np.zeros(5)),
    )
    louder = manifest.features.model_copy(update={"high": 2.0})
    smaller = manifest.preprocessing.model_copy(update={"width": 48})
    others = [
        features_hash(bundle.encoder_bytes + b"\0", manifest.preprocessing, manifest.features, camera),
        features_hash(bundle.encoder_bytes, smaller, manifest.features, camera),
        features_hash(bundle.encoder_bytes, manifest.preprocessing, louder, camera),
        features_hash(bundle.encoder_bytes, manifest.preprocessing, manifest.features, zoomed),
        features_hash(bundle.encoder_bytes, manifest.preprocessing, manifest.features, bent),
    ]
    assert len({same, *others}) == 6


def test_another_fusion_graph_or_zone_changes_the_bundle_hash_and_no_features_hash(
    tiny: ModuleType, tmp_path: Path
) -> None:
    one = tiny.write_tiny_bundle(tmp_path / "one", graphs=("none",))
    two = tiny.write_tiny_bundle(tmp_path / "two", graphs=("column",))
    assert one.hash != two.hash
    assert [one.features_hash(view) for view in tiny.VIEWS] == [
        two.features_hash(view) for view in tiny.VIEWS
    ]


# --- the tiny graphs keep the laws of masked fusion -----------------------------------------------------


def fuse(
    bundle: Bundle, graph: str, views: list[str], offsets: list[float], absent: int = 0
) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    of_view = {view: rng.random((4, 18, 24), dtype=np.float32) for view in bundle.manifest.views}
    cells = {
        v: view_from_ground(bundle.pinhole(v), bundle.scene.ground, bundle.scene.heights_m) for v in of_view
    }
    rubbish = np.full((absent, 4, 18, 24), np.nan, np.float32)
    inputs = {
        "features": np.concatenate([np.stack([of_view[v] for v in views]), rubbish]),
        "present": np.array([1.0] * len(views) + [0.0] * absent, np.float32),
        "offset_s": np.array(offsets + [0.0] * absent, np.float32),
        "view_from_ground": np.concatenate(
            [np.stack([cells[v] for v in views]), np.zeros((absent, 2, 12, 16, 2))]
        ),
    }
    session = open_session(bundle.fusion_bytes(graph), "cpu", 1)
    spec = bundle.manifest.fusion[graph]
    outputs = session.run(list(spec.outputs), {name: inputs[name].astype(np.float32) for name in spec.inputs})
    return dict(zip(spec.outputs, outputs, strict=True))


def test_tiny_fusion_ignores_slot_order_and_rubbish_in_absent_slots(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    for graph in ("column", "none"):
        plain = fuse(bundle, graph, ["north", "south", "west"], [0.0, -1.0, 2.0])["density"]
        swapped = fuse(bundle, graph, ["north", "west", "south"], [0.0, 2.0, -1.0], absent=2)["density"]
        np.testing.assert_allclose(plain, swapped, rtol=1e-5)
        assert plain.shape == (12, 16) and plain.sum() > 0
    alone = fuse(bundle, "reference-only", ["south"], [0.0])["density"]
    np.testing.assert_allclose(
        fuse(bundle, "reference-only", ["south", "west"], [0.0, 0.0])["density"], alone
    )
    np.testing.assert_allclose(fuse(bundle, "none", ["south"], [0.0])["density"], alone, rtol=1e-5)


def test_tiny_column_states_flow_in_metres(tiny_bundle: Path, tiny: ModuleType) -> None:
    outputs = fuse(Bundle.load(tiny_bundle), "column", ["north", "south"], [0.0, -2.0])
    assert outputs["flow_m"].shape == (2, 6, 8, 2)
    np.testing.assert_allclose(outputs["flow_m"][1, ..., 0], -2.0 * tiny.FLOW_X_M_PER_S)
    np.testing.assert_allclose(outputs["match"][1], np.exp(-2.0 / tiny.FADE_S), rtol=1e-5)


# --- what is not ----------------------------------------------------------------------------------------


def test_nothing_there(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no bundle", "folder or .zip")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "manifest.yaml")


@pytest.mark.parametrize("name", ["manifest.yaml", "encoder.onnx", "fusion-none.onnx", "scene.yaml"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    refused(copy, name)
    refused(zipped(copy), name)


@pytest.mark.parametrize("name", ["encoder.onnx", "fusion-none.onnx", "scene.yaml"])
def test_a_changed_byte_is_noticed_and_the_file_named(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    refused(copy, name, "hash")


def test_an_edited_manifest_is_noticed(copy: Path) -> None:
    text = (copy / "manifest.yaml").read_text()
    (copy / "manifest.yaml").write_text(text.replace("trained_s: 3.0", "trained_s: 9.0"))
    refused(copy, "manifest.yaml", "own hash")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("schema", 2, "schema 2"),
        ("schema", None, "schema None"),
        ("schema", True, "schema True"),
        ("wire", 2, "wire 2"),
        ("task", "pose", "task"),
        ("colour", "red", "colour"),
        ("views", ["north", "north"], "view twice"),
        ("views", [], "views"),
        ("views", ["north", "../x"], "views"),
        ("references", ["east"], "east"),
        ("default", "epi", "default is epi"),
        ("offset", {"trained_s": -1.0, "unknown_s": 1000.0}, "offset.trained_s"),
        ("preprocessing", {"width": 96, "height": 96, "colour": "rgb"}, "encoder.input"),
        ("preprocessing", {"width": 96, "height": 72, "colour": "bgr"}, "preprocessing.colour"),
        ("training", [1], "training"),
        ("training", {"config": None}, "training.config.before_s"),
        *(
            ("training", {"config": {"before_s": back}}, "training.config.before_s")
            for back in (1.0, None, "soon", [0], [-1.0], [None], [[1.0]])
        ),
    ],
)
def test_a_wrong_manifest_names_the_key(copy: Path, key: str, value: Any, expected: str) -> None:
    rewrite(copy, lambda document: document.__setitem__(key, value))
    refused(copy, expected)


@pytest.mark.parametrize(
    ("where", "key", "value", "expected"),
    [
        ("features", "levels", 1, "features.levels"),
        ("features", "low", 5.0, "low 5.0 must be below high"),
        ("features", "stride", 5, "at stride 5"),
        ("features", "channels", "4", "features.channels"),
        ("features", "speed", 1, "features.speed"),
        ("encoder", "file", "../encoder.onnx", "encoder.file"),
        ("encoder", "file", "/etc/passwd", "encoder.file"),
        ("encoder", "file", "scene.yaml", "hashes.files"),
        ("hashes", "features", {"north": "0" * 64}, "hashes.features"),
    ],
)
def test_a_wrong_manifest_names_the_nested_key(
    copy: Path, where: str, key: str, value: Any, expected: str
) -> None:
    rewrite(copy, lambda document: document[where].__setitem__(key, value))
    refused(copy, expected)


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "a: [", "\x00", "!!python/object/apply:os.system ['true']", "a: 2020-01-01"]
)
def test_a_manifest_that_is_none(copy: Path, text: str) -> None:
    (copy / "manifest.yaml").write_text(text)
    refused(copy, "manifest.yaml")


def test_a_model_of_another_bundle_under_this_manifest(copy: Path) -> None:
    (copy / "fusion-none.onnx").write_bytes((copy / "fusion-column.onnx").read_bytes())
    rewrite(copy, lambda document: None)
    refused(copy, "fusion-none.onnx", "graph 'column'", "says 'none'")


def test_a_model_without_or_with_other_metadata(copy: Path) -> None:
    plain = onnx.load(str(copy / "encoder.onnx"))
    del plain.metadata_props[:]
    (copy / "encoder.onnx").write_bytes(plain.SerializeToString())
    rewrite(copy, lambda document: None)
    refused(copy, "encoder.onnx", "no viewsync metadata")
    (copy / "encoder.onnx").write_bytes(
        stamp(plain.SerializeToString(), {"part": "encoder", "task": "count", "wire": 9})
    )
    rewrite(copy, lambda document: None)
    refused(copy, "encoder.onnx", "wire 9")
    (copy / "encoder.onnx").write_bytes(b"\x0a\xff")
    rewrite(copy, lambda document: None)
    refused(copy, "encoder.onnx", "not an ONNX model")


def test_a_camera_that_was_recalibrated_without_export(copy: Path) -> None:
    text = (copy / "scene.yaml").read_text()
    (copy / "scene.yaml").write_text(text.replace("-0.05", "-0.06"))
    rewrite(copy, lambda document: None)
    refused(copy, "features hash", "north")


def test_a_view_without_a_camera_and_a_broken_scene(copy: Path) -> None:
    text = (copy / "scene.yaml").read_text()
    (copy / "scene.yaml").write_text(text.replace("west:", "east:"))
    rewrite(copy, lambda document: None)
    refused(copy, "view west has no camera", "north, south, east")
    (copy / "scene.yaml").write_text(text.replace("cell_m", "cell_cm"))
    rewrite(copy, lambda document: None)
    refused(copy, "scene.yaml")


def test_a_picture_of_another_shape_than_the_encoders(tiny: ModuleType, tmp_path: Path) -> None:
    scene = tiny.tiny_scene()
    wide = {name: camera.cropped(0, 0, 192, 100) for name, camera in scene.cameras.items()}
    tiny_scene = tiny.tiny_scene
    try:
        tiny.tiny_scene = lambda: Scene(scene.name, wide, scene.ground, scene.heights_m, scene.zones)
        with pytest.raises(BundleError, match="cannot be brought to the encoder's size"):
            tiny.write_tiny_bundle(tmp_path / "wide")
    finally:
        tiny.tiny_scene = tiny_scene
    assert list(tmp_path.iterdir()) == []  # whole or not at all


def test_nothing_is_overwritten(copy: Path, tiny: ModuleType) -> None:
    with pytest.raises(BundleError, match="exists"):
        tiny.write_tiny_bundle(copy)
    Bundle.load(copy)


def test_facts_must_fit_the_graphs(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    document = yaml.safe_load((tiny_bundle / "manifest.yaml").read_text())
    with pytest.raises(BundleError, match="given are"):
        write_bundle(tmp_path / "x", document, bundle.scene, bundle.encoder_bytes, {"none": b""})


def test_a_view_must_have_a_camera(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    document = yaml.safe_load((tiny_bundle / "manifest.yaml").read_text())
    document["views"] = ["north", "east"]
    graphs = {graph: bundle.fusion_bytes(graph) for graph in bundle.manifest.fusion}
    with pytest.raises(BundleError, match="no camera for east"):
        write_bundle(tmp_path / "x", document, bundle.scene, bundle.encoder_bytes, graphs)


def test_a_place_that_cannot_be_written(tiny: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"):
        tiny.write_tiny_bundle(tmp_path / "file" / "bundle")


# --- archives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil"])
def test_a_zip_that_reaches_outside_is_refused(copy: Path, name: str) -> None:
    path = zipped(copy)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    refused(path, "outside")


def test_a_zip_is_never_unpacked(copy: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    path = zipped(copy)
    Bundle.load(path)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])


def test_a_zip_with_a_name_twice_is_refused(copy: Path) -> None:
    path = zipped(copy)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("encoder.onnx", b"x")
    refused(path, "twice")


def test_damaged_and_deep_archives(copy: Path) -> None:
    path = zipped(copy, "a/b/")
    refused(path, "not at the top")
    whole = zipped(copy).read_bytes()
    for data in (b"", b"PK", whole[: len(whole) // 2]):
        path.write_bytes(data)
        refused(path, "neither a folder nor a readable .zip")
    # A damaged member: the directory at the end is whole, the data is not.
    broken = bytearray(whole)
    for at in range(2000, 2400):
        broken[at] ^= 0xFF
    path.write_bytes(broken)
    refused(path)
