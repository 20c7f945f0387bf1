"""Camera-view encoder F: one frame to the feature map that crosses the wire (paper, Fig. 2; architecture is
ours).

Shape letters: B batch, C channels, H W image rows and columns, h w feature rows and columns (stride 4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 4


class ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, ReLU; the normalisation folds into the convolution when exported."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (size // 2)
        super().__init__(
            nn.Conv2d(inputs, outputs, size, stride, padding, dilation, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, dilation=dilation)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Encoder(nn.Module):
    """Images (B, 3, H, W) in 0..1 to features (B, C, H/4, W/4) in 0..1, not yet quantised.

    One encoder serves every view. The frame is normalised by its own mean and contrast first, because cheap
    cameras disagree about exposure and white balance.
    """

    def __init__(self, channels: int = 16, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBlock(3, 16, 5, stride=2), ConvBlock(16, width, stride=2))
        self.fine = ResidualBlock(width)
        self.down = ConvBlock(width, 2 * width, stride=2)
        self.coarse = nn.Sequential(ResidualBlock(2 * width), ResidualBlock(2 * width, dilation=2))
        self.lateral = nn.Sequential(nn.Conv2d(2 * width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.out = nn.Sequential(ConvBlock(width, width), nn.Conv2d(width, channels, 1))

    def forward(self, image: Tensor) -> Tensor:
        mean = image.mean(dim=(2, 3), keepdim=True)
        spread = ((image - mean) ** 2).mean(dim=(1, 2, 3), keepdim=True).sqrt()
        x = self.fine(self.stem((image - mean) / (spread + 0.02)))
        context = self.lateral(self.coarse(self.down(x)))
        context = F.interpolate(context, scale_factor=2.0, mode="bilinear", align_corners=False)
        if context.shape != x.shape:  # an odd number of rows or columns
            context = context[..., : x.shape[-2], : x.shape[-1]]
        x = F.relu(x + context)
        features: Tensor = self.out(x)
        return features.clamp(0.0, 1.0) if not self.training else leaky_clamp(features)


def leaky_clamp(x: Tensor) -> Tensor:
    """Clamp to 0..1 whose gradient does not die outside, so that a channel can come back."""
    clamped = x.clamp(0.0, 1.0)
    leak = 0.05 * (x - clamped)
    return clamped + leak - leak.detach()


def quantise(features: Tensor, levels: int) -> Tensor:
    """Round features in 0..1 to `levels` values as the wire does; gradients pass straight through."""
    steps = levels - 1
    rounded = torch.round(features * steps) / steps
    return features + (rounded - features).detach()
