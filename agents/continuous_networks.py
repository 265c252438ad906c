"""Networks of actor-critic agents: rows of numbers in, actions in [-1, 1] or values of them out.

A critic has E members a seed. To the layers they are seeds of their own, K E of them, seed-major: one
batched product serves all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from agents.batch_renorm import GroupBatchRenorm, Moments
from agents.layers import (
    NO_NOISE,
    Dropout,
    GroupLayerNorm,
    GroupLinear,
    NarrowLinear,
    ReLU,
)
from agents.rules.actor_critic import quadratic_advantage, squashed_gaussian, triangular

LOG_STD = -20.0, 2.0
"""Bounds of a policy's log σ (Haarnoja et al. 2018, their code)."""
GAIN = 1.0 / 3.0
"""Variance of initial weights times inputs: torch's own default, with which published scores were got."""
RENORM_GAIN = 1.0
"""The same where batch renormalisation stands between layers: Flax's default, with which CrossQ's were got.

Renormalised weights have no scale but against Adam's step, of which larger ones turn less: at 1/3 two of three seeds
of HalfCheetah-v5 learned to run on their backs.
"""

NARROW = 8  # outputs up to which the last layer's weights lie in rows


class MLP(nn.Module):
    """Linear layers and ReLUs; each hidden layer with a norm or dropout where asked for.

    Dropout comes before LayerNorm, both before the ReLU (DroQ, Hiraoka et al. 2022, arXiv:2110.02034,
    figure 2); batch renormalisation before every linear layer (CrossQ, Bhatt et al. 2024, arXiv:1902.05605).
    """

    def __init__(
        self,
        copies: int,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        device: torch.device,
        *,
        norm: str = "none",
        dropout: float = 0.0,
        bf16: bool = False,
    ) -> None:
        """``copies`` of it, of one shape; ``norm`` is "none", "layer" or "batch".

        ``bf16``: hidden layers compute in bfloat16, the last one never does.
        """
        super().__init__()
        self.outputs = outputs
        layers: list[nn.Module] = []
        width = inputs
        gain = RENORM_GAIN if norm == "batch" else GAIN
        for i, size in enumerate(hidden):
            if norm == "batch":
                layers.append(GroupBatchRenorm(copies, width, device))
            stays = bf16 and norm == "none" and not dropout
            layers.append(GroupLinear(copies, width, size, device, gain, bf16, stays))
            if dropout:
                layers.append(Dropout(f"dropout{i}", size, dropout))
            if norm == "layer":
                layers.append(GroupLayerNorm(copies, size, device))
            layers.append(ReLU())
            width = size
        if norm == "batch":
            layers.append(GroupBatchRenorm(copies, width, device))
        # two columns at least: of one, a batched product has other bits for a group than for a seed
        linear = NarrowLinear if outputs <= NARROW else GroupLinear
        layers.append(linear(copies, width, max(2, outputs), device, gain))
        self.layers = nn.ModuleList(layers)

    def forward(
        self, x: Tensor, noise: Mapping[str, Tensor] = NO_NOISE, moments: Moments | None = None
    ) -> Tensor:
        """[copies, B, inputs] to [copies, B, outputs]."""
        last = self.layers[-1]
        for layer in self.layers:
            if layer is last:
                x = layer(x.to(torch.float32))
            elif isinstance(layer, GroupBatchRenorm):
                x = layer(x, moments)
            elif isinstance(layer, ReLU):
                x = torch.relu_(x)  # nobody needs what it was
            else:
                x = layer(x, noise) if isinstance(layer, Dropout) else layer(x)
        return x[..., : self.outputs]

    def activations(self, x: Tensor) -> list[Tensor]:
        """What every ReLU gives, [copies, B, units] each."""
        found = []
        for layer in self.layers[:-1]:
            x = layer(x)
            if isinstance(layer, ReLU):
                found.append(x.to(torch.float32))
        return found

    def masks(self) -> dict[str, int]:
        """Widths of the masks that dropout takes, by layer."""
        return {m.name: m.width for m in self.layers if isinstance(m, Dropout)}


class GaussianPolicy(nn.Module):
    """A Gaussian by state, squashed into [-1, 1], and its temperature α."""

    def __init__(self, mlp: MLP, seeds: int, alpha: float, learned: bool) -> None:
        """``mlp`` yields means and logarithms of deviations: 2 A numbers."""
        super().__init__()
        self.mlp = mlp
        start = torch.full((seeds, 1), math.log(alpha), device=next(mlp.parameters()).device)
        self.log_alpha = nn.Parameter(start, requires_grad=learned)

    def forward(self, x: Tensor, moments: Moments | None = None) -> tuple[Tensor, Tensor]:
        """[K, B, obs] to means and logarithms of deviations, [K, B, A] each."""
        mean, log_std = self.mlp(x, moments=moments).chunk(2, -1)
        return mean, log_std.clamp(*LOG_STD)

    def sample(
        self, x: Tensor, epsilon: Tensor, moments: Moments | None = None
    ) -> tuple[Tensor, Tensor]:
        """Actions [K, B, A] by standard normal numbers [K, B, A], and log-probabilities [K, B]."""
        mean, log_std = self(x, moments)
        return squashed_gaussian(mean, log_std, epsilon)

    def paid(self, x: Tensor, epsilon: Tensor) -> Tensor:
        """What it is paid for its entropy, ``-α log π(a|s)`` [K, B], for actions as `sample` draws them."""
        _, log_pi = self.sample(x, epsilon)
        return -self.log_alpha.exp() * log_pi

    def explore(self, x: Tensor, epsilon: Tensor) -> Tensor:
        """Actions [K, n, A] as they are taken while learning: `sample` without log-probabilities."""
        mean, log_std = self(x)
        return torch.tanh(mean + log_std.exp() * epsilon)

    def mode(self, x: Tensor) -> Tensor:
        """The best actions [K, n, A]."""
        return torch.tanh(self(x)[0])


