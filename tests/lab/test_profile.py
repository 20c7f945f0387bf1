"""Profiles say what they mean, and wrong ones say what is wrong, in one line."""

from pathlib import Path

import pytest

from viewsync.errors import ConfigError
from viewsync.lab.profile import FOLDER, load_profile, names

VIEWS = ("north", "east", "south")
# The issue's.
TEN = {
    *("lan", "wifi-busy", "lte-good", "lte-bad", "satellite", "low-fps-5s", "one-camera-dying", "outage-30s"),
    *("paper-pets", "paper-citystreet"),
}


def test_all_ten_are_there_and_say_what_they_are() -> None:
    assert set(names()) >= TEN
    profiles = [load_profile(name) for name in names()]
    assert all(profile.about and profile.name for profile in profiles)
    assert len({profile.seed for profile in profiles}) == len(profiles)
    assert all(len(profile.of_views(VIEWS)) == 3 for profile in profiles)


def test_what_a_view_does_not_say_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "defaults: {up: {delay_ms: 100, loss: 0.1}, camera: {fps: 2}}\n"
        "views:\n"
        "  2: {up: {delay_ms: 300}, camera: {phase_s: 0.2}}\n"
        "  east: {up: {loss: 0.2}}\n"
        "  7: {up: {loss: 0.9}}\n"
    )
    views = load_profile(str(path)).of_views(VIEWS)
    assert (views["north"].up.delay_ms, views["north"].up.loss) == (100, 0.1)
    assert (views["east"].up.delay_ms, views["east"].up.loss) == (300, 0.2)
    assert (views["east"].camera.fps, views["east"].camera.phase_s) == (2, 0.2)
    assert views["south"] == views["north"] and views["south"].down.delay_ms == 0


def test_a_copy_of_a_profile_under_another_name_is_another_profile(tmp_path: Path) -> None:
    copy = tmp_path / "one-file.yaml"
    copy.write_text((FOLDER / "lte-bad.yaml").read_text())
    mine, theirs = load_profile(str(copy)), load_profile("lte-bad")
    assert mine.name == "one-file" and mine.of_views(VIEWS) == theirs.of_views(VIEWS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("defaults: {upp: {}}", "unknown key 'defaults.upp'; did you mean 'up'"),
        ("views: {1: {up: {dealy_ms: 3}}}", "unknown key 'views.1.up.dealy_ms'; did you mean 'delay_ms'"),
        ("views: {1: {camera: {fps: 0}}}", "views.1.camera.fps"),
        ("views: {0: {up: {delay_ms: 3}}}", "counted from 1"),
        ("defaults: {up: {loss: 2}}", "defaults.up.loss"),
        ("defaults: {up: {delay_ms: .nan}}", "defaults.up.delay_ms"),
        ("views: {1: {up: {jitter_ms: 3}}}", "raise the delay"),
        ("defaults: {up: {loss: 0.9, loss_burst_packets: 1}}", "raise loss_burst_packets"),
        ("defaults: {up: {loss: 0.9, loss_burst_packets: 9, loss_in_burst: 0.5}}", "loss_in_burst"),
        ("defaults: {up: {outages: [{for_s: 3}]}}", "'defaults.up.outages.0.at_s' is missing"),
        ("- lan", "expected 'key: value' lines"),
        ("defaults: {up: ", "not valid YAML"),
    ],
)
def test_a_wrong_profile_is_one_line_that_names_file_key_and_remedy(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_profile(str(path))
    line = str(raised.value)
    assert says in line and str(path) in line and "\n" not in line


def test_a_view_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match=r"views\.west.*north, east"):
        # Only a bundle knows its views.
        load = load_profile("lan")
        type(load)(load.name, "", 0, load.defaults, {"west": load.defaults}).of_views(VIEWS)


@pytest.mark.parametrize(("name", "says"), [("lte-bat", "did you mean 'lte-bad'"), ("mars", "paper-pets")])
def test_an_unknown_profile_names_the_known(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_profile(name)
