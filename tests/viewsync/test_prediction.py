"""What the hub publishes survives the wire, and nothing else is taken for it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.ground import GroundGrid
from viewsync import values
from viewsync.errors import WireError
from viewsync.prediction import Prediction, Status, ViewReport, decode_prediction, encode_prediction, summary

GOLDEN = Path(__file__).parent / "golden"
VIEWS = (
    ViewReport("north", True, "", 5, 7, 1_700_000_000_000_000_000, "rtcp", 0, 800_000, 1_200_000_000, 0.0),
    ViewReport(
        "south",
        True,
        "",
        6,
        2,
        1_699_999_998_000_000_000,
        "arrival",
        -2_000_000_000,
        900_000,
        3_200_000_000,
        0.4,
    ),
    ViewReport("west", False, "no frame"),
)
# 0 … 65535 is exact on the wire: the golden density is what it was.
DENSITY = (np.array([[0, 1, 2], [65535, 4, 5]], "<f4") / np.float32(65536)).astype("<f4")
PREDICTION = Prediction(
    site="yard",
    scene="plaza",
    session=2**62,
    seq=41,
    published_ns=1_700_000_001_200_000_000,
    capture_ns=1_700_000_000_000_000_000,
    capture_uncertainty_ns=700_000,
    reference="north",
    synchroniser="column",
    count=17.25,
    counts={"column": 17.25, "none": 21.5, "reference-only": 12.0},
    density=DENSITY,
    grid=GroundGrid(-1.5, 2.0, 0.5, 3, 2),
    views=VIEWS,
    bundle="fedcba9876543210" * 4,
    latency_ns=1_200_000_000,
    fuse_ns=35_000_000,
    degraded=True,
    reasons=("west is missing",),
    zones={"left": 9.5},
)
STATUS = Status("yard", "plaza", 1_700_000_009_000_000_000, True, ("no new frame for 5.0 s",), VIEWS)


def tampered(**changes: Any) -> bytes:
    fields = msgpack.unpackb(encode_prediction(PREDICTION))
    fields |= {key: value for key, value in changes.items() if value is not ...}
    for key in [key for key, value in changes.items() if value is ...]:
        del fields[key]
    return msgpack.packb(fields)  # type: ignore[no-any-return]


def part_with(part: str, **changes: Any) -> bytes:
    fields = msgpack.unpackb(encode_prediction(PREDICTION))[part]
    return tampered(**{part: fields | changes})


def view_with(**changes: Any) -> bytes:
    first = msgpack.unpackb(encode_prediction(PREDICTION))["views"][0]
    return tampered(views=[first | changes])


def test_golden_bytes_of_version_1_decode_for_ever() -> None:
    decoded = decode_prediction((GOLDEN / "prediction.bin").read_bytes())
    assert isinstance(decoded, Prediction)
    np.testing.assert_allclose(decoded.density, DENSITY, atol=1e-6)
    assert replace(decoded, density=DENSITY) == PREDICTION
    assert decode_prediction((GOLDEN / "status.bin").read_bytes()) == STATUS
    assert encode_prediction(STATUS) == (GOLDEN / "status.bin").read_bytes()


def test_the_documented_keys_are_the_keys_on_the_wire() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
    fields = msgpack.unpackb(encode_prediction(PREDICTION))
    for key in [*fields, *fields["views"][0], *fields["grid"], *fields["density"]]:
        assert f"`{key}`" in documented, key


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    scale=st.floats(1e-6, 1e6),
)
def test_density_is_off_by_half_a_level_at_most(seed: int, rows: int, columns: int, scale: float) -> None:
    density = (np.random.default_rng(seed).normal(size=(rows, columns)) * scale).astype("<f4")
    sent = replace(PREDICTION, density=density, grid=GroundGrid(0, 0, 1, columns, rows))
    got = decode_prediction(encode_prediction(sent))
    assert isinstance(got, Prediction)
    level = float(density.max() - density.min()) / 65535
    # Half a level, and the rounding of the two float32 steps on the way.
    assert np.abs(got.density - density).max() <= level / 2 + 1e-6 * np.abs(density).max()
    assert replace(got, density=density) == sent


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_a_flat_density_is_exact(value: float) -> None:
    sent = replace(PREDICTION, density=np.full((2, 3), value, "<f4"))
    assert decode_prediction(encode_prediction(sent)) == sent


def test_a_prediction_is_small_beside_features() -> None:
    rng = np.random.default_rng(0)
    density = np.zeros((75, 100), "<f4")
    density[rng.integers(0, 75, 40), rng.integers(0, 100, 40)] = rng.random(40)
    sent = replace(PREDICTION, density=density, grid=GroundGrid(0, 0, 0.2, 100, 75))
    assert len(encode_prediction(sent)) < 4000


def test_summary_is_json_and_has_all_but_the_cells() -> None:
    line = json.loads(json.dumps(summary(PREDICTION), allow_nan=False))
    assert (
        line["kind"] == "prediction" and line["counts"]["none"] == 21.5 and line["views"][2]["used"] is False
    )
    assert "density" not in line
    assert json.loads(json.dumps(summary(STATUS)))["reasons"] == ["no new frame for 5.0 s"]


def test_keys_of_a_later_addition_are_ignored() -> None:
    data = part_with("grid", frame="ENU")
    assert isinstance(decode_prediction(data), Prediction)
    assert isinstance(decode_prediction(tampered(joints=[[1, 2]])), Prediction)


def test_a_decoded_prediction_cannot_be_changed() -> None:
    got = decode_prediction(encode_prediction(PREDICTION))
    assert isinstance(got, Prediction)
    with pytest.raises(ValueError, match="read-only"):
        got.density[0, 0] = 1
    with pytest.raises(TypeError):
        got.counts["none"] = 0.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not-msgpack"),
        (msgpack.packb({"v": 1, "kind": "features"}), "unknown-kind"),
        (tampered(v=2), "wire-version"),
        (tampered(count=...), "missing-key"),
        (tampered(count=math.nan), "not-finite"),
        (tampered(count="17"), "bad-value"),
        (tampered(counts={"column": math.inf}), "not-finite"),
        (tampered(counts={"none": 1.0}), "bad-value"),
        (tampered(counts=[1]), "bad-value"),
        (tampered(zones={"a b": 1.0}), "bad-value"),
        (tampered(reference=""), "bad-value"),
        (tampered(degraded=1), "bad-value"),
        (tampered(reasons="west"), "bad-value"),
        (tampered(reasons=["line\nbreak"]), "bad-value"),
        (tampered(bundle="abc"), "bad-value"),
        (tampered(published_ns=-1), "bad-value"),
        (tampered(views=[1]), "bad-value"),
        (tampered(views=msgpack.unpackb(encode_prediction(PREDICTION))["views"] * 2), "bad-value"),
        (view_with(used=False), "bad-value"),
        (view_with(used=True, reason="late"), "bad-value"),
        (view_with(clock="sundial"), "bad-value"),
        (view_with(mean_warp_m=math.nan), "not-finite"),
        (view_with(age_ns=1.5), "bad-value"),
        (part_with("grid", cell_m=0.0), "bad-value"),
        (part_with("grid", cell_m=math.nan), "not-finite"),
        (part_with("grid", rows=3), "bad-value"),
        (part_with("grid", columns=10**6), "bad-value"),
        (part_with("density", dtype="<f4"), "bad-tensor"),
        (part_with("density", shape=[3, 2]), "bad-value"),
        (part_with("density", scale=math.inf), "not-finite"),
        (part_with("density", scale=-1.0), "bad-value"),
        (part_with("density", low=1e300), "bad-value"),
        (tampered(density={}), "missing-key"),
    ],
)
def test_what_breaks_the_format_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_prediction(data)
    assert caught.value.reason == reason


def test_what_would_be_refused_there_is_not_published_here() -> None:
    with pytest.raises(WireError, match="NaN"):
        replace(PREDICTION, density=np.full((2, 3), np.nan, "<f4"))
    with pytest.raises(WireError, match="its grid"):
        replace(PREDICTION, density=np.zeros((3, 2), "<f4"))
    with pytest.raises(WireError, match="reason"):
        ViewReport("north", False, "")


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.sampled_from(sorted(msgpack.unpackb(encode_prediction(PREDICTION)))), json_like, min_size=1
    )
)
@settings(max_examples=300)
def test_any_value_under_any_key(changes: dict[str, Any]) -> None:
    decodes_or_refuses(tampered(**changes))


@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1), st.booleans())
@settings(max_examples=300)
def test_bit_flips(flips: list[tuple[float, int]], status: bool) -> None:
    data = bytearray(encode_prediction(STATUS if status else PREDICTION))
    for where, bit in flips:
        data[int(where * len(data))] ^= 1 << bit
    decodes_or_refuses(bytes(data))


def decodes_or_refuses(data: bytes) -> None:
    try:
        message = decode_prediction(data)
    except WireError as error:
        assert error.reason in values.REASONS
    else:
        encode_prediction(message)
