"""`viewsync sim up` and `sim link`, really run; and nothing is left of them, however they end."""

import csv
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest
import yaml
from click.testing import CliRunner, Result

from viewsync.bundle import Bundle
from viewsync.cli import main
from viewsync.lab.link.ways import why_not
from viewsync.lab.site import remove_leftovers

CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21
PR_CAPBSET_DROP = 24
needs_namespaces = pytest.mark.skipif(bool(why_not("tun")), reason="needs root, ip and /dev/net/tun")
PATIENCE_S = 90.0


def without_rights() -> None:
    """In a child, before it becomes another program: root that may not touch the network."""
    for capability in (CAP_NET_ADMIN, CAP_SYS_ADMIN):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability)


def viewsync(*words: str) -> Result:
    """In this process: nothing that these commands do may start any other."""
    return CliRunner().invoke(main, words)


def up(bundle: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "viewsync", "sim", "up", "--bundle", str(bundle), "--seed", "1", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "waited too long"
        time.sleep(0.1)


def networks(processes: Iterable[psutil.Process]) -> set[str]:
    """Their network namespaces."""
    found = set()
    for process in processes:
        try:
            found.add(os.readlink(f"/proc/{process.pid}/ns/net"))
        except OSError:
            continue
    return found


def clocks_hold(rows: list[dict[str, str]]) -> bool:
    """Whether there are answers, and each of them knew its times as well as it said."""
    return bool(rows) and all(float(row["clock_error_s"]) <= float(row["clock_bound_s"]) for row in rows)


def folders(process: "subprocess.Popen[str]") -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"viewsync-site-{process.pid}-*"))


# --- what is wrong is said before anything starts ---------------------------------------------------------


def test_wrong_settings_are_one_line_before_anything_starts(tiny_bundle: Path, tmp_path: Path) -> None:
    before = psutil.Process().children()
    starving = tmp_path / "starving.yaml"
    starving.write_text("defaults: {up: {outages: [{at_s: 0}]}}\n")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("defaults: {up: {dealy_ms: 3}}\n")
    for name, says in (
        ("lte-bat", "did you mean 'lte-bad'"),
        (str(wrong), "did you mean 'delay_ms'"),
        (str(starving), "starves every view"),
    ):
        done = viewsync("sim", "up", "--profile", name, "--bundle", str(tiny_bundle))
        assert done.exit_code == 2 and done.stdout == ""
        assert done.stderr.count("\n") == 1 and says in done.stderr
    assert psutil.Process().children() == before


