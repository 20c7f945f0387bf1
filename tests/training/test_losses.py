"""What the model learns from, against hand-made crowds whose partners and hidden people are known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from calib.ground import GroundGrid
from calib.scene import load_scene
from viewsync.nets.descriptors import Described
from viewsync.nets.synchronisers import ColumnSynchroniser
from viewsync.training.losses import (
    count_loss,
    density_loss,
    mark_loss,
    mark_maps,
    partner_loss,
    partner_rows,
    subcell_loss,
)
from viewsync.training.snapshots import Snapshot, density_map

GRID = GroundGrid(origin_x_m=-2.0, origin_y_m=3.0, cell_m=0.4, columns=11, rows=8)
CELLS = GRID.rows * GRID.columns


def snapshot(xy: np.ndarray, seen: np.ndarray, present: tuple[float, ...] = (1.0, 1.0)) -> Snapshot:
    """Two slots of people at xy (2, N, 2), without pictures; slot 1 is two seconds late."""
    offset = np.array([0.0, 2.0], np.float32)
    return Snapshot(
        np.zeros((2, 0, 0, 3), np.uint8),
        np.arange(2),
        np.array(present, np.float32),
        offset,
        offset,
        xy,
        seen,
    )


def crowd() -> tuple[np.ndarray, np.ndarray]:
    """0 walks and is seen twice, 1 is hidden in slot 0, 2 in slot 1, 3 leaves the grid, 4 was never on it."""
    first = np.array([[-1.0, 4.0], [0.5, 5.1], [1.1, 3.3], [2.0, 5.9], [9.0, 9.0]])
    then = first + np.array([[0.8, 0.4], [0.3, 0.0], [-0.5, 0.5], [1.0, 0.0], [0.0, 0.0]])
    seen = np.array([[True, False, True, True, True], [True, True, False, True, True]])
    return np.stack([first, then]), seen


def row_of(xy: np.ndarray) -> int:
    row, column = GRID.cell_of(xy).tolist()
    return int(row * GRID.columns + column)


def test_partner_rows_say_who_has_a_partner_where_and_who_has_none() -> None:
    xy, seen = crowd()
    rows = partner_rows([snapshot(xy, seen)], GRID, [np.random.default_rng(0)], rows=12)
    assert rows.row.shape == (2, 12) and rows.sample.tolist() == [0, 0]
    assert list(zip(rows.first.tolist(), rows.second.tolist(), strict=True)) == [(0, 1), (1, 0)]
    corner = np.array([GRID.origin_x_m, GRID.origin_y_m])
    for pair, (first, second) in enumerate([(0, 1), (1, 0)]):
        told = {int(r): (rows.matched[pair, k], rows.place[pair, k]) for k, r in enumerate(rows.row[pair])}
        flag, place = told[row_of(xy[first, 0])]
        assert flag == 1.0 and place == pytest.approx(xy[second, 0] - corner, abs=1e-5)
        # Hidden in one of the two: their cells are taught "nobody", and so is who is gone there.
        assert told[row_of(xy[first, 1])][0] == 0.0 and told[row_of(xy[first, 2])][0] == 0.0
        people = [i for i in range(5) if GRID.contains(xy[first])[i]]
        assert len(people) == (4 if first == 0 else 3)
        if first == 0:
            assert told[row_of(xy[0, 3])][0] == 0.0
        taken = {row_of(xy[first, i]) for i in people}
        for k in range(len(people), 12):  # empty ground: nobody, unless a person happens to stand there
            assert rows.matched[pair, k] == (-1.0 if int(rows.row[pair, k]) in taken else 0.0)


def test_whoever_has_left_teaches_nobody_and_spoils_no_gradient() -> None:
    xy, seen = crowd()
    xy[1, 0], seen[1, 0] = np.nan, False
    shot = snapshot(xy, seen)
    rows = partner_rows([shot], GRID, [np.random.default_rng(0)], rows=12)
    assert np.isfinite(rows.place).all()
    assert rows.matched[0, list(rows.row[0]).index(row_of(xy[0, 0]))] == 0.0
    torch.manual_seed(0)
    synchroniser = ColumnSynchroniser(channels=2, heights=2)
    descriptor = torch.randn(1, 2, 8, CELLS, requires_grad=True)
    described = Described(descriptor, torch.zeros(1, 2, CELLS), torch.ones(1, 2, CELLS))
    told = torch.tensor([[0.0, 2.0]])
    loss, _ = partner_loss(
        synchroniser, described, rows, told, torch.ones(1, 2), (GRID.rows, GRID.columns), GRID.cell_m
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert descriptor.grad is not None and torch.isfinite(descriptor.grad).all()


def test_a_batch_that_shows_no_two_views_teaches_the_matcher_nothing() -> None:
    xy, seen = crowd()
    rows = partner_rows([snapshot(xy, seen, present=(1.0, 0.0))], GRID, [np.random.default_rng(0)], rows=12)
    assert rows.row.shape == (0, 12) and rows.place.shape == (0, 12, 2)
    synchroniser = ColumnSynchroniser(channels=2, heights=2)
    descriptor = torch.randn(1, 2, 8, CELLS, requires_grad=True)
    described = Described(descriptor, torch.zeros(1, 2, CELLS), torch.ones(1, 2, CELLS))
    loss, share = partner_loss(
        synchroniser, described, rows, torch.zeros(1, 2), torch.ones(1, 2), (GRID.rows, GRID.columns), 0.4
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss == 0 and share == 0 and descriptor.grad is not None and not descriptor.grad.any()


def test_absent_views_teach_nothing() -> None:
    xy, seen = crowd()
    both = [snapshot(xy, seen), snapshot(xy, seen, present=(1.0, 0.0))]
    assert partner_rows(both, GRID, [np.random.default_rng(0)] * len(both)).sample.tolist() == [0, 0]


def planted(batch: list[Snapshot]) -> Described:
    """Everybody seen has a look of their own (unit vector i) in their cell; nobody's score is 8."""
    descriptor = torch.zeros(len(batch), 2, 16, CELLS)
    for b, shot in enumerate(batch):
        for slot in range(2):
            for i in np.flatnonzero(shot.seen[slot] & GRID.contains(shot.xy[slot])):
                descriptor[b, slot, i, row_of(shot.xy[slot, i])] = 1.0
    return Described(descriptor, torch.full((len(batch), 2, CELLS), 8.0), torch.ones(len(batch), 2, CELLS))


