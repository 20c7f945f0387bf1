"""The demo's scene is hard on purpose, and stays so: bounds on the figures that `sim describe` prints."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from viewsync.cli import main
from viewsync.sim.crowd import make_appearance
from viewsync.sim.describe import Hardness, alike, dark_and_neutral, describe, identified, lines
from viewsync.sim.scenes import load


@pytest.fixture(scope="module")
def plaza() -> Hardness:
    return describe(load("plaza"), range(3), (4.0, 20.0))


def test_each_view_alone_shows_half_to_four_fifths_of_the_people(plaza: Hardness) -> None:
    assert set(plaza.seen) == {"north", "east", "south"}
    assert all(0.5 <= share <= 0.8 for share in plaza.seen.values())
    # Together they show nearly everybody, so there is something to gain.
    assert plaza.seen_by_any > 0.9 > max(plaza.seen.values()) + 0.1


def test_raw_colour_identifies_at_most_half(plaza: Hardness) -> None:
    assert plaza.identified_by_colour <= 0.5


def test_clothes_are_mostly_dark_and_neutral_and_often_shared(plaza: Hardness) -> None:
    assert plaza.dark_and_neutral > 0.7
    assert plaza.alike > 0.5


def test_people_stand_stroll_hurry_turn_and_keep_company(plaza: Hardness) -> None:
    assert plaza.speeds_m_s["0 %"] < 0.05 and 1.4 < plaza.speeds_m_s["100 %"] <= 1.8 + 1e-9
    assert plaza.speeds_m_s["90 %"] - plaza.speeds_m_s["10 %"] > 0.8
    assert 0.05 < plaza.standing < 0.5
    assert plaza.turning > 0.1
    assert 0.3 < plaza.in_company < 0.8


def test_cameras_differ_in_exposure_white_balance_and_blur(plaza: Hardness) -> None:
    for settings in plaza.cameras.values():
        assert settings["exposure"].greatest / settings["exposure"].least > 1.25
        assert settings["red_gain"].greatest - settings["red_gain"].least > 0.05
        assert settings["blue_gain"].greatest - settings["blue_gain"].least > 0.05
        assert settings["blur_px"].greatest > settings["blur_px"].least + 0.1
    assert len({settings["exposure"].mean for settings in plaza.cameras.values()}) == 3


def test_everything_is_said_in_words(plaza: Hardness) -> None:
    text = "\n".join(lines(plaza))
    assert all(view in text for view in plaza.seen) and "dark" in text and "raw colour" in text


def test_the_command_prints_json(small_scene) -> None:
    run = CliRunner().invoke(
        main, ["sim", "describe", "--scene", str(small_scene), "--people", "6", "--crowds", "0:1", "--json"]
    )
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert (
        found["people"] == 6
        and found["frames_per_core_s"] > 0
        and set(found["seen"]) == {"left", "right", "far"}
    )


def test_colours_identify_whom_they_single_out() -> None:
    first = np.zeros((4, 6))
    first[:, 0] = [0.0, 10.0, 20.0, 30.0]
    everybody = np.ones(4, bool)
    assert identified(first, first + 1.0, everybody, everybody).all()
    swapped = first[[1, 0, 2, 3]]
    assert identified(first, swapped, everybody, everybody).tolist() == [False, False, True, True]
    # Whoever the second view hides is no candidate, and nobody asks about whom the first hides.
    hidden = np.array([True, True, False, True])
    assert identified(first, swapped, everybody, hidden).tolist() == [False, False, True]
    # A garment that one view hides is not compared.
    half = first.copy()
    half[3, :3] = np.nan
    assert len(identified(first, half, everybody, everybody)) == 4


def test_doubles_and_dull_clothes_against_hand_made_people() -> None:
    looks = make_appearance(3, np.random.default_rng(0))
    looks.top[:] = [(30, 30, 30), (35, 32, 30), (30, 30, 30)]
    looks.bottom[:] = [(50, 50, 50), (50, 55, 50), (150, 150, 150)]
    assert alike(looks).tolist() == [True, True, False]
    garments = np.array([(30, 30, 40), (10, 90, 10), (180, 180, 180)], dtype=np.float64)
    assert dark_and_neutral(garments).tolist() == [True, False, False]
