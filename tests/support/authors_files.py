"""Small files in the layout of PETS2009 and CityStreet as their authors distribute them."""

from pathlib import Path

import h5py
import numpy as np

from viewsync.training.authors import AuthorsSet

FRAMES = {"pets2009": 74, "citystreet": 9}  # the least that the paper's latencies need, and some


def write(authors: AuthorsSet, root: Path) -> None:
    """Every file of the set: frame t of view v is grey 10·v + t mod 10, and t people are on the ground."""
    count = FRAMES[authors.name]
    rows, columns = authors.image
    step = np.arange(count).reshape(-1, 1, 1, 1)
    for recording in authors.recordings:
        for v, name in enumerate((*recording.views, recording.ground)):
            path = root / authors.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            of_a_view = v < len(recording.views)
            shape = (rows, columns) if of_a_view else tuple(4 * side for side in authors.map)
            with h5py.File(path, "w") as file:
                packed = {"compression": "gzip", "compression_opts": 1, "chunks": (1, *shape, 1)}
                if of_a_view:
                    grey = np.broadcast_to((10 * v + step % 10).astype(np.uint8), (count, *shape, 1))
                    file.create_dataset("images", data=grey, **packed)
                maps = np.zeros((count, *shape, 1), np.float32)
                maps[:, 40, 60] = step[:, 0, 0]
                file.create_dataset("density_maps", data=maps, **packed)
