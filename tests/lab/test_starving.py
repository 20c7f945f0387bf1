"""Profiles under which nothing could be answered are told from bad ones."""

import pytest

from viewsync.bundle import Bundle
from viewsync.errors import ConfigError
from viewsync.lab.profile import CameraSection, Direction, Period, ViewSection, load_profile, names
from viewsync.lab.starving import check, why_starved

MESSAGE, MAX_AGE_S = 28_000, 15.0


@pytest.mark.parametrize(
    ("section", "says"),
    [
        (ViewSection(camera=CameraSection(dead=(Period(at_s=0),))), "camera is dead"),
        (
            ViewSection(camera=CameraSection(dead=(Period(at_s=9), Period(at_s=0, for_s=10)))),
            "camera is dead",
        ),
        (ViewSection(up=Direction(outages=(Period(at_s=0),))), "uplink is out"),
        (ViewSection(down=Direction(loss=1)), "downlink loses 100 %"),
        (
            ViewSection(up=Direction(rate_kbit_s=10)),
            "28 kB takes 22 s, and the hub takes frames of up to 15 s",
        ),
        (ViewSection(up=Direction(delay_ms=6000)), "takes 18 s"),
    ],
)
def test_what_starves_a_view_is_said(section: ViewSection, says: str) -> None:
    assert says in why_starved(section, MESSAGE, MAX_AGE_S)


def test_what_is_only_bad_is_let_through() -> None:
    for name in names():
        for section in load_profile(name).of_views(("north", "east", "south")).values():
            assert why_starved(section, MESSAGE, MAX_AGE_S) == ""
    gap = CameraSection(dead=(Period(at_s=0, for_s=10), Period(at_s=11)))
    assert why_starved(ViewSection(camera=gap), MESSAGE, MAX_AGE_S) == ""
    # A run that ends before the gap sees nothing.
    assert why_starved(ViewSection(camera=gap), MESSAGE, MAX_AGE_S, lasts_s=10)


def test_one_view_that_lives_is_enough(tiny_bundle, tmp_path) -> None:
    bundle = Bundle.load(tiny_bundle)
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: {camera: {dead: [{at_s: 0}]}}\nviews: {2: {camera: {dead: []}}}\n")
    check(load_profile(str(path)), bundle, MAX_AGE_S)
    path.write_text("defaults: {camera: {dead: [{at_s: 0}]}}\n")
    with pytest.raises(ConfigError, match=r"starves every view.*north: its camera.*west: its camera"):
        check(load_profile(str(path)), bundle, MAX_AGE_S)