@needs_namespaces
def test_without_the_rights_for_namespaces_it_says_so_and_relays_do(tiny_bundle: Path) -> None:
    words = ("sim", "up", "--profile", "lan", "--bundle", str(tiny_bundle), "--via", "tun")
    done = subprocess.run(
        [sys.executable, "-m", "viewsync", *words], capture_output=True, text=True, preexec_fn=without_rights
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "CAP_SYS_ADMIN" in done.stderr and "here: proxy" in done.stderr


def test_a_view_that_is_not_there_cannot_be_measured() -> None:
    done = viewsync("sim", "link", "--profile", "lan", "--view", "west")
    assert done.exit_code == 2 and "north, east, south" in done.stderr


# --- a site ------------------------------------------------------------------------------------------------


def test_a_site_behind_relays_answers_and_reports(tiny_bundle: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    site = up(tiny_bundle, "--profile", "lte-good", "--via", "proxy", "--report", str(report))
    assert site.stdout is not None
    answers = [site.stdout.readline() for _ in range(5)]
    site.send_signal(signal.SIGINT)
    _, said = site.communicate(timeout=PATIENCE_S)
    assert site.returncode == 0 and "Links by way of proxy" in said, said
    assert all("truth" in line for line in answers)
    found = json.loads((report / "summary.json").read_text())
    assert found["via"] == "proxy" and found["predictions"] >= 5 and found["profile"] == "lte-good"
    rows = list(csv.DictReader((report / "answers.csv").open()))
    assert {row["method"] for row in rows} == {"column", "none", "reference-only"}
    # No answer is younger than the uplink's 35 ms.
    assert all(float(row["age_s"]) > 0.035 for row in rows)
    assert clocks_hold(rows)
    assert (report / "logs" / "hub.log").exists() and not folders(site)


@needs_namespaces
def test_nothing_is_left_of_a_site_that_is_killed_half_way(tiny_bundle: Path) -> None:
    site = up(tiny_bundle, "--profile", "lan", "--via", "tun")
    process = psutil.Process(site.pid)
    ours = networks([psutil.Process()])
    # A link, an agent and a camera for each of three views, and the hub; all in networks of their own.
    until(lambda: len(process.children()) == 10 and len(networks(process.children()) - ours) >= 4)
    children = process.children(recursive=True)
    mine = networks(children) - ours
    assert folders(site)
    site.kill()
    site.communicate(timeout=PATIENCE_S)
    assert not psutil.wait_procs(children, timeout=10)[1]
    # Nor of what a child had just started when it was killed.
    until(lambda: not networks(psutil.process_iter()) & mine)
    # The next one takes away the folder, which is all that a killed one leaves.
    remove_leftovers()
    assert not folders(site)


@needs_namespaces
def test_a_camera_dies_and_a_link_goes_down_and_both_come_back(tiny_bundle: Path, tmp_path: Path) -> None:
    """The parts of `one-camera-dying` and `outage-30s`, live, in less time; and Ctrl-C ends it all."""
    gone = {"at_s": 4, "for_s": 8}
    bad = {
        "defaults": {"camera": {"fps": 1.0}},
        "views": {
            2: {"camera": {"dead": [gone], "phase_s": 0.3}},
            3: {"up": {"outages": [gone]}, "down": {"outages": [gone]}, "camera": {"phase_s": 0.6}},
        },
    }
    profile, report = tmp_path / "bad.yaml", tmp_path / "report"
    profile.write_text(yaml.safe_dump(bad))
    _, dying, cut = Bundle.load(tiny_bundle).manifest.views
    ours = networks([psutil.Process()])
    words = ("--profile", str(profile), "--policy", "freshest", "--via", "tun", "--report", str(report))
    site = up(tiny_bundle, *words, "--seconds", "60")
    assert site.stdout is not None
    children: list[psutil.Process] = []
    mine: set[str] = set()
    alone = False
    for line in site.stdout:
        children = children or psutil.Process(site.pid).children(recursive=True)
        mine = mine or networks(children) - ours
        used = {view for view in (dying, cut) if re.search(rf"\b{view} (?:reference|[+-]\d)", line)}
        alone = alone or (not used and line.lstrip()[:1].isdigit() and float(line.split()[0]) > 9)
        if alone and len(used) == 2:
            break
    site.send_signal(signal.SIGINT)
    _, said = site.communicate(timeout=PATIENCE_S)
    assert site.returncode == 0, said
    assert not psutil.wait_procs(children, timeout=10)[1] and not folders(site)
    assert mine and not networks(psutil.process_iter()) & mine
    rows = list(csv.DictReader((report / "answers.csv").open()))
    assert clocks_hold(rows)
    # The policy takes views up to 4 s away: then what was taken before is too old, and one goes on alone.
    late = [row for row in rows if row["method"] == "column" and 9 < float(row["at_s"]) < 12]
    assert late and all(row[f"offset_{view}_s"] == "" for row in late for view in (dying, cut))
    assert json.loads((report / "summary.json").read_text())["restarts"] == {f"camera-{dying}": 1}


@needs_namespaces
def test_a_user_space_link_does_as_its_seed_foretells() -> None:
    done = viewsync(
        *("sim", "link", "--profile", "wifi-busy", "--view", "east", "--views", "north,east"),
        *("--via", "tun", "--seconds", "3", "--json"),
    )
    found = json.loads(done.stdout)
    figures = {(row["direction"], row["name"]): row for row in found["figures"]}
    for side in ("up", "down"):
        assert figures[side, "lost as the seed foretold"]["holds"]
        # Whoever is kept waiting by a busy machine is late, never early.
        assert figures[side, "its own delay, median"]["measured"] > 0
        assert figures[side, "rate"]["measured"] < 1.05 * figures[side, "rate"]["expected"]
    assert found["via"] == "tun"


def test_without_a_profile_the_profiles_are_listed() -> None:
    done = viewsync("sim", "link")
    assert done.exit_code == 0 and "outage-30s" in done.stdout and "paper-pets" in done.stdout
