"""Writing a bundle (`viewsync.bundle`): what `export` ends with. Edge and hub only read."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from calib.scene import Scene, load_scene, save_scene
from viewsync.bundle import (
    ENCODER,
    MANIFEST,
    SCENE,
    Bundle,
    bundle_hash,
    encoder_facts,
    features_hash,
    fusion_facts,
    manifest_of,
)
from viewsync.errors import BundleError
from viewsync.manifest import SCHEMA, Manifest
from viewsync.onnx_metadata import stamp
from viewsync.wire import WIRE_VERSION


def write_bundle(
    path: Path | str, facts: Mapping[str, Any], scene: Scene, encoder: bytes, fusion: Mapping[str, bytes]
) -> Bundle:
    """Write a bundle to a new folder, or a new .zip where `path` ends so; whole or not at all.

    facts: the manifest without `schema`, `wire`, `hashes` and file names, all JSON values. encoder, fusion
    (by graph name): ONNX bytes; their metadata is stamped here. Returns the bundle as loaded back from what
    was written. Raises BundleError where the path is taken or the parts don't fit together.
    """
    path = Path(path)
    if path.exists():
        raise BundleError(f"{path} exists; choose a new place for the bundle or remove it first")
    # Through JSON: a deep copy of plain values, so that the hash before writing is the hash after reading.
    document = json.loads(json.dumps({"schema": SCHEMA, "wire": WIRE_VERSION, **facts}, allow_nan=False))
    document["encoder"]["file"] = ENCODER
    if set(document["fusion"]) != set(fusion):
        raise BundleError(
            f"{path}: facts describe graphs {sorted(document['fusion'])}, given are {sorted(fusion)}"
        )
    without = [view for view in document["views"] if view not in scene.cameras]
    if without:
        raise BundleError(
            f"{path}: scene {scene.name} has no camera for {', '.join(without)}; name its own views"
        )
    for graph in fusion:
        document["fusion"][graph]["file"] = f"fusion-{graph}.onnx"
    placeholder = dict.fromkeys(document["views"], "0" * 64)
    manifest = manifest_of(
        path, {**document, "hashes": {"files": {}, "features": placeholder, "bundle": "0" * 64}}
    )

    files = {ENCODER: stamp(encoder, encoder_facts(manifest))}
    files |= {
        manifest.fusion[graph].file: stamp(data, fusion_facts(manifest, graph))
        for graph, data in fusion.items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            folder = Path(scratch) / path.name
            _write_folder(folder, document, manifest, scene, files)
            try:
                Bundle.load(folder)  # nothing appears at `path` that would not load
            except BundleError as error:
                raise BundleError(str(error).replace(str(folder), str(path))) from error
            if path.suffix == ".zip":
                packed = shutil.make_archive(str(Path(scratch) / "packed"), "zip", folder)
                Path(packed).rename(path)
            else:
                folder.rename(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be written ({error.strerror}); nothing was left there") from error
    return Bundle.load(path)


def _write_folder(
    folder: Path, document: dict[str, Any], manifest: Manifest, scene: Scene, models: Mapping[str, bytes]
) -> None:
    """Write everything to `folder`, hashes last; they go into `document` too."""
    folder.mkdir()
    save_scene(scene, folder / SCENE)
    files = {**models, SCENE: (folder / SCENE).read_bytes()}
    cameras = load_scene(folder / SCENE).cameras  # hashed as they will be read back
    document["hashes"] = {
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
        "features": {
            view: features_hash(files[ENCODER], manifest.preprocessing, manifest.features, cameras[view])
            for view in manifest.views
        },
    }
    document["hashes"]["bundle"] = bundle_hash(document)
    files[MANIFEST] = _yaml(document)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _yaml(document: Mapping[str, Any]) -> bytes:
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    return f"# Written by export; its hashes cover it: export again rather than edit.\n{text}".encode()
