"""Between a fresh clone and its two commands: the search for Python, and CI's rule about skips."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIND = ROOT / "scripts" / "find-python"

# A Python that says what it is told: `-c` programs are known by what they import.
FAKE = """#!/bin/sh
case "$2" in
    *ensurepip*) exit {venv} ;;
    *print*) echo {version} ;;
    *version_info*) exit {old} ;;
esac
"""


@pytest.fixture
def find(tmp_path: Path):
    """Run find-python where only the given fakes (and a package manager, if named) are installed."""

    def find(fakes: dict[str, str], *args: str, manager: str = "apt-get") -> subprocess.CompletedProcess[str]:
        if manager:
            fakes = {**fakes, manager: "#!/bin/sh\n"}
        for name, text in fakes.items():
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        shell = shutil.which("sh")
        assert shell
        return subprocess.run(
            [shell, str(FIND), *args],
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )

    return find


def fake(version: str, venv: bool = True) -> str:
    old = tuple(map(int, version.split("."))) < (3, 11)
    return FAKE.format(version=version, venv=int(not venv), old=int(old))


BROKEN_SHIM = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"


def test_the_newest_python_that_runs_is_taken(find, tmp_path: Path) -> None:
    fakes = {
        "python3.13": BROKEN_SHIM,
        "python3.12": fake("3.12"),
        "python3.11": fake("3.11"),
        "python3": fake("3.9"),
    }
    assert find(fakes).stdout == f"{tmp_path}/python3.12\n"
    assert find(fakes, str(tmp_path / "python3.11")).stdout == f"{tmp_path}/python3.11\n"


def test_one_that_can_make_an_environment_is_better_than_a_newer_one(find, tmp_path: Path) -> None:
    fakes = {"python3.13": fake("3.13", venv=False), "python3": fake("3.11")}
    assert find(fakes).stdout == f"{tmp_path}/python3\n"


@pytest.mark.parametrize(
    ("fakes", "says"),
    [
        (
            {"python3": fake("3.11", venv=False)},
            "lacks its venv module or pip; run: apt-get install python3.11-venv",
        ),
        (
            {"python3": fake("3.9"), "apt-cache": "#!/bin/sh\nexit 100\n"},
            "found python3 (3.9); run: pyenv install",
        ),
        (
            {"apt-cache": "#!/bin/sh\n"},
            "found none that runs; run: apt-get install python3.14 python3.14-venv",
        ),
    ],
)
def test_what_is_missing_is_one_line_with_the_command_that_brings_it(
    find, fakes: dict[str, str], says: str
) -> None:
    result = find(fakes)
    assert result.returncode == 2
    assert result.stdout == ""
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def run_tests(folder: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "VIEWSYNC_DATA")}
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
    ]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *args, str(folder)],
        env={**kept, **environ},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A folder of tests under this project's conftest, with skips of three kinds."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "allowed-skips.txt").write_text("# agreed\ntest_it.py::test_gpu*: no GPU in CI\n")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_works(): pass\n"
        "def test_gpu(): pytest.skip('no GPU')\n"
        "def test_data(): pytest.skip('needs VIEWSYNC_DATA')\n"
    )
    return tmp_path


def test_a_run_ends_with_its_skips_and_ci_agrees_to_the_listed(suite: Path) -> None:
    result = run_tests(suite, CI="true")
    assert result.returncode == 0
    assert "2 skipped" in result.stdout
    assert "test_it.py::test_gpu: no GPU" in result.stdout


@pytest.mark.parametrize("args", [(), ("-n", "2")], ids=["one-process", "two-processes"])
def test_ci_fails_on_a_skip_that_nobody_agreed_to(suite: Path, args: tuple[str, ...]) -> None:
    # With the data there, a test that needs it has no excuse.
    with_data = run_tests(suite, *args, CI="true", VIEWSYNC_DATA=str(suite))
    assert with_data.returncode == 1
    assert "NOT IN allowed-skips.txt: test_it.py::test_data" in with_data.stdout
    assert run_tests(suite, *args, VIEWSYNC_DATA=str(suite)).returncode == 0
    (suite / "test_module.py").write_text(
        "import pytest\npytest.skip('not today', allow_module_level=True)\n"
    )
    assert run_tests(suite, *args, CI="true").returncode == 1
    assert run_tests(suite, *args).returncode == 0