class DeterministicPolicy(nn.Module):
    """One action by state, with Gaussian noise while learning."""

    def __init__(self, mlp: MLP, sigma: float) -> None:
        super().__init__()
        self.mlp, self.sigma = mlp, sigma

    def forward(self, x: Tensor) -> Tensor:
        """[K, B, obs] to actions [K, B, A]."""
        return torch.tanh(self.mlp(x))

    def explore(self, x: Tensor, epsilon: Tensor) -> Tensor:
        """Actions [K, n, A] as they are taken while learning (Fujimoto et al. 2018, Algorithm 1)."""
        noisy: Tensor = self(x) + self.sigma * epsilon
        return noisy.clamp(-1.0, 1.0)

    def mode(self, x: Tensor) -> Tensor:
        """The best actions [K, n, A]."""
        action: Tensor = self(x)
        return action


class Critics(nn.Module):
    """E values, or E distributions by Z quantiles, of a state and an action."""

    def __init__(self, mlp: MLP, members: int) -> None:
        """``mlp`` has K E copies."""
        super().__init__()
        self.mlp, self.members = mlp, members

    def forward(
        self,
        x: Tensor,
        action: Tensor,
        noise: Mapping[str, Tensor] = NO_NOISE,
        moments: Moments | None = None,
    ) -> Tensor:
        """[K, B, obs] and [K, B, A] to [K, E, B, Z]."""
        return self._by_seed(self.mlp(self._joined(x, action, self.members), noise, moments), x)

    def some(
        self, chosen: Tensor, x: Tensor, action: Tensor, noise: Mapping[str, Tensor] = NO_NOISE
    ) -> Tensor:
        """The same of some members, [K, M] numbers of them: [K, M, B, Z]."""
        count = chosen.shape[1]
        first = self.members * torch.arange(len(chosen), device=chosen.device).unsqueeze(-1)
        rows = (first + chosen).flatten()
        leaves = {name: leaf[rows] for name, leaf in self.mlp.named_parameters()}
        out: Tensor = functional_call(self.mlp, leaves, (self._joined(x, action, count), noise))
        return self._by_seed(out, x)

    @staticmethod
    def _joined(x: Tensor, action: Tensor, members: int) -> Tensor:
        """[K M, B, obs + A]: the same rows for each member."""
        joined = torch.cat([x, action], -1)
        return joined.unsqueeze(1).expand(-1, members, -1, -1).flatten(0, 1)

    @staticmethod
    def _by_seed(out: Tensor, x: Tensor) -> Tensor:
        return out.view(len(x), -1, *out.shape[1:])

    def activations(self, x: Tensor, action: Tensor) -> list[Tensor]:
        """What every ReLU of the first member gives, [K, B, units] each."""
        found = self.mlp.activations(self._joined(x, action, self.members))
        return [self._by_seed(layer, x)[:, 0] for layer in found]


class QuadraticCritic(nn.Module):
    """``Q(s, a) = V(s) - ½ (a - μ(s))ᵀ P(s) (a - μ(s))``, whose best action is known: μ(s).

    Source: Gu et al. 2016, arXiv:1603.00748, section 4.
    """

    members = 1

    def __init__(self, mlp: MLP, actions: int, sigma: float) -> None:
        """``mlp`` yields V, μ and the triangle of L, P = L Lᵀ: 1 + A + A (A + 1) / 2 numbers."""
        super().__init__()
        self.mlp, self.actions, self.sigma = mlp, actions, sigma

    def forward(self, x: Tensor, action: Tensor) -> Tensor:
        """[K, B, obs] and [K, B, A] to [K, 1, B, 1]."""
        value, mean, lower = self._parts(x)
        q = value + quadratic_advantage(action, mean, lower)
        return q.unsqueeze(1).unsqueeze(-1)

    def value(self, x: Tensor) -> Tensor:
        """What the best action is worth, [K, B]."""
        value: Tensor = self.mlp(x)[..., 0]
        return value

    def explore(self, x: Tensor, epsilon: Tensor) -> Tensor:
        """Actions [K, n, A] as they are taken while learning."""
        return (self.mode(x) + self.sigma * epsilon).clamp(-1.0, 1.0)

    def mode(self, x: Tensor) -> Tensor:
        """The best actions [K, n, A]."""
        return self._parts(x)[1]

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = self.actions
        value, mean, numbers = self.mlp(x).split([1, a, a * (a + 1) // 2], -1)
        return value.squeeze(-1), torch.tanh(mean), triangular(numbers, a)

    def activations(self, x: Tensor, action: Tensor) -> list[Tensor]:
        """What every ReLU gives, [K, B, units] each."""
        del action
        return self.mlp.activations(x)
