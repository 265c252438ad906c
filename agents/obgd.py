"""ObGD: steps along an eligibility trace, of a size that does not overshoot; K seeds in one flat buffer."""

from __future__ import annotations

import torch
from torch import Tensor

from agents.contract import State
from agents.networks import FlatParameters


class ObGD:
    """Overshooting-bounded gradient descent for the parameters θ and traces z of K seeds.

    ``z ← γλ z + ∇q(s, a)``, ``θ ← θ + min(α, 1 / (κ max(|δ|, 1) ‖z‖₁)) δ z``.

    Source: Elsayed et al. 2024, arXiv:2410.14606, "Overshooting-bounded Gradient Descent" (ObGD); the sign is
    that of ascent along δ ∇q.
    """

    def __init__(self, parameters: FlatParameters, lr: float, kappa: float, decay: float) -> None:
        """Traces of zeros; ``lr`` is α, ``kappa`` κ, ``decay`` γλ."""
        self.parameters, self.lr, self.kappa, self.decay = parameters, lr, kappa, decay
        self.trace = torch.zeros_like(parameters.flat)
        self.trace_views = parameters.views(self.trace)

    def step(self, q: Tensor, delta: Tensor, before: Tensor, after: Tensor) -> None:
        """One step of every seed.

        Args:
            q: [K] values of the actions taken, with gradient; seeds share no parameter.
            delta: [K] TD errors δ, 0 where nothing is to be learned.
            before: [K] 1, or 0 where the trace is forgotten before this step.
            after: [K] 1, or 0 where it is forgotten after it.
        """
        gradients = torch.autograd.grad(q.sum(), self.parameters.leaves)
        with torch.no_grad():
            self.trace.mul_((self.decay * before).unsqueeze(-1))
            torch._foreach_add_(self.trace_views, gradients)
            length = torch.linalg.vector_norm(self.trace, 1, dim=-1)
            overshoot = (self.lr * self.kappa) * delta.abs().clamp(min=1.0) * length
            size = self.lr * delta / overshoot.clamp(min=1.0)
            self.parameters.flat.addcmul_(self.trace, size.unsqueeze(-1))
            self.trace.mul_(after.unsqueeze(-1))

    def state_dict(self) -> State:
        return {"trace": self.trace}

    def load_state_dict(self, state: State) -> None:
        self.trace.copy_(torch.as_tensor(state["trace"]))

    def keep_from(self, other: ObGD, seeds: list[int]) -> None:
        """Take over the traces of these seeds from the optimizer of the larger group."""
        self.trace.copy_(other.trace[seeds])