def test_the_right_partners_have_a_small_loss_and_wrong_ones_a_great_one() -> None:
    xy, seen = crowd()
    batch = [snapshot(xy, seen)]
    rows = partner_rows(batch, GRID, [np.random.default_rng(0)] * len(batch), rows=12)
    synchroniser = ColumnSynchroniser(channels=1, heights=1)
    with torch.no_grad():
        synchroniser.matcher.log_scale.fill_(float(np.log(14.0)))
    offset, known = torch.tensor([[0.0, 2.0]]), torch.ones(1, 2)

    def loss(described: Described) -> tuple[float, float]:
        value, share = partner_loss(
            synchroniser, described, rows, offset, known, (GRID.rows, GRID.columns), GRID.cell_m
        )
        return value.item(), share.item()

    right = planted(batch)
    good, found = loss(right)
    swapped = right.descriptor.clone()
    swapped[:, 1] = swapped[:, 1].roll(1, dims=1)  # everybody looks like somebody else
    bad, lost = loss(Described(swapped, right.nobody, right.inside))
    assert found == 1.0 and lost < 1.0
    assert good < 1.0 < bad
    # "Nobody" everywhere is right for most rows, and wrong for those with a partner.
    resigned, _ = loss(Described(right.descriptor, right.nobody + 20.0, right.inside))
    assert good < resigned


def test_gradients_reach_descriptors_and_the_prior() -> None:
    xy, seen = crowd()
    batch = [snapshot(xy, seen)]
    rows = partner_rows(batch, GRID, [np.random.default_rng(0)] * len(batch), rows=12)
    synchroniser = ColumnSynchroniser(channels=1, heights=1)
    described = planted(batch)
    described.descriptor.requires_grad_()
    value, _ = partner_loss(
        synchroniser, described, rows, torch.tensor([[0.0, 2.0]]), torch.ones(1, 2), (8, 11), GRID.cell_m
    )
    value.backward()  # type: ignore[no-untyped-call]
    assert described.descriptor.grad.abs().sum() > 0
    assert synchroniser.matcher.log_sigma.grad[:2].abs().min() > 0  # walk and spread; the offset was known
    assert synchroniser.matcher.log_sigma.grad[2] == 0


