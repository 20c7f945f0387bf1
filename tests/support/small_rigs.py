"""Small rigs with small crowds, so that what is trained over many scenes in tests takes seconds."""

from pathlib import Path

from calib.ground import GroundGrid
from viewsync.sim.rigs import Rig, crowds_of, draw_rig, save_rig_crowd

GROUND = GroundGrid(0.0, 0.0, 1.0, columns=16, rows=12)
SIZE = (96, 72)
# Of two, three and four views.
NUMBERS = (3, 2, 1)


def small_rig(number: int) -> Rig:
    return draw_rig(number, GROUND, SIZE)


def write_small_rigs(folder: Path) -> None:
    """Rigs NUMBERS with a crowd each, four frames per view."""
    for number in NUMBERS:
        save_rig_crowd(folder, small_rig(number), crowds_of(number, 1)[0], 4, 1.0)
