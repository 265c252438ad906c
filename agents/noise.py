"""All that is random in a network, drawn outside of it: Gaussian noise, dropout's masks, IQN's fractions.

A loss is a pure function of its batch and this noise. Each seed's comes from its own generator, so that a
seed in a group draws what it draws alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from agents.layers import Dropout, NoisyLinear


class NetworkNoise:
    """What the random layers of one network take, by name."""

    def __init__(self, network: nn.Module, fractions: int = 0) -> None:
        """``fractions`` N: as many quantile fractions a row are wanted as "taus" [K, B, N]."""
        modules = list(network.modules())
        self.gaussian: dict[str, int] = {}
        for layer in modules:
            if isinstance(layer, NoisyLinear):
                self.gaussian |= layer.noise_widths()
        self.masks = {m.name: (m.width, m.rate) for m in modules if isinstance(m, Dropout)}
        self.fractions = fractions

    def __bool__(self) -> bool:
        """Whether anything is random."""
        return bool(self.gaussian or self.masks or self.fractions)

    def draw(
        self,
        rows: int,
        generators: Sequence[torch.Generator],
        device: torch.device,
        dropout: bool = True,
    ) -> dict[str, Tensor]:
        """One pass's noise for a batch of ``rows`` a seed; Gaussian noise is the same for all rows.

        ``dropout`` False leaves the masks out. Shapes are [K, 1, width] and [K, rows, width].
        """
        noise: dict[str, Tensor] = {}
        if self.gaussian:
            total = sum(self.gaussian.values())
            drawn = [torch.randn(total, generator=g, device=g.device) for g in generators]
            noise |= _split(_root(torch.stack(drawn)).unsqueeze(1), self.gaussian)
        widths = {name: width for name, (width, _) in self.masks.items()} if dropout else {}
        if self.fractions:
            widths["taus"] = self.fractions
        if widths:
            shape = (rows, sum(widths.values()))
            uniform = [torch.rand(shape, generator=g, device=g.device) for g in generators]
            noise |= _split(torch.stack(uniform), widths)
            for name, (_, rate) in self.masks.items() if dropout else ():
                noise[name] = (noise[name] >= rate).to(torch.float32) / (1.0 - rate)
        return {name: value.to(device) for name, value in noise.items()}

    def act(self, lanes: int, generators: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """An actor's: Gaussian noise [K, n, width], each lane's its own; no dropout."""
        if not self.gaussian:
            return {}
        shape = (lanes, sum(self.gaussian.values()))
        drawn = np.stack([g.standard_normal(shape, np.float32) for g in generators])
        return dict(_split(_root(torch.from_numpy(drawn)), self.gaussian))


def _split(numbers: Tensor, widths: Mapping[str, int]) -> Iterator[tuple[str, Tensor]]:
    """The last axis in named parts."""
    return zip(widths, torch.split(numbers, list(widths.values()), -1), strict=True)


def _root(x: Tensor) -> Tensor:
    """``f(x) = sign(x)√|x|`` (Fortunato et al. 2018, section 3)."""
    return torch.sign(x) * x.abs().sqrt()
