"""A bundle: what `export` writes and both sides load. A folder, or a .zip of it:

    manifest.yaml   encoder.onnx   fusion-<graph>.onnx ...   scene.yaml

`Bundle.load` trusts nothing: every file's hash, the manifest's schema, the facts inside each ONNX file, and
that scene and manifest agree. Whatever fails is a BundleError that says what, where and what to do. A .zip
is read in place: no member is ever written to disk under the name it claims.

Two hashes (design): `features` of a view (encoder, preprocessing, quantisation, the view's intrinsics)
travels in every message and must match; `bundle` (everything) is provenance in predictions only.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pydantic
import yaml

from calib.camera import Camera
from calib.errors import CalibError
from calib.scene import Scene, load_scene
from viewsync.bundle_files import EXPORT_AGAIN, open_files
from viewsync.errors import BundleError
from viewsync.manifest import SCHEMA, Features, Manifest, Preprocessing
from viewsync.onnx_metadata import read_metadata
from viewsync.wire import WIRE_VERSION

MANIFEST: Final = "manifest.yaml"
SCENE: Final = "scene.yaml"
ENCODER: Final = "encoder.onnx"


def features_hash(encoder: bytes, preprocessing: Preprocessing, features: Features, camera: Camera) -> str:
    """SHA-256 of what decides a view's features: both sides must agree on it, or the hub reads noise.

    encoder: bytes of encoder.onnx. camera: the view's calibrated camera from scene.yaml, of which the
    intrinsics count (K and distortion in pixels, size); moving a camera never touches an agent.
    """
    facts = {
        "encoder": hashlib.sha256(encoder).hexdigest(),
        "preprocessing": preprocessing.model_dump(mode="json"),
        "features": features.model_dump(mode="json"),
        # Nine decimals: far below what a pixel notices, far above what another machine's rounding changes.
        "K": [f"{value:.9f}" for value in camera.K.ravel().tolist()],
        "distortion": [f"{value:.9f}" for value in camera.distortion.tolist()],
        "size": [camera.width, camera.height],
    }
    return _digest(facts)


def bundle_hash(document: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest as read from YAML, without `hashes.bundle`; it covers the files through
    `hashes.files`.
    """
    hashes = {key: value for key, value in document["hashes"].items() if key != "bundle"}
    return _digest({**document, "hashes": hashes})


class Bundle:
    """A verified bundle in memory. Made by `Bundle.load`."""

    __slots__ = ("_files", "manifest", "path", "scene")

    def __init__(self, path: Path, manifest: Manifest, scene: Scene, files: Mapping[str, bytes]) -> None:
        self.path = path
        self.manifest = manifest
        self.scene = scene
        self._files = dict(files)

    @classmethod
    def load(cls, path: Path | str) -> Bundle:
        """Read and verify a bundle folder or .zip. Raises BundleError."""
        path = Path(path)
        read = open_files(path).read
        document = _document(path, read(MANIFEST))
        manifest = manifest_of(path, document)
        if bundle_hash(document) != manifest.hashes.bundle:
            raise BundleError(
                f"{path}: {MANIFEST} does not match its own hash, so it was edited; {EXPORT_AGAIN}"
            )
        named = {manifest.encoder.file, SCENE} | {graph.file for graph in manifest.fusion.values()}
        if named != set(manifest.hashes.files):
            raise BundleError(
                f"{path}: {MANIFEST} uses {', '.join(sorted(named))} but hashes.files has "
                f"{', '.join(sorted(manifest.hashes.files))}; {EXPORT_AGAIN}"
            )
        files = {name: read(name) for name in sorted(named)}
        for name, data in files.items():
            if hashlib.sha256(data).hexdigest() != manifest.hashes.files[name]:
                raise BundleError(f"{path}: {name} does not match its hash in {MANIFEST}; {EXPORT_AGAIN}")
        bundle = cls(path, manifest, _scene(path, files[SCENE]), files)
        bundle._check_facts()
        bundle._check_views()
        return bundle

    @property
    def hash(self) -> str:
        """Hash of everything: provenance for predictions."""
        return self.manifest.hashes.bundle

    @property
    def encoder_bytes(self) -> bytes:
        """encoder.onnx."""
        return self._files[self.manifest.encoder.file]

    def fusion_bytes(self, graph: str) -> bytes:
        """The ONNX file of one fusion graph. Raises BundleError for a graph that the bundle has not."""
        if graph not in self.manifest.fusion:
            have = ", ".join(self.manifest.fusion)
            raise BundleError(f"{self.path} has no fusion graph {graph!r}; choose one of {have}")
        return self._files[self.manifest.fusion[graph].file]

    def features_hash(self, view: str) -> str:
        """Hash that this view's messages must carry."""
        self._check_view(view)
        return self.manifest.hashes.features[view]

    def pinhole(self, view: str) -> Camera:
        """The camera that took the view's image once the agent has remapped it: undistorted, at the
        encoder's size.
        """
        self._check_view(view)
        size = self.manifest.preprocessing
        try:
            return self.scene.cameras[view].undistorted().resized(size.width, size.height)
        except CalibError as error:
            raise BundleError(
                f"{self.path}: view {view} cannot be brought to the encoder's size: {error}"
            ) from error

    def _check_view(self, view: str) -> None:
        if view not in self.manifest.views:
            have = ", ".join(self.manifest.views)
            raise BundleError(f"{self.path} has no view {view!r}; choose one of {have}")

    def _check_views(self) -> None:
        manifest = self.manifest
        for view in manifest.views:
            if view not in self.scene.cameras:
                have = ", ".join(self.scene.cameras)
                raise BundleError(
                    f"{self.path}: view {view} has no camera in {SCENE} (it has {have}); {EXPORT_AGAIN}"
                )
            camera = self.scene.cameras[view]
            expected = features_hash(self.encoder_bytes, manifest.preprocessing, manifest.features, camera)
            if manifest.hashes.features[view] != expected:
                raise BundleError(
                    f"{self.path}: features hash of {view} does not fit encoder and camera; {EXPORT_AGAIN}"
                )
            self.pinhole(view)

    def _check_facts(self) -> None:
        expected = {self.manifest.encoder.file: encoder_facts(self.manifest)}
        expected |= {
            spec.file: fusion_facts(self.manifest, graph) for graph, spec in self.manifest.fusion.items()
        }
        for name, facts in expected.items():
            try:
                found = read_metadata(self._files[name])
            except ValueError as error:
                raise BundleError(f"{self.path}: {name} cannot be read: {error}; {EXPORT_AGAIN}") from error
            if found is None:
                raise BundleError(f"{self.path}: {name} carries no viewsync metadata; {EXPORT_AGAIN}")
            wrong = [key for key, value in facts.items() if found.get(key) != value]
            if wrong:
                raise BundleError(
                    f"{self.path}: {name} was exported with {wrong[0]} {found.get(wrong[0])!r}, "
                    f"{MANIFEST} says {facts[wrong[0]]!r}; {EXPORT_AGAIN}"
                )


