"""Which views of a moving board are of one placement, where cameras are not synchronised.

A view counts for another camera only if the board stayed where it was for as long as the two clocks may
differ: within a tolerance in pixels, as both cameras saw it, before and after. A board that rests satisfies
that however bad the clocks are; one in the hand hardly ever does, and then its views say something of each
camera's own lens, and nothing of where cameras stand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.boards.board import Sighting
from calib.errors import CalibError
from calib.solve.refine_start import BoardView

Floats = NDArray[np.float64]

# Across a longer gap between two pictures nobody knows what the board did.
_LONGEST_GAP_S = 1.0
# The same corner of a board at rest is found this far apart in two pictures.
_JITTER_PX = 0.15
# Another placement that looks the same to a camera adds nothing.
_SAME_PX = 3.0


@dataclass(frozen=True, slots=True)
class Joined:
    """views: of shared placements and, alone, of the rest; shared: how many placements two cameras or more
    share; alone: how many views count for their own camera only.
    """

    views: tuple[BoardView, ...]
    shared: int
    alone: int


def still_interval(sightings: Sequence[Sighting], index: int, tolerance_px: float) -> tuple[float, float]:
    """From when to when the board stayed within `tolerance_px` of where sighting `index` of one camera's
    video (ordered by time) has it, seconds; between pictures it is taken to move evenly.
    """
    here = sightings[index]
    ends = []
    for step in (-1, 1):
        end, off = _time(here), 0.0
        at = index + step
        while 0 <= at < len(sightings) and abs(_time(sightings[at]) - end) <= _LONGEST_GAP_S:
            moved = max(0.0, _moved(here, sightings[at]) - _JITTER_PX)
            if moved > tolerance_px:
                share = (tolerance_px - off) / (moved - off) if moved > off else 0.0
                end += share * (_time(sightings[at]) - end)
                break
            end, off = _time(sightings[at]), moved
            at += step
        ends.append(end)
    return ends[0], ends[1]


def _time(sighting: Sighting) -> float:
    if sighting.time_s is None:
        raise CalibError(
            f"picture {sighting.name} has no time: give pictures of a video, or of boards at rest"
        )
    return sighting.time_s


def _moved(one: Sighting, other: Sighting) -> float:
    """The farthest that a common corner moved, pixels; inf without any. One of ten may be a mistake."""
    _, ours, theirs = np.intersect1d(one.ids, other.ids, return_indices=True)
    if not len(ours):
        return float("inf")
    return float(np.percentile(np.linalg.norm(one.pixels[ours] - other.pixels[theirs], axis=1), 90))


def join_sightings(
    videos: Mapping[str, Sequence[Sighting]], clock_error_s: float, tolerance_px: float = 1.0
) -> Joined:
    """Views for `refine` from videos of one board, by camera, each ordered by time.

    clock_error_s: how far two cameras' times may be apart for one moment. CalibError if a time is missing.
    """
    if not (np.isfinite(clock_error_s) and clock_error_s >= 0):
        raise CalibError(f"clock error is {clock_error_s}: give seconds, 0 or more")
    still = {
        camera: np.array([still_interval(seen, index, tolerance_px) for index in range(len(seen))]).reshape(
            -1, 2
        )
        for camera, seen in videos.items()
    }
    times = {camera: np.array([_time(sighting) for sighting in seen]) for camera, seen in videos.items()}
    groups: list[dict[str, int]] = []
    for camera, seen in videos.items():
        for index in range(len(seen)):
            group = {camera: index}
            for other in videos:
                if other != camera:
                    partner = _partner(
                        times[camera][index], still[camera][index], times[other], still[other], clock_error_s
                    )
                    if partner is not None:
                        group[other] = partner
            groups.append(group)
    # Those that tie most cameras together first; each picture once.
    groups.sort(key=lambda group: -len(group))
    used: dict[str, list[int]] = {camera: [] for camera in videos}
    views: list[BoardView] = []
    shared = alone = 0
    for number, group in enumerate(groups):
        if any(index in used[camera] for camera, index in group.items()) or all(
            any(_moved(videos[camera][index], videos[camera][old]) < _SAME_PX for old in used[camera])
            for camera, index in group.items()
        ):
            continue
        for camera, index in group.items():
            used[camera].append(index)
            sighting = videos[camera][index]
            views.append(BoardView(camera, f"board-{number}", sighting.corners, sighting.pixels))
        shared += len(group) > 1
        alone += len(group) == 1
    return Joined(tuple(views), shared, alone)


def _partner(time_s: float, still: Floats, times: Floats, others: Floats, error_s: float) -> int | None:
    """The other camera's picture nearest in time for which the board stayed, as both saw it."""
    if not len(times):
        return None
    index = int(np.argmin(np.abs(times - time_s)))
    ours = still[0] <= times[index] - error_s and times[index] + error_s <= still[1]
    theirs = others[index, 0] <= time_s - error_s and time_s + error_s <= others[index, 1]
    return index if ours and theirs else None