def test_marks_are_on_heads_and_feet_of_whoever_is_seen(small_scene: Path) -> None:
    scene = load_scene(small_scene)
    cameras = [camera.undistorted() for camera in scene.cameras.values()]
    people = np.array([[3.0, 2.0], [5.0, 4.0]])
    shot = Snapshot(
        np.zeros((2, 0, 0, 3), np.uint8),
        np.array([2, 0]),
        np.ones(2, np.float32),
        np.zeros(2, np.float32),
        np.zeros(2, np.float32),
        np.stack([people, people]),
        np.array([[True, False], [True, True]]),
    )
    maps = mark_maps(shot, cameras, (18, 24), 4)
    assert maps.shape == (2, 2, 18, 24)
    for slot, seen in ((0, [0]), (1, [0, 1])):
        camera = cameras[int(shot.view[slot])]
        for part, z in enumerate((1.62, 0.05)):
            for person in seen:
                x, y = camera.project(np.array([*people[person], z]))
                # The feature cell whose four pixels hold the point: pixel centres are whole numbers.
                column, row = int((x + 0.5) // 4), int((y + 0.5) // 4)
                assert maps[slot, part, row, column] > 0.75
            assert maps[slot, part].max() <= 1.0
    hidden = cameras[2].project(np.array([*people[1], 1.62]))
    assert maps[0, 0, int((hidden[1] + 0.5) // 4), int((hidden[0] + 0.5) // 4)] < 0.5


def test_mark_loss_is_least_for_the_truth() -> None:
    target = torch.zeros(1, 1, 8, 9)
    target[0, 0, 3, 4] = 1.0
    right = torch.where(target > 0.5, 6.0, -6.0)
    nothing, everything = torch.full_like(target, -6.0), torch.full_like(target, 6.0)
    assert mark_loss(right, target) < 0.01 < 1.0 < mark_loss(nothing, target)
    assert mark_loss(everything, target) > 10.0


def test_density_and_count_losses_against_hand_computed_values() -> None:
    target = torch.zeros(1, 2, 2)
    target[0, 0, 0] = 5.0
    predicted = target.clone()
    predicted[0, 1, 1] = 0.02
    assert density_loss(predicted, target).item() == pytest.approx((50 * 0.02) ** 2 / 4, rel=1e-5)
    assert count_loss(predicted, target).item() == pytest.approx(0.02 / 3.0, rel=1e-5)  # √(5 + 4)


def test_a_density_map_sums_to_the_people_on_the_grid() -> None:
    xy, _ = crowd()
    corners = [[-2.0 + 1e-6, 3.0 + 1e-6], [-2.0 + 11 * 0.4 - 1e-6, 3.0 + 8 * 0.4 - 1e-6]]
    everybody = np.concatenate([xy[0], corners])  # those at the very edge count whole
    density = density_map(everybody, GRID)
    assert density.shape == (8, 11) and density.sum() == pytest.approx(6.0, abs=1e-5)
    row, column = np.unravel_index(density_map(xy[0, 2:3], GRID).argmax(), density.shape)
    assert (row, column) == tuple(GRID.cell_of(xy[0, 2]))
    assert density_map(np.zeros((0, 2)), GRID).sum() == 0
    absent = np.array([[np.nan, np.nan], [0.0, 4.0]])  # whoever is not there at that instant
    assert density_map(absent, GRID).sum() == pytest.approx(1.0, abs=1e-5)


def test_cells_around_people_tell_where_they_stand_and_others_nothing() -> None:
    xy, seen = crowd()
    shot = snapshot(xy, seen)
    cells = GRID.centres().reshape(-1, 2)
    shift = torch.zeros(1, 2, CELLS, 2)
    for v in (0, 1):
        people = xy[v][seen[v] & GRID.contains(xy[v])]
        away = people[None] - cells[:, None]
        nearest = np.linalg.norm(away, axis=2).argmin(axis=1)
        shift[0, v] = torch.from_numpy(away[np.arange(CELLS), nearest]).float()
    loss, lessons = subcell_loss(shift, [shot], GRID)
    near = sum(int((shift[0, v].norm(dim=1) <= 0.6).sum()) for v in (0, 1))
    assert loss < 1e-6 and int(lessons) == near > 20
    # Wrong by 0.1 m both ways is 0.2 m; cells far from everybody, and of absent views, are asked nothing.
    shift.requires_grad_()
    loss, _ = subcell_loss(shift + 0.1, [shot], GRID)
    assert loss.item() == pytest.approx(0.2, abs=1e-5)
    loss.backward()
    assert shift.grad is not None
    asked = shift.grad.abs().sum(dim=3) > 0
    assert int(asked.sum()) == near and bool((shift.detach().norm(dim=3)[asked] <= 0.6).all())
    _, lessons = subcell_loss(shift.detach(), [snapshot(xy, seen, (1.0, 0.0))], GRID)
    assert int(lessons) == int((shift[0, 0].norm(dim=1) <= 0.6).sum())
    nobody = snapshot(xy, np.zeros_like(seen))
    loss, lessons = subcell_loss(shift.detach(), [nobody], GRID)
    assert loss == 0 and lessons == 0
