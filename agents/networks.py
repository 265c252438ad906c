"""The network of a Q-learner, for K seeds at once; all its parameters in one flat buffer.

All parameters of a network are views of one flat ``[K, D]`` buffer, so that an optimizer step, a
target update or a published copy is one operation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.layers import (
    NO_NOISE,
    CosineEmbedding,
    Dropout,
    Flatten,
    GroupConv,
    GroupLayerNorm,
    GroupLinear,
    MapNorm,
    NarrowLinear,
    NoisyLinear,
    ReLU,
    Unhooked,
)
from agents.memory import GroupAttention, GroupLSTM, Memory
from agents.rules.distributional import midpoints
from envs.contract import Spec

ROW = 64  # floats: rows of the flat buffer are padded to this, or the last lanes' bits would differ
SLOT = 16  # floats: each parameter begins at a multiple of this

NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Filters, size and stride of the layers of Mnih et al. 2015, for images of 36x36 and more."""
SMALL = ((16, 3, 1),)
"""Those of Young & Tian 2019, arXiv:1903.03176 (MinAtar), for smaller ones."""
LOOKED_UP = 64  # states: with so many looking a row up is faster than multiplying by zeros
SMALLEST_FOR_NATURE = 36  # pixels: less and the last layer has no place left


class QNetwork(Unhooked):
    """From observations to what a head makes action values of.

    Images, which have two axes (grey) or three (channels last), go through convolutions first; all
    else is a row of numbers. With ``frame_stack`` S > 1 an observation is ``[S, ...]``, the newest
    last; a stack of images is one image with S times the channels.

    A network with a memory takes sequences: ``decode(remember(...))``; one without takes observations
    one by one: itself, which is ``decode(encode(...))``.
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
        outputs: int = 0,
        implicit: bool = False,
        noisy_sigma: float = 0.0,
        dropout: float = 0.0,
        memory: str = "none",
        memory_size: int = 64,
        context: int = 1,
        bf16: bool = False,
    ) -> None:
        """Parameters are zeros until `initialise`.

        Args:
            spec: of one lane.
            seeds: K.
            hidden: widths of the hidden layers, behind the convolutions where there are any.
            layer_norm: LayerNorm behind every layer before its ReLU.
            dueling: a value and advantages (Wang et al. 2016).
            device: of the parameters.
            frame_stack: S.
            outputs: Z, numbers for each action; 0 is one, without an axis of its own.
            implicit: the Z numbers are quantiles at fractions that are given (IQN).
            noisy_sigma: σ₀ of noise in all linear layers; 0: none.
            dropout: share of hidden numbers that are dropped where a mask is given.
            memory: "none", "lstm" or "attention", behind the hidden layers (IQN: before the last).
            memory_size: its width.
            context: newest steps that attention looks at.
            bf16: convolutions, and the linear layer behind them, compute in bfloat16, beside a CPU all hidden
                ones; noisy ones and the last never do, and parameters are float32.
        """
        super().__init__()
        self.spec, self.frame_stack, self.images = spec, frame_stack, is_image(spec)
        self.num_states, self.num_actions = spec.num_states, spec.num_actions
        self.dueling, self.outputs = dueling, outputs
        self.seeds, self.device, self.noisy_sigma = seeds, device, noisy_sigma
        # products of matrices are what a GPU does many times faster then; a core gains by large ones alone
        everywhere = bf16 and device.type != "cpu"
        self.bf16 = bf16 and (is_image(spec) or everywhere)
        layers: list[nn.Module] = []
        width = frame_stack * (spec.num_states or math.prod(spec.obs_shape))
        if is_image(spec):
            width = self._convolutions(layers, seeds, layer_norm, device)
        # IQN's fractions come in before the last hidden layer, where features come before that
        before = len(hidden) > 1 or (len(hidden) == 1 and is_image(spec))
        joined = len(hidden) - before if implicit else -1
        behind: list[nn.Module] = []
        self.embedding: CosineEmbedding | None = None
        self.memory: GroupLSTM | GroupAttention | None = None
        now = layers
        for i, size in enumerate([*hidden, 0]):
            if i == (joined if implicit else len(hidden)) and memory != "none":
                self.memory = self._memory(memory, width, memory_size, context)
                width = memory_size
            if i == joined:
                self.embedding, now = CosineEmbedding(seeds, width, device), behind
            if not size:
                break
            now.append(
                self._linear(width, size, f"hidden{i}", everywhere or (self.bf16 and i == 0))
            )
            if layer_norm:
                now.append(GroupLayerNorm(seeds, size, device))
            now.append(ReLU())
            if dropout:
                now.append(Dropout(f"dropout{i}", size, dropout))
            width = size
        # a stack of states has several ones in its row, and noise is of every input
        looked_up = bool(layers) and isinstance(layers[0], GroupLinear) and frame_stack == 1
        self.looks_up = looked_up and self.num_states >= LOOKED_UP
        self.trunk, self.behind = nn.ModuleList(layers), nn.ModuleList(behind)
        # At least two columns: of one, a batched product has other bits for a group than for a seed.
        columns = (spec.num_actions + dueling) * (1 if implicit else outputs or 1)
        self.head = self._linear(width, max(2, columns), "head")

    def _linear(
        self, inputs: int, outputs: int, name: str, bf16: bool = False
    ) -> GroupLinear | NoisyLinear:
        if self.noisy_sigma:
            return NoisyLinear(self.seeds, inputs, outputs, self.device, self.noisy_sigma, name)
        return GroupLinear(self.seeds, inputs, outputs, self.device, bf16=bf16)

    def _memory(
        self, kind: str, inputs: int, size: int, context: int
    ) -> GroupLSTM | GroupAttention:
        if kind == "lstm":
            return GroupLSTM(self.seeds, inputs, size, self.device)
        return GroupAttention(self.seeds, inputs, size, context, self.device)

    def _convolutions(
        self, layers: list[nn.Module], seeds: int, layer_norm: bool, device: torch.device
    ) -> int:
        """Append the layers for an image; the width of what they yield."""
        height, width, *channels = self.spec.obs_shape
        maps = self.frame_stack * math.prod(channels)
        kind = NATURE if min(height, width) >= SMALLEST_FOR_NATURE else SMALL
        # channels last pays in the gradient of large images (oneDNN), and is how a replay lays stacks
        order = torch.channels_last if kind is NATURE else torch.contiguous_format
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        scale = self.spec.obs_scale
        for filters, size, stride in kind:
            layers.append(
                GroupConv(seeds, maps, filters, size, stride, device, scale, dtype, order)
            )
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

    def forward(self, obs: Tensor, noise: Mapping[str, Tensor] = NO_NOISE) -> Tensor:
        """Observations [K, B, ...] to outputs, as `decode` makes them."""
        return self.decode(self.encode(obs, noise), noise)

    def encode(self, obs: Tensor, noise: Mapping[str, Tensor] = NO_NOISE) -> Tensor:
        """Observations [K, B, ...] to features [K, B, width], before what is remembered."""
        return _through(self.trunk, self._input(obs), noise)

    def remember(
        self, obs: Tensor, first: Tensor, memory: Memory, noise: Mapping[str, Tensor] = NO_NOISE
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sequences [K, T, B, ...] to features [K, T B, width], time-major, and what is remembered then.

        ``first`` [K, T, B] tells where episodes begin, ``memory`` what was remembered before.
        """
        assert self.memory is not None
        x = self.encode(obs.flatten(1, 2), noise)
        x, memory = self.memory(x.view(*first.shape, -1), first, memory)
        return x.flatten(1, 2), dict(memory)

    def decode(self, x: Tensor, noise: Mapping[str, Tensor] = NO_NOISE) -> Tensor:
        """Features [K, B, width] to outputs [K, B, A], or [K, B, A, Z].

        The dueling head is ``V + A - mean(A)``, also of distributions: Wang et al. 2016,
        arXiv:1511.06581, equation 9. Without "taus" [K, B, N] among the noise an implicit network takes
        the middles of Z equal parts.
        """
        if self.embedding is not None:
            return self._implicit(x, noise)
        out = self.head(x, noise) if self.noisy_sigma else self.head(x)
        if self.outputs:
            actions = self.num_actions + self.dueling
            out = out[..., : actions * self.outputs].view(*out.shape[:2], actions, self.outputs)
            return self._dueled(out, -2)
        return out if out.shape[-1] == self.num_actions else self._dueled(out, -1)

    def activations(self, obs: Tensor, features: Tensor | None = None) -> list[Tensor]:
        """What every ReLU gives for observations [K, B, ...], layer by layer: [K, B, units, ...].

        Behind IQN's fractions a unit has a number for each of them: [K, B, units, Z]. ``features``
        [K, B, width] are what `remember` makes of the observations, where there is a memory.
        """
        x, found = self._input(obs), []
        for layer in self.trunk:
            x = layer(x)
            if isinstance(layer, ReLU):
                found.append(x.to(torch.float32))
        if features is not None:
            x = features
        if self.embedding is not None:
            taus = midpoints(self.outputs, x.device).expand(*x.shape[:2], -1)
            x = self._joined(x, taus)
            for layer in self.behind:
                x = layer(x)
                if isinstance(layer, ReLU):
                    found.append(x.view(*taus.shape, -1).transpose(2, 3))
        return found

    def _input(self, obs: Tensor) -> Tensor:
        if self.looks_up:
            return obs
        if self.num_states:
            return functional.one_hot(obs, self.num_states).to(torch.float32).flatten(2)
        if self.images:
            return self._channels_first(obs)
        x = obs if obs.dim() == 3 else obs.reshape(*obs.shape[:2], -1)
        x = x.to(torch.float32)
        return x if self.spec.obs_scale == 1.0 else x * self.spec.obs_scale

    def _implicit(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """IQN (Dabney et al. 2018, arXiv:1806.06923, section 2.3): features times those of fractions."""
        taus = noise.get("taus")
        if taus is None:
            taus = midpoints(self.outputs, x.device).expand(*x.shape[:2], -1)
        joined = self._joined(x, taus)
        if noise:
            noise = {n: v if n == "taus" else _each(v, taus.shape[2]) for n, v in noise.items()}
        joined = _through(self.behind, joined, noise)
        out = self.head(joined, noise) if self.noisy_sigma else self.head(joined)
        return self._dueled(out.view(*taus.shape, -1).transpose(2, 3), -2)

    def _joined(self, x: Tensor, taus: Tensor) -> Tensor:
        """Features [K, B, width] times those of fractions [K, B, Z]: [K, B Z, width]."""
        assert self.embedding is not None
        return (x.unsqueeze(2) * self.embedding(taus)).flatten(1, 2)

    def _dueled(self, out: Tensor, axis: int) -> Tensor:
        """The actions' outputs along ``axis``, of which padding and the value's are taken off."""
        q = out.narrow(axis, 0, self.num_actions)
        if not self.dueling:
            return q
        value = out.narrow(axis, self.num_actions, 1)
        return value + q - q.mean(axis, keepdim=True)


def _through(layers: nn.ModuleList, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
    for layer in layers:
        x = layer(x, noise) if layer.random else layer(x)
    return x


def _each(noise: Tensor, times: int) -> Tensor:
    """A row's noise for as many rows; what all rows share stays as it is."""
    return noise if noise.shape[1] == 1 else noise.repeat_interleave(times, 1)


def is_image(spec: Spec) -> bool:
    """Whether observations have a height and a width: the convolutions' kind, large enough for one."""
    return len(spec.obs_shape) in (2, 3) and min(spec.obs_shape[:2]) >= SMALL[0][1]


def initialise(network: nn.Module, generators: Sequence[torch.Generator]) -> None:
    """Draw all weights, layer by layer, each seed's from its own generator."""
    for module in network.modules():
        if isinstance(module, GroupLinear | NarrowLinear | GroupConv | NoisyLinear | GroupLSTM):
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

    def joined(self, leaves: Sequence[Tensor]) -> Tensor:
        """[K, D] the inverse of `views`, with zeros where no parameter is."""
        pieces = []
        for leaf, start, stop in zip(
            leaves, self.starts, [*self.starts[1:], self.flat.shape[1]], strict=True
        ):
            row = leaf.flatten(1)
            pieces += [row, row.new_zeros(row.shape[0], stop - start - row.shape[1])]
        return torch.cat([piece for piece in pieces if piece.shape[1]], -1)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
