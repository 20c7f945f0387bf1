"""Graphs that look at each view's frame before, in virtual time: they get it, and nothing is mixed up."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hub.buffer import Entry, Snapshot
from hub.fusion import Fusion
from viewsync.bundle import Bundle
from viewsync.lab import curve
from viewsync.lab.policy import load_policy
from viewsync.lab.replay import RememberingFusion
from viewsync.lab.scenario import Cache
from viewsync.units import SECOND_NS


@pytest.fixture(scope="module")
def bundle(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny.write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle", ("none", "before"))


def frame(bundle: Bundle, view: str, seq: int, value: int) -> Entry:
    spec = bundle.manifest.features
    at_ns = 1_700_000_000 * SECOND_NS + seq * SECOND_NS
    return Entry(
        view=view,
        session=1,
        seq=seq,
        capture_ns=at_ns,
        uncertainty_ns=0,
        stamped_ns=at_ns,
        clock="file",
        received_ns=at_ns,
        features=np.full((spec.channels, spec.height, spec.width), value, np.uint8),
    )


def test_the_same_newest_frames_after_others_are_another_answer(bundle: Bundle) -> None:
    views = bundle.manifest.views
    newest = {view: frame(bundle, view, 5, 90) for view in views}
    snapshots = [
        Snapshot(number, newest, {view: frame(bundle, view, seq, value) for view in seen})
        for number, (seq, value, seen) in enumerate(
            [(4, 30, views), (3, 60, views), (4, 30, views[:1]), (4, 0, ())]
        )
    ]
    plain, remembering = Fusion(bundle, ("before",)), RememberingFusion(bundle, "before")
    counts = [plain.predict(s, views).counts["before"] for s in snapshots]
    assert len(set(counts)) == 4
    # Twice, so that what is remembered is asked for, too.
    assert [remembering.predict(s, views).counts["before"] for s in snapshots * 2] == counts * 2
    # To a graph that looks at the newest alone they are all one.
    alone = RememberingFusion(bundle, "none")
    assert len({id(alone.predict(s, views)) for s in snapshots}) == 1


def test_whichever_graph_answers_the_hub_keeps_what_one_of_them_looks_at(bundle: Bundle) -> None:
    assert bundle.manifest.default == "none"
    assert load_policy("default").for_bundle(bundle)[1].depth == 2


def test_the_curve_gives_frames_of_half_a_second_before(bundle: Bundle, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    filmed = curve.scenario(bundle, 100_500)
    features = {view: cache.features(filmed, bundle, view, 2.0) for view in bundle.manifest.views}
    times = {"north": 10.0, "south": 12.0, "west": 9.0}
    fusions = {method: RememberingFusion(bundle, method) for method in ("none", "before")}
    earlier = {view: at_s - 0.5 for view, at_s in times.items()}

    def answer(method: str, at: dict[str, float]) -> tuple[float, np.ndarray]:
        return curve._answer(bundle, fusions[method], "north", at, features)

    (count, density), (expected, wanted) = answer("before", times), answer("none", earlier)
    assert count == pytest.approx(expected, rel=1e-6) and np.allclose(density, wanted)
    assert abs(count - answer("none", times)[0]) > 1e-3
    # The very first frame has none before.
    start = {"north": 0.0, "south": 0.0, "west": 0.0}
    assert answer("before", start)[0] == pytest.approx(answer("none", start)[0], rel=1e-6)
