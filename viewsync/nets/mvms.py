"""MVMS (Zhang & Chan, "Wide-Area Crowd Counting via Ground-Plane Density Maps and Multi-View Fusion CNNs",
CVPR 2019), the base model of the paper's counting experiments.

Every picture is seen at three scales, 1, ½ and ¼. At each place of a view the scale is chosen by how far that
place is from the camera, so that people look equally large everywhere; then features are projected onto one
plane at people's average height, laid side by side and decoded.

Which scale is chosen depends on where the camera stands, which no encoder on a camera knows: all three cross
the wire, the two coarser ones packed into further channels, and `ScaleSelection` is on the other side of it.

Shape letters: N pictures, B batch, V views (slot 0 the reference), C channels of a scale, S channels sent, H
W image, h w features (stride 4), Hg Wg ground grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from viewsync.nets.encoder import leaky_clamp
from viewsync.nets.heads import ConcatFusion, MaskedFusion
from viewsync.nets.projection import OnGround, project_columns
from viewsync.nets.scales import SCALES, packed_channels, scale_grid
from viewsync.nets.synchronisers import Columns, Synchronised, Timing

# Before anything is learned: the middle scale at so many metres, and one scale finer at twice the distance.
MIDDLE_AT_M = 20.0
# A place whose ray never meets the plane is far away.
_NEAREST_M, _FARTHEST_M = 0.5, 1000.0


class Extractor(nn.Sequential):
    """One picture at one scale (N, 3, H, W) to features (N, C, H/4, W/4): 5×5 convolutions of 16, 16, pool,
    32, C, pool (C is 32 in the paper). The same for every scale. The authors' code has local response
    normalisation after each; this has none.
    """

    def __init__(self, channels: int) -> None:
        def convolution(inputs: int, outputs: int) -> nn.Conv2d:
            layer = nn.Conv2d(inputs, outputs, 5, padding=2)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            return layer

        super().__init__(
            convolution(3, 16),
            nn.ReLU(inplace=True),
            convolution(16, 16),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            convolution(16, 32),
            nn.ReLU(inplace=True),
            convolution(32, channels),
            nn.MaxPool2d(2),
        )


class PyramidEncoder(nn.Module):
    """Pictures (N, 3, H, W) in 0..1 to all scales' features, packed: (N, S, h, w) in 0..1, not yet quantised.

    The frame is normalised by its own mean and contrast first, as `Encoder` does it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.extract = Extractor(channels)

    def forward(self, image: Tensor) -> Tensor:
        mean = image.mean(dim=(2, 3), keepdim=True)
        spread = ((image - mean) ** 2).mean(dim=(1, 2, 3), keepdim=True).sqrt()
        picture = (image - mean) / (spread + 0.02)
        sent = []
        for stride in SCALES:
            if stride > 1:
                picture = F.avg_pool2d(_filled(picture, 2), 2)
            # Scaled so that most of what comes out at the start lies between what the wire can carry.
            scale = self.extract(_filled(picture, 4)) * 0.25
            sent.append(scale.clamp(0.0, 1.0) if not self.training else leaky_clamp(scale))
        return pack(sent)


class ViewEncoders(nn.ModuleList):
    """An encoder of its own for each slot."""

    def __init__(self, channels: int, views: int) -> None:
        super().__init__(PyramidEncoder(channels) for _ in range(views))


def _filled(picture: Tensor, multiple: int) -> Tensor:
    """Rows and columns filled up to a multiple, with the last ones again."""
    rows, columns = picture.shape[-2:]
    below, beside = -rows % multiple, -columns % multiple
    return F.pad(picture, (0, beside, 0, below), mode="replicate") if below or beside else picture


def pack(scales: list[Tensor]) -> Tensor:
    """Features (N, C, ·, ·) of every scale, the finest (N, C, h, w) first, to (N, S, h, w): the values of a
    coarser one one after the other, the rest of its last channel 0.
    """
    rows, columns = scales[0].shape[-2:]
    out = [scales[0]]
    for scale in scales[1:]:
        values = scale.flatten(1)
        values = F.pad(values, (0, -values.shape[1] % (rows * columns)))
        out.append(values.unflatten(1, (-1, rows, columns)))
    return torch.cat(out, dim=1)


def unpack(sent: Tensor, channels: int) -> list[Tensor]:
    """What `pack` was given, of what it gave."""
    grid = (sent.shape[-2], sent.shape[-1])
    out, first = [], 0
    for stride in SCALES:
        rows, columns = scale_grid(grid, stride)
        last = first + packed_channels(channels, grid, stride)
        values = sent[:, first:last].flatten(1)[:, : channels * rows * columns]
        out.append(values.unflatten(1, (channels, rows, columns)))
        first = last
    return out


