"""`viewsync sim sweep` as people run it, on a bundle and profiles that take seconds."""

import csv
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from viewsync.cli import main

# Three cameras out of step by more than two seconds, on a link of 0.1 s.
APART = {
    "defaults": {"up": {"delay_ms": 100}, "down": {"delay_ms": 20}, "camera": {"fps": 0.25}},
    "views": {2: {"camera": {"phase_s": 1.0}}, 3: {"camera": {"phase_s": 3.2}}},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "apart.yaml").write_text(yaml.safe_dump(APART))
    return folder


def sweep(place: Path, bundle: Path, out: str, *more: str) -> Result:
    words = [
        *("sim", "sweep", "--profiles", str(place / "apart.yaml"), "--policies", "freshest,far"),
        *("--bundle", str(bundle), "--crowds", "100506:100508", "--seconds", "12"),
        *("--out", str(place / out), "--cache", str(place / "cache")),
    ]
    return CliRunner().invoke(main, [*words, *more])


@pytest.fixture(scope="module")
def swept(place: Path, tiny_bundle: Path) -> Path:
    done = sweep(place, tiny_bundle, "first")
    assert done.exit_code == 0, done.output
    assert len(re.findall(r"^tiny: (?:density|count) error, column - ", done.stdout, re.M)) == 4
    assert "gate" not in done.stdout and "within its stated uncertainty" in done.stdout
    return place / "first"


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_report_needs_no_other_file_and_its_pictures_are_pictures(swept: Path) -> None:
    page = (swept / "report.html").read_text("utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)', page) and "<script" not in page
    assert page.count("data:image/png;base64,") == 3
    for name in ("curve-tiny.png", "time-tiny-apart-far.png", "time-tiny-apart-freshest.png"):
        picture = cv2.imread(str(swept / name))
        assert picture is not None and picture.std() > 5


def test_errors_are_those_of_the_answers(swept: Path) -> None:
    answers = lines(swept / "answers.csv")
    for row in lines(swept / "summary.csv"):
        mine = [a for a in answers if (a["policy"], a["method"]) == (row["policy"], row["method"])]
        error = np.mean([abs(float(a["count"]) - float(a["truth"])) for a in mine])
        assert float(row["count_error"]) == pytest.approx(error, rel=1e-3)
        assert int(row["answers"]) == len(mine) > 8
    assert max(float(a["offset_s"]) for a in answers) > 2.0
    assert all(float(a["clock_error_s"]) <= float(a["clock_bound_s"]) for a in answers)
    points = lines(swept / "curve.csv")
    assert {float(p["offset_s"]) for p in points} >= {0.0, 2.0, 10.0}
    # Alone, the reference sees the same whatever the others do.
    for crowd in {p["crowd"] for p in points}:
        alone = [p for p in points if p["crowd"] == crowd and p["method"] == "reference-only"]
        assert len({p["squared_error"] for p in alone if p["offset_s"] == "0"}) == len(
            {p["squared_error"] for p in alone}
        )


def test_another_number_of_processes_gives_the_same_answers_and_the_gate_decides_the_exit_code(
    swept: Path, place: Path, tiny_bundle: Path
) -> None:
    kept = sorted(path.name for path in (place / "cache").iterdir())
    done = sweep(place, tiny_bundle, "second", "--workers", "1", "--no-curve", "--gate", "density,count")
    assert (place / "second/answers.csv").read_bytes() == (swept / "answers.csv").read_bytes()
    assert not (place / "second/curve.csv").exists()
    assert sorted(path.name for path in (place / "cache").iterdir()) == kept
    verdict = re.search(r"gate at offsets of 2 s and more: (passed|FAILED)", done.stdout)
    assert verdict and done.exit_code == (0 if verdict[1] == "passed" else 1)
    assert ("FAILS" in done.stdout) == (done.exit_code == 1)


def test_a_flow_that_is_no_use_cannot_be_taken_away(place: Path, tiny_bundle: Path) -> None:
    """The tiny bundle warps nothing: its `column` weighs views, and its flow is only published."""
    done = sweep(place, tiny_bundle, "never", "--flow", "zero")
    assert done.exit_code != 0
    assert "nothing but its output uses the flow" in f"{done.output} {done.exception}"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--profiles", "lte-bda"], "did you mean 'lte-bad'"),
        (["--policies", "defualt"], "did you mean 'default'"),
        (["--methods", "columns"], "it has column, none, reference-only"),
        (["--gate", "speed"], "density or places or count"),
        (["--crowds", "7"], "is not like 0:300"),
        (["--methods", "none", "--flow", "zero"], "publishes a flow"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    words: list[str], says: str, place: Path, tiny_bundle: Path
) -> None:
    done = sweep(place, tiny_bundle, "never", *words)
    assert done.exit_code != 0
    assert says in f"{done.output} {done.exception}"
    assert not (place / "never").exists()


def test_a_profile_that_starves_every_view_is_said(place: Path, tiny_bundle: Path) -> None:
    (place / "dead.yaml").write_text("defaults: {camera: {dead: [{at_s: 0}]}}\n")
    done = sweep(place, tiny_bundle, "never", "--profiles", str(place / "dead.yaml"))
    assert done.exit_code != 0 and "starves every view" in f"{done.output} {done.exception}"


def test_a_cell_is_run_live_too_and_compared(place: Path, tiny_bundle: Path) -> None:
    """Processes, sockets and clocks for half a minute. How soon programs are there and how old answers are is
    this machine's matter, and it says so; what is answered to the same frames is not.
    """
    more = ("--profiles", "lan", "--policies", "default", "--seconds", "12", "--no-curve", "--live")
    done = sweep(place, tiny_bundle, "live", *more)
    said = re.findall(
        r"^lan, default, (\S+): (.+?) \S+ live, \S+ virtual, .*: (agrees|DIFFERS)$", done.stdout, re.M
    )
    assert {method for method, _, _ in said} == {"column", "none", "reference-only"}
    assert done.exit_code == (1 if any(verdict == "DIFFERS" for *_, verdict in said) else 0)
    verdicts = {(method, figure): verdict for method, figure, verdict in said}
    for method in ("column", "none", "reference-only"):
        assert verdicts[method, "count apart on them"] == "agrees", done.stdout
        assert verdicts[method, "offset p50, s"] == "agrees", done.stdout
    answers = lines(place / "live/answers-live.csv")
    assert answers and all(float(a["clock_error_s"]) <= float(a["clock_bound_s"]) for a in answers)
    assert "Live against virtual time" in (place / "live/report.html").read_text("utf-8")
