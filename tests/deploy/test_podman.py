"""The site in containers, where this machine can: brought up, a camera and the hub killed, taken down."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lacking() -> str:
    """What keeps containers from running here; "" where nothing does."""
    if os.geteuid():
        return "root"
    missing = [program for program in ("podman", "runc", "catatonit") if shutil.which(program) is None]
    return ", ".join(missing)


# The images may have to be made first, and the base of them too.
@pytest.mark.timeout(3600)
@pytest.mark.skipif(bool(lacking()), reason=f"the site was NOT run in containers: there is no {lacking()}")
def test_the_site_in_containers_survives_the_death_of_a_camera_and_of_the_hub(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "deploy" / "try-podman", "--seconds", "30", "--out", tmp_path],
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for what in ("answers go on without east", "east is back", "left behind: no container"):
        assert what in said
    assert "NOT" not in done.stdout
    assert (tmp_path / "log.txt").read_text().count("truth ") > 5
