"""All that is random in a network, drawn outside of it: Gaussian noise, dropout's masks, IQN's fractions.

A loss is a pure function of its batch and this noise. Each seed's comes from its own generator, so that a
seed in a group draws what it draws alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from agents.contract import Batch, Draws, Noise
from agents.layers import Dropout, NoisyLinear

Name = TypeVar("Name")


class NetworkNoise:
    """What the random layers of one network take, by name."""

    def __init__(self, network: nn.Module, passes: Sequence[str] = (), fractions: int = 0) -> None:
        """A loss makes these passes through it.

        ``fractions`` N: as many quantile fractions a row are wanted as "taus" [K, B, N].
        """
        modules = list(network.modules())
        self.gaussian: dict[str, int] = {}
        for layer in modules:
            if isinstance(layer, NoisyLinear):
                self.gaussian |= layer.noise_widths()
        self.masks = {m.name: (m.width, m.rate) for m in modules if isinstance(m, Dropout)}
        self.passes, self.fractions = passes, fractions
        # how many numbers each pass and side of a layer takes, once, and how many for every row
        self._shared = {(name, side): w for name in passes for side, w in self.gaussian.items()}
        self._by_row = {("online", layer): width for layer, (width, _) in self.masks.items()}
        if fractions:
            self._by_row |= {(name, "taus"): fractions for name in passes}

    def __bool__(self) -> bool:
        """Whether anything is random."""
        return bool(self.gaussian or self.masks or self.fractions)

    def draw(self, batch: Batch, generators: Sequence[torch.Generator]) -> Draws:
        """The numbers that `named` tells apart, [K, 1, all] Gaussian and [K, B, all] uniform ones.

        One tensor a kind: a compiled step looks at each tensor that it is handed.
        """
        drawn = {}
        if total := sum(self._shared.values()):
            gaussian = [torch.randn(1, total, generator=g, device=g.device) for g in generators]
            drawn["gaussian"] = torch.stack(gaussian)
        if total := sum(self._by_row.values()):
            shape = (batch.action.shape[-1], total)
            uniform = [torch.rand(shape, generator=g, device=g.device) for g in generators]
            drawn["uniform"] = torch.stack(uniform)
        return {kind: numbers.to(batch.action.device) for kind, numbers in drawn.items()}

    def named(self, drawn: Draws) -> Noise:
        """The noise of each pass, of numbers drawn; each pass has its own.

        Gaussian noise [K, 1, width] is the same for all rows; masks [K, B, width] are for the pass
        "online", the one that learns, fractions [K, B, N] for all.
        """
        noise: dict[str, dict[str, Tensor]] = {name: {} for name in self.passes}
        if "gaussian" in drawn:
            for (name, side), part in _split(_root(drawn["gaussian"]), self._shared):
                noise[name][side] = part
        if "uniform" in drawn:
            for (name, layer), part in _split(drawn["uniform"], self._by_row):
                noise[name][layer] = self._mask(layer, part)
        return noise

    def _mask(self, layer: str, uniform: Tensor) -> Tensor:
        """1 / (1 - p) where a number stays and 0 where not; fractions as they are."""
        if layer not in self.masks:
            return uniform
        _, rate = self.masks[layer]
        return (uniform >= rate).to(torch.float32) / (1.0 - rate)

    def act(self, lanes: int, generators: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """An actor's: Gaussian noise [K, n, width], each lane's its own; no dropout."""
        if not self.gaussian:
            return {}
        shape = (lanes, sum(self.gaussian.values()))
        drawn = np.stack([g.standard_normal(shape, np.float32) for g in generators])
        return dict(_split(_root(torch.from_numpy(drawn)), self.gaussian))


def _split(numbers: Tensor, widths: Mapping[Name, int]) -> Iterator[tuple[Name, Tensor]]:
    """The last axis in named parts."""
    return zip(widths, torch.split(numbers, list(widths.values()), -1), strict=True)


def _root(x: Tensor) -> Tensor:
    """``f(x) = sign(x)√|x|`` (Fortunato et al. 2018, section 3)."""
    return torch.sign(x) * x.abs().sqrt()
