"""Layers for K seeds at once: every parameter has the seeds' axis first.

One batched matrix product serves all seeds, and seed k of it has the same bits as a group of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Layer(nn.Module):
    """A layer without hooks: looking for them takes longer than a small layer does."""

    def __call__(self, x: Tensor) -> Tensor:
        """`forward`, at once."""
        y: Tensor = self.forward(x)
        return y


class GroupLinear(Layer):
    """``y[k] = x[k] W[k] + b[k]``: one linear layer a seed, in one product."""

    def __init__(self, seeds: int, inputs: int, outputs: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(seeds, inputs, outputs, device=device))
        self.bias = nn.Parameter(torch.zeros(seeds, 1, outputs, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, in] to [K, B, out]."""
        return torch.baddbmm(self.bias, x, self.weight)

    def reset(self, generators: Sequence[torch.Generator]) -> None:
        """He et al. 2015: normal with variance 2 / inputs; biases 0."""
        scale = math.sqrt(2.0 / self.weight.shape[1])
        with torch.no_grad():
            for k, generator in enumerate(generators):
                self.weight[k].normal_(0.0, scale, generator=generator)
            self.bias.zero_()


class GroupLayerNorm(Layer):
    """Layer normalisation (Ba et al. 2016) with a gain and a bias of each seed's own."""

    def __init__(self, seeds: int, width: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(seeds, 1, width, device=device))
        self.bias = nn.Parameter(torch.zeros(seeds, 1, width, device=device))
        self.width = (width,)

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, width], normalised over the last axis."""
        return torch.addcmul(self.bias, torch.layer_norm(x, self.width), self.weight)


class ReLU(Layer):
    """The positive part."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return torch.relu(x)


class GroupConv(Layer):
    """A convolution a seed, without padding.

    One call a seed: as groups of one convolution the seeds would gain nothing on a CPU, and have
    other bits than a seed alone. ``scale`` is a factor on the input, taken with the weights, of which
    there are fewer.
    """

    def __init__(
        self,
        seeds: int,
        inputs: int,
        outputs: int,
        size: int,
        stride: int,
        device: torch.device,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.stride, self.scale = stride, scale
        self.weight = nn.Parameter(torch.zeros(seeds, outputs, inputs, size, size, device=device))
        self.bias = nn.Parameter(torch.zeros(seeds, outputs, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, in, H, W] to [K, B, out, (H - size) // stride + 1, ...]."""
        weight = self.weight if self.scale == 1.0 else self.weight * self.scale
        seeds = zip(x, weight, self.bias, strict=True)
        maps = [functional.conv2d(*seed, stride=self.stride) for seed in seeds]
        return torch.stack(maps) if len(maps) > 1 else maps[0].unsqueeze(0)

    def reset(self, generators: Sequence[torch.Generator]) -> None:
        """He et al. 2015: normal with variance 2 / inputs; biases 0."""
        _, _, inputs, size, _ = self.weight.shape
        scale = math.sqrt(2.0 / (inputs * size * size))
        with torch.no_grad():
            for k, generator in enumerate(generators):
                self.weight[k].normal_(0.0, scale, generator=generator)
            self.bias.zero_()


class MapNorm(Layer):
    """Layer normalisation of feature maps: over channels and places, as over one long layer."""

    def __init__(self, seeds: int, shape: tuple[int, int, int], device: torch.device) -> None:
        super().__init__()
        self.norm = GroupLayerNorm(seeds, math.prod(shape), device)

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, C, H, W]."""
        return self.norm(x.flatten(2)).view(x.shape)


class Flatten(Layer):
    """Feature maps as one row of numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, C, H, W] to [K, B, C H W]."""
        return x.flatten(2)
