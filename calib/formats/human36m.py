"""Human3.6M: JSON with `intrinsics` by camera and `extrinsics` by subject and camera; mm, z up.

Layout: github.com/karfly/human36m-camera-parameters; x_camera = R x_world + t; distortion k1, k2, p1, p2, k3.
The cameras were moved between subjects, so one subject is one rig. Image sizes are not in the file: they are
the data set's own (Ionescu et al., "Human3.6M", PAMI 2014), 1000×1002 or 1000×1000.
"""

from collections.abc import Sequence

from calib.errors import CalibError
from calib.formats.foreign import UNITS_M, Foreign, ForeignCamera, Wishes
from calib.formats.source import NotThis, Source, entry, numbers, shared_place

_SIZES = {
    "54138969": (1000, 1002),
    "55011271": (1000, 1000),
    "58860488": (1000, 1000),
    "60457274": (1000, 1002),
}


def read(sources: Sequence[Source], wishes: Wishes) -> Foreign:
    """One file; `Wishes.which` is the subject, needed where there are several."""
    if len(sources) != 1:
        raise NotThis("one file has all cameras")
    (source,) = sources
    document = source.json()
    if not isinstance(document, dict) or not {"intrinsics", "extrinsics"} <= document.keys():
        raise NotThis("no intrinsics and extrinsics")
    subjects = document["extrinsics"]
    if not isinstance(subjects, dict) or not subjects:
        raise CalibError(f"{source}: extrinsics holds no subjects: get the whole file")
    subject = (
        wishes.which if wishes.which is not None else next(iter(subjects)) if len(subjects) == 1 else None
    )
    if subject not in subjects:
        problem = (
            "the cameras stand elsewhere for each subject" if subject is None else f"has no subject {subject}"
        )
        raise CalibError(f"{source}: {problem}: choose one with --which: {', '.join(subjects)}")
    extrinsics = subjects[subject]
    if not isinstance(extrinsics, dict):
        raise CalibError(f"{source}: extrinsics.{subject} is no table of cameras: get the whole file")
    cameras = []
    for name, pose in extrinsics.items():
        place = f"{source}: camera {name}"
        lens = entry(f"{source}: intrinsics", document["intrinsics"], name)
        cameras.append(
            ForeignCamera(
                name,
                numbers(f"{place}: calibration_matrix", entry(place, lens, "calibration_matrix"), 3, 3),
                numbers(f"{place}: R of {subject}", entry(place, pose, "R"), 3, 3),
                numbers(f"{place}: t of {subject}", entry(place, pose, "t"), 3),
                numbers(f"{place}: distortion", entry(place, lens, "distortion"), 5),
                wishes.size or _SIZES.get(name),
            )
        )
    notes = [f"subject: {subject}, of {', '.join(subjects)}"]
    if wishes.size is None:
        notes.append("image size: not in the file; the data set's own")
    return Foreign(shared_place(sources), cameras, UNITS_M["mm"], "z", notes=tuple(notes))
