"""netem's words: tc itself reads them, with or without a kernel that has netem."""

import shutil
import socket
import subprocess

import pytest

from viewsync.lab.link.namespaces import Namespace, veth
from viewsync.lab.link.netem import changes, rule
from viewsync.lab.link.ways import why_not
from viewsync.lab.profile import Direction, Period, load_profile, names

pytestmark = pytest.mark.skipif(shutil.which("tc") is None, reason="needs tc (Debian: iproute2)")


def tc(words: list[str]) -> str:
    """What tc says of a rule for a device that is not there: it reads the words first."""
    done = subprocess.run(
        ["tc", "qdisc", "add", "dev", "viewsync-none", "root", *words], capture_output=True, text=True
    )
    return done.stderr


@pytest.mark.parametrize("name", names())
def test_tc_understands_every_profile(name: str) -> None:
    for section in load_profile(name).of_views(("north", "east", "south")).values():
        for direction in (section.up, section.down):
            for out in (False, True):
                assert 'Cannot find device "viewsync-none"' in tc(rule(direction, out))


def test_tc_does_not_understand_everything() -> None:
    # Else the test above could not fail.
    assert "Cannot find device" not in tc(["netem", "limit", "9", "delay", "fast"])
    assert "Cannot find device" not in tc([*rule(Direction(delay_ms=3), False), "jitter", "3ms"])


def test_rules_say_what_the_profile_says() -> None:
    direction = Direction(
        delay_ms=150,
        jitter_ms=60,
        jitter_distribution="pareto",
        loss=0.03,
        loss_burst_packets=3,
        rate_kbit_s=800,
        queue_packets=100,
        reorder=0.01,
    )
    words = " ".join(rule(direction, False))
    assert "delay 150.000000ms 60.000000ms distribution pareto" in words and "limit 100" in words
    # In the bad state 3 packets on average; then 3 % are lost where p / (p + 1/3) = 0.03.
    assert "loss gemodel 1.030928% 33.333333% 100.000000% 0.000000%" in words
    assert "reorder 1.000000%" in words and "rate 800kbit -14" in words
    assert "loss 100%" in " ".join(rule(direction, True)) and "gemodel" not in rule(direction, True)


def test_outages_become_changes_in_order() -> None:
    direction = Direction(
        outages=(Period(at_s=40, for_s=30), Period(at_s=10, for_s=5), Period(at_s=60, for_s=20))
    )
    assert list(changes(direction)) == [(10, True), (15, False), (40, True), (80, False)]
    assert list(changes(Direction(outages=(Period(at_s=0, for_s=5), Period(at_s=9))))) == [
        (5, False),
        (9, True),
    ]


@pytest.mark.skipif(bool(why_not("tun")), reason="needs root, ip and /dev/net/tun")
def test_nobody_asks_over_the_link_where_the_other_end_is() -> None:
    """On a link of 0.3 s each way the question and its answer made the first half second's packets late."""
    near, far = Namespace(), Namespace()
    try:
        veth(near, "hub", "10.77.1.2", far, "view1", "10.77.1.1")
        with far.run(lambda: socket.create_server(("10.77.1.1", 5555))):
            near.run(lambda: socket.create_connection(("10.77.1.1", 5555), timeout=10)).close()
        for end, device in ((near, "hub"), (far, "view1")):
            words = ["ip", "-statistics", "neighbour", "show", "dev", device]
            known = end.run(lambda words=words: subprocess.run(words, capture_output=True, text=True)).stdout  # type: ignore[misc]
            assert "PERMANENT" in known and "10.77.1." in known
    finally:
        near.close()
        far.close()


@pytest.mark.skipif(bool(why_not("netem")), reason="needs a kernel with netem, and root")
def test_netem_itself_is_as_the_profile_says() -> None:
    from threading import Event

    from viewsync.lab.link.probing import measure

    found = measure("lte-good", ("north",), ("north",), "netem", 6.0, Event())
    assert [figure for side in found["north"].values() for figure in side if not figure.holds] == []
