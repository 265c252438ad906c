"""Layers that remember: an LSTM, and causal attention over the newest steps; for K seeds at once.

Both take T rows of B lanes and what is remembered before them, and yield as many rows and what is
remembered after them; so acting is one row of what learning does with many. Time and lanes are one
axis, time-major, wherever a layer has no memory. Nothing is remembered across an episode's beginning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from agents.layers import GroupLayerNorm, GroupLinear

Memory = Mapping[str, Tensor]
"""What is remembered, ``[K, B, ...]`` each, by name."""


class GroupLSTM(nn.Module):
    """A long short-term memory a seed.

    With ``i, f, o`` the logistic gates and ``g`` the tanh candidate, all of ``x W + h U + b``:
    ``c ← f ⊙ c + i ⊙ g`` and ``h ← o ⊙ tanh c``; both are 0 where an episode begins.

    Source: Hochreiter & Schmidhuber 1997; forget gates by Gers, Schmidhuber & Cummins 2000, which begin
    open (bias 1).
    """

    stored = True  # what is remembered cannot be rebuilt from a few observations

    def __init__(self, seeds: int, inputs: int, width: int, device: torch.device) -> None:
        super().__init__()
        self.width = width
        self.inward = nn.Parameter(torch.zeros(seeds, inputs, 4 * width, device=device))
        self.onward = nn.Parameter(torch.zeros(seeds, width, 4 * width, device=device))
        self.bias = nn.Parameter(torch.zeros(seeds, 1, 4 * width, device=device))

    def initial_state(self, lanes: int) -> dict[str, Tensor]:
        """Zeros: h and c, each [K, B, width]."""
        zeros = self.bias.new_zeros(self.bias.shape[0], lanes, self.width)
        return {"h": zeros, "c": zeros.clone()}

    def forward(self, x: Tensor, first: Tensor, memory: Memory) -> tuple[Tensor, dict[str, Tensor]]:
        """Rows [K, T, B, in] and ``first`` [K, T, B] to rows [K, T, B, width], and h and c after them."""
        seeds, rows, lanes, _ = x.shape
        of_x = torch.baddbmm(self.bias, x.flatten(1, 2), self.inward).view(seeds, rows, lanes, -1)
        goes_on = (~first).to(x.dtype).unsqueeze(-1)
        h, c = memory["h"], memory["c"]
        out = []
        for t in range(rows):
            h, c = h * goes_on[:, t], c * goes_on[:, t]
            gates = torch.baddbmm(of_x[:, t], h, self.onward)
            i, f, o = torch.sigmoid(gates[..., : 3 * self.width]).chunk(3, -1)
            c = torch.addcmul(f * c, i, torch.tanh(gates[..., 3 * self.width :]))
            h = o * torch.tanh(c)
            out.append(h)
        return torch.stack(out, 1), {"h": h, "c": c}

    def reset(self, generators: Sequence[torch.Generator]) -> None:
        """Normal with variance 1 / inputs; biases 0, those of the forget gates 1."""
        with torch.no_grad():
            for weight in (self.inward, self.onward):
                for k, generator in enumerate(generators):
                    weight[k].normal_(0.0, 1.0 / math.sqrt(weight.shape[1]), generator=generator)
            self.bias.zero_()
            self.bias[..., self.width : 2 * self.width] = 1.0


class GroupAttention(nn.Module):
    """One block of causal attention a seed, over the newest W steps of the episode.

    ``y = x + Σ_j softmax_j(q·k_j / √d + b_{t-j}) v_j O`` in each head, with ``q, k, v`` of the
    normalised ``x``, then ``y + ReLU(LN(y) A) B``. Keys and values of the steps before are kept, so that
    acting computes those of one step alone.

    Source: Vaswani et al. 2017, arXiv:1706.03762, equation 1; LayerNorm before each part, Xiong et al.
    2020, arXiv:2002.04745; a learned bias b of each distance and head, Raffel et al. 2020,
    arXiv:1910.10683, section 2.1.
    """

    stored = False  # a function of the newest W observations
    HEADS = 4

    def __init__(
        self, seeds: int, inputs: int, width: int, context: int, device: torch.device
    ) -> None:
        """``context`` is W, the step itself included; ``width`` is a multiple of the heads."""
        super().__init__()
        self.width, self.context = width, context
        self.inward = GroupLinear(seeds, inputs, width, device, gain=1.0)
        self.norms = nn.ModuleList([GroupLayerNorm(seeds, width, device) for _ in range(2)])
        self.qkv = GroupLinear(seeds, width, 3 * width, device, gain=1.0)
        self.distance = nn.Parameter(torch.zeros(seeds, self.HEADS, context, device=device))
        self.outward = GroupLinear(seeds, width, width, device, gain=1.0)
        self.wide = GroupLinear(seeds, width, 2 * width, device)
        self.narrow = GroupLinear(seeds, 2 * width, width, device, gain=1.0)

    def initial_state(self, lanes: int) -> dict[str, Tensor]:
        """No steps yet: keys and values [K, B, W-1, width], of which none are of this episode."""
        seeds, before = self.distance.shape[0], self.context - 1
        keys = self.distance.new_zeros(seeds, lanes, before, self.width)
        known = torch.zeros(seeds, lanes, before, dtype=torch.bool, device=keys.device)
        return {"keys": keys, "values": keys.clone(), "known": known}

    def forward(self, x: Tensor, first: Tensor, memory: Memory) -> tuple[Tensor, dict[str, Tensor]]:
        """Rows [K, T, B, in] and ``first`` [K, T, B] to rows [K, T, B, width], and the newest W-1 steps."""
        seeds, rows, lanes, _ = x.shape
        flat = self.inward(x.flatten(1, 2))
        q, k, v = self.qkv(self.norms[0](flat)).view(seeds, rows, lanes, -1).chunk(3, -1)
        keys = torch.cat([memory["keys"], k.transpose(1, 2)], 2)  # [K, B, W-1+T, width]
        values = torch.cat([memory["values"], v.transpose(1, 2)], 2)
        visible, known = self._visible(first.transpose(1, 2), memory["known"])
        mixed = self._attend(q.transpose(1, 2), keys, values, visible)
        flat = flat + self.outward(mixed.transpose(1, 2).flatten(1, 2))
        flat = flat + self.narrow(torch.relu(self.wide(self.norms[1](flat))))
        newest = {"keys": keys[:, :, rows:], "values": values[:, :, rows:], "known": known}
        return flat.view(seeds, rows, lanes, -1), newest

    def _visible(self, first: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the steps [W-1+T] each row [T] sees, [K, B, T, W-1+T]; which of the newest are known."""
        episode = first.to(torch.int64).cumsum(-1)  # 0: the one that was going on
        before = torch.where(known, 0, -1)
        all_steps = torch.cat([before, episode], -1)
        ago = self._ago(first.shape[-1], first.device)
        near = (ago >= 0) & (ago < self.context)
        visible = near & (all_steps.unsqueeze(-2) == episode.unsqueeze(-1))
        return visible, all_steps[..., first.shape[-1] :] == episode[..., -1:]

    def _ago(self, rows: int, device: torch.device) -> Tensor:
        """[T, W-1+T] how many steps before each row each step was."""
        row = torch.arange(rows, device=device).unsqueeze(-1) + self.context - 1
        return row - torch.arange(rows + self.context - 1, device=device)

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
        """[K, B, T, width]: each row's mixture of the values of the steps that it sees."""
        q, keys, values = (
            x.view(*x.shape[:-1], self.HEADS, -1).transpose(2, 3) for x in (q, keys, values)
        )
        ago = self._ago(q.shape[-2], q.device).clamp(0, self.context - 1)
        bias = self.distance[:, :, ago].unsqueeze(1)  # [K, 1, heads, T, W-1+T]
        scores = q @ keys.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias
        lowest = torch.finfo(scores.dtype).min
        shares = torch.softmax(scores.masked_fill(~visible.unsqueeze(2), lowest), -1)
        return (shares @ values).transpose(2, 3).flatten(-2)