def encoder_facts(manifest: Manifest) -> dict[str, Any]:
    """What encoder.onnx says of itself in its metadata."""
    return {"part": "encoder", "task": manifest.task, **_shared_facts(manifest)}


def fusion_facts(manifest: Manifest, graph: str) -> dict[str, Any]:
    """What a fusion graph says of itself in its metadata."""
    spec = manifest.fusion[graph]
    own = {"part": "fusion", "graph": graph, "fusion": spec.fusion, "synchroniser": spec.synchroniser}
    return {**own, "task": manifest.task, **_shared_facts(manifest)}


def _shared_facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "wire": manifest.wire,
        "name": manifest.name,
        "preprocessing": manifest.preprocessing.model_dump(mode="json"),
        "features": manifest.features.model_dump(mode="json"),
    }


# --- reading ------------------------------------------------------------------------------------------


def _document(path: Path, text: bytes) -> dict[str, Any]:
    try:
        document = yaml.safe_load(text.decode())
        _canonical(document)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError) as error:
        first_line = " ".join(str(error).split())[:200]
        raise BundleError(f"{path}: {MANIFEST} cannot be read ({first_line}); {EXPORT_AGAIN}") from error
    if not isinstance(document, dict):
        raise BundleError(f"{path}: {MANIFEST} is not a map of keys; {EXPORT_AGAIN}")
    for key, ours in (("schema", SCHEMA), ("wire", WIRE_VERSION)):
        if document.get(key) != ours or isinstance(document.get(key), bool):
            raise BundleError(
                f"{path}: {MANIFEST} has {key} {document.get(key)!r}, this program reads {ours}; "
                "export the bundle with the viewsync version that loads it"
            )
    return document


def manifest_of(path: Path, document: Mapping[str, Any]) -> Manifest:
    """The manifest that a YAML document is. Raises BundleError naming the key that is wrong."""
    try:
        return Manifest.model_validate(document)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        key = f"key {where}: " if where else ""
        raise BundleError(f"{path}: {MANIFEST}: {key}{first['msg']}; {EXPORT_AGAIN}") from error


def _scene(path: Path, text: bytes) -> Scene:
    # calib reads scenes from files, and a .zip has none: a name of our own in a folder of our own.
    with tempfile.TemporaryDirectory(prefix="viewsync-") as scratch:
        file = Path(scratch) / SCENE
        file.write_bytes(text)
        try:
            return load_scene(file)
        except CalibError as error:
            message = str(error).replace(str(file), f"{path}: {SCENE}")
            raise BundleError(message) from error


def _canonical(value: object) -> bytes:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    ).encode()


def _digest(value: object) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()
