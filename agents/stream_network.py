"""The network of a streaming learner, for K seeds at once: sparse at the start, normalised throughout.

Elsayed et al. 2024, arXiv:2410.14606: LayerNorm without gain and bias before every LeakyReLU, and most
weights 0 at the start (SparseInit).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.layers import Flatten, GroupConv, GroupLinear, Layer
from agents.networks import NATURE, SMALL, SMALLEST_FOR_NATURE, is_image
from envs.contract import Spec


class Normalised(Layer):
    """Layer normalisation (Ba et al. 2016) over all of an observation's numbers, then LeakyReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, width], or feature maps [K, B, C, H, W]."""
        return functional.leaky_relu(torch.layer_norm(x, x.shape[2:]))


class StreamNetwork(nn.Module):
    """From observations to action values, through convolutions first where they are images."""

    def __init__(self, spec: Spec, seeds: int, hidden: Sequence[int], device: torch.device) -> None:
        """Parameters are zeros until `sparse_initialise`."""
        super().__init__()
        self.spec = spec
        layers: list[nn.Module] = []
        width = spec.num_states or math.prod(spec.obs_shape)
        if is_image(spec):
            height, breadth, *channels = spec.obs_shape
            maps = math.prod(channels)
            kind = NATURE if min(height, breadth) >= SMALLEST_FOR_NATURE else SMALL
            for filters, size, stride in kind:
                layers += [GroupConv(seeds, maps, filters, size, stride, device), Normalised()]
                maps = filters
                height, breadth = ((side - size) // stride + 1 for side in (height, breadth))
            layers.append(Flatten())
            width = maps * height * breadth
        for size in hidden:
            layers += [GroupLinear(seeds, width, size, device), Normalised()]
            width = size
        self.trunk = nn.ModuleList(layers)
        # At least two columns: of one, a batched product has other bits for a group than for a seed.
        self.head = GroupLinear(seeds, width, max(2, spec.num_actions), device)

    def forward(self, obs: Tensor) -> Tensor:
        """Observations [K, B, ...] to action values [K, B, A]."""
        x = self._input(obs)
        for layer in self.trunk:
            x = layer(x)
        q: Tensor = self.head(x)[..., : self.spec.num_actions]
        return q

    def activations(self, obs: Tensor) -> list[Tensor]:
        """What every LeakyReLU gives for observations [K, B, ...]: [K, B, units, ...] each."""
        x, found = self._input(obs), []
        for layer in self.trunk:
            x = layer(x)
            if isinstance(layer, Normalised):
                found.append(x)
        return found

    def _input(self, obs: Tensor) -> Tensor:
        if self.spec.num_states:
            return functional.one_hot(obs, self.spec.num_states).to(torch.float32).flatten(2)
        if not is_image(self.spec):
            return obs.reshape(*obs.shape[:2], -1)
        return obs.unsqueeze(2) if len(self.spec.obs_shape) == 2 else obs.movedim(-1, 2)


def sparse_initialise(
    network: nn.Module, generators: Sequence[torch.Generator], sparsity: float
) -> None:
    """Draw all weights, layer by layer, each seed's from its own generator; biases are 0.

    Uniform within 1/√inputs, then ``⌈sparsity · inputs⌉`` of every unit's inputs, chosen at random, are 0
    (a filter's inputs are those of all its places and maps).
    """
    for layer in network.modules():
        if isinstance(layer, GroupLinear | GroupConv):
            for weight, generator in zip(layer.weight, generators, strict=True):
                _draw(weight.data, generator, sparsity, isinstance(layer, GroupConv))
            layer.bias.data.zero_()


def _draw(weight: Tensor, generator: torch.Generator, sparsity: float, convolution: bool) -> None:
    """One seed's weights of one layer: [in, out], or [out, in, size, size] of a convolution."""
    by_unit = weight.flatten(1) if convolution else weight.t()
    units, inputs = by_unit.shape
    bound = 1.0 / math.sqrt(inputs)
    drawn = torch.empty(units, inputs, device=weight.device)
    drawn.uniform_(-bound, bound, generator=generator)
    order = torch.rand(units, inputs, generator=generator, device=weight.device).argsort(-1)
    drawn.scatter_(-1, order[:, : math.ceil(sparsity * inputs)], 0.0)
    by_unit.copy_(drawn)
