"""Networks for K seeds at once: every parameter has the seeds' axis first.

One batched matrix product serves all seeds, and seed k of it has the same bits as a group of one.
All parameters of a network are views of one flat ``[K, D]`` buffer, so that an optimizer step, a
target update or a published copy is one operation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.contract import Spec

ROW = 64  # floats: rows of the flat buffer are padded to this, or the last lanes' bits would differ
SLOT = 16  # floats: each parameter begins at a multiple of this


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


class QNetwork(nn.Module):
    """An MLP from observations to action values, with LayerNorm and a dueling head on request."""

    def __init__(
        self,
        spec: Spec,
        seeds: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool,
        dueling: bool,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.num_states, self.num_actions = spec.num_states, spec.num_actions
        self.dueling = dueling
        width = spec.num_states or math.prod(spec.obs_shape)
        layers: list[nn.Module] = []
        for size in hidden:
            layers.append(GroupLinear(seeds, width, size, device))
            if layer_norm:
                layers.append(GroupLayerNorm(seeds, size, device))
            layers.append(ReLU())
            width = size
        self.trunk = nn.ModuleList(layers)
        # At least two columns: of one, a batched product has other bits for a group than for a seed.
        self.head = GroupLinear(seeds, width, max(2, spec.num_actions + dueling), device)

    def forward(self, obs: Tensor) -> Tensor:
        """Observations [K, B, ...] to action values [K, B, A].

        The dueling head is ``V + A - mean(A)``: Wang et al. 2016, arXiv:1511.06581, equation 9.
        """
        if self.num_states:
            x = functional.one_hot(obs, self.num_states).to(torch.float32)
        else:
            x = obs.reshape(*obs.shape[:2], -1).to(torch.float32)
        for layer in self.trunk:
            x = layer(x)
        out: Tensor = self.head(x)
        if out.shape[-1] == self.num_actions:
            return out
        q, rest = out[..., : self.num_actions], out[..., self.num_actions :]
        return rest + q - q.mean(-1, keepdim=True) if self.dueling else q


def initialise(network: nn.Module, generators: Sequence[torch.Generator]) -> None:
    """Draw all weights, layer by layer, each seed's from its own generator."""
    for module in network.modules():
        if isinstance(module, GroupLinear):
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
