"""The network of a Q-learner, for K seeds at once; all its parameters in one flat buffer.

All parameters of a network are views of one flat ``[K, D]`` buffer, so that an optimizer step, a
target update or a published copy is one operation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.layers import Flatten, GroupConv, GroupLayerNorm, GroupLinear, MapNorm, ReLU
from envs.contract import Spec

ROW = 64  # floats: rows of the flat buffer are padded to this, or the last lanes' bits would differ
SLOT = 16  # floats: each parameter begins at a multiple of this

NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Filters, size and stride of the layers of Mnih et al. 2015, for images of 36x36 and more."""
SMALL = ((16, 3, 1),)
"""Those of Young & Tian 2019, arXiv:1903.03176 (MinAtar), for smaller ones."""
SMALLEST_FOR_NATURE = 36  # pixels: less and the last layer has no place left


class QNetwork(nn.Module):
    """From observations to action values, with LayerNorm and a dueling head on request.

    Images, which have two axes (grey) or three (channels last), go through convolutions first; all
    else is a row of numbers. With ``frame_stack`` S > 1 an observation is ``[S, ...]``, the newest
    last; a stack of images is one image with S times the channels.
    """

    def __init__(
        self,
        spec: Spec,
        seeds: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool,
        dueling: bool,
        device: torch.device,
        frame_stack: int = 1,
    ) -> None:
        super().__init__()
        self.spec, self.frame_stack = spec, frame_stack
        self.num_states, self.num_actions = spec.num_states, spec.num_actions
        self.dueling = dueling
        layers: list[nn.Module] = []
        width = frame_stack * (spec.num_states or math.prod(spec.obs_shape))
        if is_image(spec):
            width = self._convolutions(layers, seeds, layer_norm, device)
        for size in hidden:
            layers.append(GroupLinear(seeds, width, size, device))
            if layer_norm:
                layers.append(GroupLayerNorm(seeds, size, device))
            layers.append(ReLU())
            width = size
        self.trunk = nn.ModuleList(layers)
        # At least two columns: of one, a batched product has other bits for a group than for a seed.
        self.head = GroupLinear(seeds, width, max(2, spec.num_actions + dueling), device)

    def _convolutions(
        self, layers: list[nn.Module], seeds: int, layer_norm: bool, device: torch.device
    ) -> int:
        """Append the layers for an image; the width of what they yield."""
        height, width, *channels = self.spec.obs_shape
        maps = self.frame_stack * math.prod(channels)
        kind = NATURE if min(height, width) >= SMALLEST_FOR_NATURE else SMALL
        scale = self.spec.obs_scale
        for filters, size, stride in kind:
            layers.append(GroupConv(seeds, maps, filters, size, stride, device, scale))
            scale = 1.0
            maps = filters
            height, width = ((side - size) // stride + 1 for side in (height, width))
            if layer_norm:
                layers.append(MapNorm(seeds, (maps, height, width), device))
            layers.append(ReLU())
        layers.append(Flatten())
        return maps * height * width

    def _channels_first(self, obs: Tensor) -> Tensor:
        """Images [K, B, (S), H, W, (C)] as [K, B, S C, H, W]."""
        if self.frame_stack == 1:
            obs = obs.unsqueeze(2)
        return obs if len(self.spec.obs_shape) == 2 else obs.movedim(-1, 3).flatten(2, 3)

    def forward(self, obs: Tensor) -> Tensor:
        """Observations [K, B, ...] to action values [K, B, A].

        The dueling head is ``V + A - mean(A)``: Wang et al. 2016, arXiv:1511.06581, equation 9.
        """
        if self.num_states:
            x = functional.one_hot(obs, self.num_states).to(torch.float32).flatten(2)
        elif is_image(self.spec):
            x = self._channels_first(obs).to(torch.float32)
        else:
            x = obs.reshape(*obs.shape[:2], -1).to(torch.float32)
            if self.spec.obs_scale != 1.0:
                x = x * self.spec.obs_scale
        for layer in self.trunk:
            x = layer(x)
        out: Tensor = self.head(x)
        if out.shape[-1] == self.num_actions:
            return out
        q, rest = out[..., : self.num_actions], out[..., self.num_actions :]
        return rest + q - q.mean(-1, keepdim=True) if self.dueling else q


def is_image(spec: Spec) -> bool:
    """Whether observations have a height and a width: the convolutions' kind, large enough for one."""
    return len(spec.obs_shape) in (2, 3) and min(spec.obs_shape[:2]) >= SMALL[0][1]


def initialise(network: nn.Module, generators: Sequence[torch.Generator]) -> None:
    """Draw all weights, layer by layer, each seed's from its own generator."""
    for module in network.modules():
        if isinstance(module, GroupLinear | GroupConv):
            module.reset(generators)


class FlatParameters:
    """A network whose parameters are views of one buffer ``flat [K, D]``."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.leaves = list(network.parameters())
        seeds = self.leaves[0].shape[0]
        sizes = [leaf[0].numel() for leaf in self.leaves]
        self.starts = [0]
        for size in sizes:
            self.starts.append(_round_up(self.starts[-1] + size, SLOT))
        width = _round_up(self.starts.pop(), ROW)
        self.flat = torch.zeros(seeds, width, device=self.leaves[0].device)
        for leaf, view in zip(self.leaves, self.views(self.flat), strict=True):
            view.copy_(leaf.data)
            leaf.data = view

    def views(self, flat: Tensor) -> list[Tensor]:
        """The parameters' places in any buffer of the same shape."""
        seeds = flat.shape[0]
        return [
            flat[:, start : start + leaf[0].numel()].view(seeds, *leaf.shape[1:])
            for start, leaf in zip(self.starts, self.leaves, strict=True)
        ]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