class ScaleSelection(nn.Module):
    """F_i = Σ_s M_s ⊙ F_i,s, with M_s = exp(−(S − s)²) over their sum and S = b + k·log₂ d, d the distance of
    a place from the camera; b and k are learned, for all views or for each slot. s = 0 is the finest scale.
    """

    needs_distance = True

    def __init__(self, channels: int, grid: tuple[int, int], views: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.grid = grid
        middle = torch.log2(torch.tensor(MIDDLE_AT_M))
        self.slope = nn.Parameter(torch.full((views,), -1.0))
        self.offset = nn.Parameter(torch.full((views,), 1.0) + middle)

    def masks(self, distance_m: Tensor) -> Tensor:
        """Distances (B, V, h, w) to shares of the scales (B, V, 3, h, w)."""
        views = slice(None) if len(self.slope) == 1 else slice(distance_m.shape[1])
        slope, offset = self.slope[views].reshape(-1, 1, 1), self.offset[views].reshape(-1, 1, 1)
        wanted = offset + slope * distance_m.clamp(_NEAREST_M, _FARTHEST_M).log2()
        scales = torch.arange(len(SCALES), dtype=wanted.dtype, device=wanted.device).reshape(-1, 1, 1)
        return torch.softmax(-(wanted.unsqueeze(2) - scales).square(), dim=2)

    def forward(self, sent: Tensor, distance_m: Tensor | None) -> Tensor:
        if distance_m is None:
            raise ValueError("mvms chooses scales by distance: it needs distance_m of every place")
        batch, views = sent.shape[:2]
        rows, columns = sent.shape[-2:]
        if (rows, columns) != self.grid:
            wanted = f"{self.grid[0]}x{self.grid[1]}"
            raise ValueError(f"the features are {rows}x{columns}, this model is for {wanted}")
        masks = self.masks(distance_m)
        total = sent[:, :, : self.channels] * 0.0
        for number, scale in enumerate(unpack(sent.flatten(0, 1), self.channels)):
            if number:
                larger = F.interpolate(
                    scale, scale_factor=float(SCALES[number]), mode="bilinear", align_corners=False
                )
                scale = larger[..., :rows, :columns]
            total = total + masks[:, :, number : number + 1] * scale.unflatten(0, (batch, views))
        return total


class PlaneProjection(nn.Module):
    """P onto one plane, number `plane` of the heights that grids have: ground features are the features of
    the pictures, at the ground grid's resolution.
    """

    times = 1

    def __init__(self, plane: int) -> None:
        super().__init__()
        self.plane = plane

    def project(self, features: Tensor, view_from_ground: Tensor, there: Tensor) -> OnGround:
        """Features (B, V, C, h, w), grids (B, V, Z, Hg, Wg, 2), there (B, V, 1, 1, 1) as 0 or 1."""
        batch, views = features.shape[:2]
        grids = view_from_ground[:, :, self.plane : self.plane + 1]
        sampled, inside = project_columns(features.flatten(0, 1), grids.flatten(0, 1))
        sampled, inside = sampled.unflatten(0, (batch, views)), inside.unflatten(0, (batch, views))
        inside = inside * there
        return OnGround(Columns(sampled, inside), sampled * there, inside[:, :, 0])

    def held(self, columns: Columns) -> Tensor:
        """Ground features (B, V, C, Hg, Wg) of columns of any views; there are no weights to hold."""
        return columns.sampled


class PlaneDecoder(nn.Module):
    """Fused features (B, ·, Hg, Wg) to people per cell (B, Hg, Wg), never negative: 5×5 convolutions of 64,
    32 and 1.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(inputs, 64, 5, padding=2), nn.ReLU(inplace=True))
        self.middle = nn.Sequential(nn.Conv2d(64, 32, 5, padding=2), nn.ReLU(inplace=True))
        self.out = nn.Conv2d(32, 1, 5, padding=2)
        nn.init.constant_(self.out.bias, -2.0)  # type: ignore[arg-type]

    def forward(self, fused: Tensor) -> Tensor:
        return F.softplus(self.out(self.middle(self.enter(fused)))).squeeze(1) * 0.02


class PyramidHead(nn.Module):
    """Fuse, then decode. views: how many there are in `concat` fusion (the paper's); 0 for `masked`."""

    def __init__(self, width: int, views: int = 0) -> None:
        super().__init__()
        self.fusion: MaskedFusion | ConcatFusion
        if views:
            self.fusion = ConcatFusion(views)
            channels = self.fusion.channels(width)
        else:
            self.fusion, channels = MaskedFusion(width), 3 * width + 3
        self.decoder = PlaneDecoder(channels)

    def forward(
        self, reference: Tensor, synchronised: Synchronised | None, looks: Tensor, timing: Timing
    ) -> Tensor:
        density: Tensor = self.decoder(self.fusion(reference, synchronised, looks, timing))
        return density
