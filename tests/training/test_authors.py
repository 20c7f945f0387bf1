"""PETS2009 and CityStreet as their authors distribute them, on small files written in their layout."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from viewsync.cli import main
from viewsync.errors import UserError
from viewsync.training.authors import AUTHORS, AuthorsFrames, AuthorsSet, coarser, problems

FRAMES = {"citystreet": 9}


@pytest.fixture(scope="module")
def write(support: Callable[[str], ModuleType]) -> Callable[[AuthorsSet, Path], None]:
    return support("authors_files").write  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory, write: Callable[[AuthorsSet, Path], None]) -> Path:
    root = tmp_path_factory.mktemp("authors")
    write(AUTHORS["citystreet"], root)
    return root


def test_a_whole_set_is_said_to_be_whole(street: Path) -> None:
    done = CliRunner().invoke(main, ["data", "check", "citystreet", str(street)])
    assert done.exit_code == 0 and "is whole, 8 files" in done.output


def test_random_latency_is_within_kappa_and_labels_are_the_references(street: Path) -> None:
    shots = list(AuthorsFrames(AUTHORS["citystreet"], street, "train").unsynchronised(kappa_s=3.0, seed=5))
    assert len(shots) == FRAMES["citystreet"] - 2 * 3
    for number, shot in enumerate(shots):
        frame = number + 3
        assert shot.images.shape == (3, 380, 676) and shot.density.shape == (192, 160)
        assert shot.density.sum() == pytest.approx(frame) and shot.density[10, 15] == pytest.approx(frame)
        assert shot.offset_s[0] == 0 and (np.abs(shot.offset_s) <= 3.0).all()
        for v in range(3):  # the frame that the offset says, 1 per second
            assert (shot.images[v] == 10 * v + (frame + round(float(shot.offset_s[v]))) % 10).all()
    assert len({tuple(shot.offset_s) for shot in shots}) > 1
    again = AuthorsFrames(AUTHORS["citystreet"], street, "train").unsynchronised(kappa_s=3.0, seed=5)
    assert [tuple(s.offset_s) for s in again] == [tuple(s.offset_s) for s in shots]


def test_constant_latency_is_the_papers(street: Path) -> None:
    authors = AUTHORS["citystreet"]
    shots = list(AuthorsFrames(authors, street, "test").unsynchronised(tau_s=authors.tau_s))
    assert {tuple(shot.offset_s) for shot in shots} == {(0.0, 3.0, -3.0)}
    assert (shots[0].images[:, 0, 0] == [3, 16, 20]).all()


def test_too_short_a_recording_is_one_line(street: Path) -> None:
    frames = AuthorsFrames(AUTHORS["citystreet"], street, "test")
    with pytest.raises(UserError, match="street-test has 9 frames at 1 per second, too few for"):
        next(frames.unsynchronised(kappa_s=5.0))


def test_every_way_to_be_wrong_names_its_file_and_where_to_get_it(
    tmp_path: Path, write: Callable[[AuthorsSet, Path], None]
) -> None:
    authors = AUTHORS["citystreet"]
    write(authors, tmp_path)
    base = tmp_path / "Street"
    (base / "dmaps/train/Street_view2_dmap_10.h5").unlink()
    cut = base / "dmaps/test/Street_view1_dmap_10.h5"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with h5py.File(base / "dmaps/test/Street_view2_dmap_10.h5", "a") as file:
        del file["images"]
    with h5py.File(base / "dmaps/test/Street_view3_dmap_10.h5", "a") as file:
        shorter = {key: file[key][:-2] for key in ("images", "density_maps")}
        for key, values in shorter.items():
            del file[key]
            file[key] = values
    with h5py.File(base / "GP_dmaps/train/Street_groundplane_train_dmaps_10.h5", "a") as file:
        del file["density_maps"]
        file["density_maps"] = np.zeros((9, 600, 640, 1), np.float32)
    said = problems(authors, tmp_path)
    assert len(said) == 5
    for name, what in {
        "train/Street_view2_dmap_10.h5": "is missing",
        "test/Street_view1_dmap_10.h5": "is no whole HDF5 file",
        "test/Street_view2_dmap_10.h5": "has no images; it has density_maps",
        "Street_groundplane_train_dmaps_10.h5": "maps are 160x150 cells, not 160x192",
        "Street: street-test": "differ in their number of frames",
    }.items():
        assert any(name in line and what in line for line in said), (name, said)
    done = CliRunner().invoke(main, ["data", "check", "citystreet", str(tmp_path)])
    assert done.exit_code == 2 and "5 things are wrong" in done.output and "15 GB" in done.output
    with pytest.raises(UserError, match=r"\(and 4 more\); the authors' download"):
        AuthorsFrames(authors, tmp_path, "train")


def test_pets2009_has_the_papers_sequences_and_sizes(tmp_path: Path) -> None:
    authors = AUTHORS["pets2009"]
    found = problems(authors, tmp_path)
    assert len(found) == 8 * 4 and all("is missing" in line for line in found)
    # Frames of the recordings less 5 s at both ends are the paper's 825 and 514.
    assert {r.use: sum(o.use == r.use for o in authors.recordings) for r in authors.recordings} == {
        "train": 4,
        "test": 4,
    }
    assert authors.map == (177, 152) and authors.image == (288, 384)


def test_coarser_maps_keep_every_person() -> None:
    rng = np.random.default_rng(0)
    for shape, blocks in (((708, 608), (177, 152)), ((710, 610), (177, 152)), ((768, 640), (192, 160))):
        fine = rng.random(shape)
        found = coarser(fine)
        assert found.shape == blocks and found.sum() == pytest.approx(fine.sum(), rel=1e-5)
        assert found[0, 1] == pytest.approx(fine[:4, 4:8].sum(), rel=1e-5)
