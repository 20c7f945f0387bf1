"""A site in virtual time: the real clocks, outbox, buffer and step, on every profile that there is."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from viewsync.bundle import Bundle
from viewsync.lab.agents import Delivery, Picture
from viewsync.lab.arrivals import EPOCH_NS, Arrivals, Plan, arrivals, plan, worst_clock_of
from viewsync.lab.policy import load_policy, names
from viewsync.lab.profile import load_profile
from viewsync.lab.profile import names as profiles
from viewsync.lab.record import Key, Run
from viewsync.lab.replay import RememberingFusion, replay
from viewsync.lab.scenario import DRAWN_BY, Cache, Truth
from viewsync.sim.crowd import Crowd
from viewsync.sim.dataset import crowd_size
from viewsync.units import SECOND_NS

CROWD = 100_507


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture(scope="module")
def reach(bundle: Bundle, tiny: ModuleType) -> Callable[..., tuple[Plan, Arrivals]]:
    """What reaches the hub under a profile, with features that compress like real ones and show nothing."""
    shape = (tiny.CHANNELS, tiny.HEIGHT // tiny.STRIDE, tiny.WIDTH // tiny.STRIDE)
    features = np.random.default_rng(0).integers(0, 16, shape).astype(np.uint8)

    def run(profile: str, seconds: float = 30.0) -> tuple[Plan, Arrivals]:
        made = plan(load_profile(profile), bundle, CROWD, seconds)
        shown = {
            view: [
                Picture(EPOCH_NS + round(at_s * SECOND_NS), features)
                for at_s in made.scenario.schedules[view].between(-1.0, made.scenario.seconds)
                if not section.camera.is_dead(at_s)
            ]
            for view, section in made.views.items()
        }
        return made, arrivals(made, bundle, shown)

    return run


def at_s(delivery: Delivery) -> float:
    return (delivery.received_ns - EPOCH_NS) / SECOND_NS


def taken_s(delivery: Delivery) -> float:
    return (delivery.true_ns - EPOCH_NS) / SECOND_NS


@pytest.mark.parametrize("profile", profiles())
def test_every_capture_time_is_as_right_as_the_hub_is_told(
    profile: str, reach: Callable[..., tuple[Plan, Arrivals]]
) -> None:
    made, found = reach(profile)
    assert {d.message.view for d in found.deliveries} == set(made.views)
    error_s, bound_s = worst_clock_of(found.deliveries)
    assert 0.0 < error_s <= bound_s
    # Told honestly, not at all costs: within what cameras and links take, and a second for tails.
    slowest_s = max(v.up.delay_ms + v.down.delay_ms for v in made.views.values()) / 1000
    assert bound_s < 1.5 + slowest_s


def test_a_link_that_is_lopsided_by_seconds_stays_within_its_word(
    reach: Callable[..., tuple[Plan, Arrivals]], tmp_path: Path
) -> None:
    path = tmp_path / "lopsided.yaml"
    path.write_text(yaml.safe_dump({"defaults": {"up": {"delay_ms": 2500}, "down": {"delay_ms": 5}}}))
    _, found = reach(str(path))
    error_s, bound_s = worst_clock_of(found.deliveries)
    # Half the round trip is the error that nobody can see from one side; it must be in the bound.
    assert 1.0 < error_s <= bound_s


def test_the_same_seed_gives_the_same_bytes_at_the_same_times(
    reach: Callable[..., tuple[Plan, Arrivals]],
) -> None:
    first, second = ([(d.received_ns, d.message) for d in reach("lte-bad")[1].deliveries] for _ in range(2))
    assert first == second and len(first) > 20


def test_the_newest_frame_of_each_view_comes_through_an_outage_first(
    reach: Callable[..., tuple[Plan, Arrivals]],
) -> None:
    made, found = reach("outage-30s")
    (view, from_s, to_s), *_ = [
        (view, one.at_s, one.at_s + (one.for_s or 0.0))
        for view, section in made.views.items()
        for one in section.up.outages
    ]
    cut = [d for d in found.deliveries if d.message.view == view]
    # What was on its way arrives; then nothing until the link is back.
    assert not [d for d in cut if from_s + 1.0 < at_s(d) < to_s]
    back = next(d for d in cut if at_s(d) >= to_s)
    assert at_s(back) < to_s + 15.0
    later = [d for d in cut if at_s(d) >= at_s(back)]
    newest = [taken_s(d) for d in later]
    assert newest == sorted(newest)
    # Of the outage's frames at most the one that was under way and the one that waited are still sent.
    assert sum(from_s < taken_s(d) < to_s for d in later) <= 2
    others = [d for d in found.deliveries if d.message.view != view and from_s < at_s(d) < to_s]
    assert len(others) > 20


def test_without_a_network_delays_are_what_camera_and_extraction_take(
    reach: Callable[..., tuple[Plan, Arrivals]],
) -> None:
    _, found = reach("lan")
    delays = [at_s(d) - taken_s(d) for d in found.deliveries if at_s(d) > 5.0]
    assert min(delays) >= 0.09 and max(delays) < 0.2


# --- the hub's part, on rendered crowds -------------------------------------------------------------------


@pytest.fixture(scope="module")
def cell(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Run]:
    from viewsync.lab.arrivals import pictures

    cache = Cache(tmp_path_factory.mktemp("cache"))

    def run(profile: str, policy: str, method: str) -> Run:
        made = plan(load_profile(profile), bundle, CROWD, 5.0)
        made = dataclasses.replace(made, scenario=dataclasses.replace(made.scenario, seconds=30.0))
        found = arrivals(made, bundle, pictures(made, bundle, cache))
        goes_by, rules = load_policy(policy).for_bundle(bundle)
        key = Key(profile, policy, "tiny", method, CROWD)
        fusion = RememberingFusion(bundle, method)
        return replay(key, made, found, cache.truth(made.scenario), fusion, goes_by, rules)

    return run


def test_methods_answer_the_same_frames_and_repeat_to_the_last_bit(
    cell: Callable[[str, str, str], Run],
) -> None:
    column, again, none = (cell("paper-citystreet", "far", m) for m in ("column", "column", "none"))
    assert column.answers == again.answers and column.answers
    frames = [[(a.instant_s, a.reference, a.offsets_s) for a in run.answers] for run in (column, none)]
    assert frames[0] == frames[1]
    # The profile's promise under the median: the others 3 s before and after.
    assert {round(a.offset_s, 6) for a in column.answers if a.used == 3} == {3.0}


def test_policies_differ_where_they_must(cell: Callable[[str, str, str], Run]) -> None:
    far, freshest = cell("paper-citystreet", "far", "none"), cell("paper-citystreet", "freshest", "none")
    assert max(a.used for a in far.answers) == 3 and max(a.used for a in freshest.answers) == 2
    assert np.median([a.age_s for a in freshest.answers]) < np.median([a.age_s for a in far.answers])
    assert all(a.offsets_s[v] <= 0 for a in freshest.answers for v in a.offsets_s)


def test_truth_on_disk_is_the_crowds_own(bundle: Bundle, tmp_path: Path) -> None:
    made = plan(load_profile("lan"), bundle, CROWD, 5.0)
    truth: Truth = Cache(tmp_path).truth(made.scenario)
    scene = made.scenario.scene
    crowd = Crowd(scene.walk_area, crowd_size(CROWD), CROWD, scene.obstacles)
    for when_s in (0.0, 0.05, 3.337, 9.99):
        xy = crowd.state(when_s).xy
        expected = xy[scene.scene.ground.contains(xy)]
        np.testing.assert_allclose(truth.places(when_s), expected, atol=1e-5)


def test_what_is_kept_is_told_apart_by_all_the_code_that_draws_it() -> None:
    script = "import sys, viewsync.lab.scenario; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    drawing = {name for name in done.stdout.split() if name.startswith("viewsync.sim.")}
    assert drawing == {f"viewsync.sim.{name}" for name in DRAWN_BY}


def test_a_schedule_of_its_own_has_footage_of_its_own(bundle: Bundle, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = plan(load_profile("paper-citystreet"), bundle, CROWD, 1.0).scenario
    made = dataclasses.replace(made, seconds=8.0)
    first = cache.footage(made)
    kept = sorted(tmp_path.iterdir())
    assert {k: f.units for k, f in cache.footage(made).items()} == {k: f.units for k, f in first.items()}
    assert sorted(tmp_path.iterdir()) == kept and not list(tmp_path.glob(".*"))
    other = dataclasses.replace(
        made, schedules={v: dataclasses.replace(s, phase_s=0.5) for v, s in made.schedules.items()}
    )
    assert {f.true_s[0] for f in cache.footage(other).values()} == {0.5}


def test_policies_by_name_and_a_near_miss() -> None:
    assert names() == ["default", "far", "freshest"]
    with pytest.raises(Exception, match="did you mean 'freshest'"):
        load_policy("freshes")
