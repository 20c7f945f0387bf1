"""`viewsync calib compare`: how far two calibrations of the same cameras are apart."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from calib.camera import Camera


@click.command()
@click.argument("ours", type=click.Path(path_type=Path))
@click.argument("theirs", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def command(ours: Path, theirs: Path, as_json: bool) -> None:
    """How far two calibrations of the same cameras are apart, whatever worlds they use.

    Scenes, files of `viewsync calib intrinsics` (named after their camera), or calibration files of any
    format that `viewsync calib import` reads. Focal lengths are compared, and where cameras stand as seen
    from each other; neither depends on where the world's origin is.

    \b
    viewsync calib compare scene.yaml camera_array.toml
    """
    from calib.look.compare import compare

    found = compare(_cameras(ours), _cameras(theirs))
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    lines = ["camera            focal x %  focal y %  principal point px"]
    lines += [
        f"{lens.camera[:16]:16}  {lens.focal_x_percent:+9.2f}  {lens.focal_y_percent:+9.2f}  "
        f"{lens.centre_px:18.1f}"
        for lens in found.lenses
    ]
    lines += ["", "from      to        apart m  turn °  shift mm"] if found.pairs else []
    lines += [
        f"{pair.first[:8]:8}  {pair.second[:8]:8}  {pair.apart_m:7.3f}  {pair.turn_deg:6.3f}  "
        f"{1000 * pair.shift_m:8.1f}"
        for pair in found.pairs
    ]
    if found.pairs:
        lines += ["", f"distances are {found.scale:.4f} times those of the second"]
    click.echo("\n".join(lines))


def _cameras(path: Path) -> Mapping[str, "Camera"]:
    from calib.boards.lens_file import load_lens
    from calib.formats import read_rig
    from calib.formats.foreign import Wishes
    from calib.scene import load_scene
    from calib.scene_text import read_yaml

    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        document = read_yaml(path)
        if isinstance(document, dict) and {"schema", "cameras"} <= {*document}:
            return load_scene(path).cameras
        if isinstance(document, dict) and "lens" in document:
            return {path.stem: load_lens(path, path.stem)}
    # Which axis is up makes no difference here; many files do not say.
    return read_rig([path], wishes=Wishes(up="z")).cameras
