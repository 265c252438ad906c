"""Adam on one flat buffer: per-seed gradient clipping and a single fused operation a step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from agents.contract import State
from agents.layers import WIDE
from agents.networks import FlatParameters

Average = Callable[[Tensor], None]
"""Turns a learner's tensor into the mean over all learners, in place."""
Rule = Callable[["FlatAdam", Tensor, "float | Tensor", Tensor], None]
"""Moves an optimizer's parameters and moments by a clipped gradient [K, D], a step size and `FlatAdam.bias`."""
BETA1, BETA2 = 0.9, 0.999  # decay of the gradient's mean and of its square's


class FlatAdam:
    """Adam (Kingma & Ba 2015, Algorithm 1) for the parameters of K seeds.

    `torch.optim.Adam(fused=True)` is the same kernel behind a Python loop over parameters, and it
    refuses the meta device, which the operation itself takes.
    """

    def __init__(
        self,
        parameters: FlatParameters,
        max_grad_norm: float,
        eps: float,
        rule: Rule | None = None,
        beta1: float = BETA1,
    ) -> None:
        """``max_grad_norm`` bounds a seed's gradient; infinity: nothing does.

        ``rule``: of the step once the gradient is clipped; None: Adam's.
        """
        self.parameters, self.rule, self.beta1 = parameters, rule, beta1
        self.average: Average | None = None  # of gradients over several learners
        self.max_grad_norm = max_grad_norm
        self.eps = eps
        flat = parameters.flat
        self.grad = torch.zeros_like(flat)
        # what is fixed, as a random prior, has gradient 0 for ever, and Adam leaves it where it is
        learned = [leaf.requires_grad for leaf in parameters.leaves]
        self.leaves = list(itertools.compress(parameters.leaves, learned))
        self.grad_views = list(itertools.compress(parameters.views(self.grad), learned))
        self._lay_places()
        self.mean = torch.zeros_like(flat)
        self.square = torch.zeros_like(flat)
        self.count = torch.zeros((), device=flat.device)
        self.betas = torch.tensor([beta1, BETA2], device=flat.device)

    def step(self, loss: Tensor, share: Tensor, lr: float | Tensor) -> Tensor:
        """One step down the gradient of ``sum(share * loss)``.

        Args:
            loss: [K, B] per sample; seeds share no parameter, so none feels another's loss.
            share: [K, B] what each sample counts: 1 / B, times its weight.
            lr: step size; a 0-d tensor on the device where a graph is to read it.

        Returns:
            The sum, without gradient.
        """
        total = (loss * share).sum()
        gradients = torch.autograd.grad(total, self.leaves)
        with torch.no_grad():
            self._take(gradients)
            if self.average is not None:
                self.average(self.grad)
                # one learner's NaN is everybody's, so that all stop at the same update
                total = total + 0.0 * self.grad.sum()
            # each seed's gradient to a norm of at most the bound, as `clip_grad_norm_` does
            if self.max_grad_norm < math.inf:
                self.grad.renorm_(2, 0, self.max_grad_norm)
            if self.rule is not None:
                self._by_rule(self.grad, lr, self.bias())
                return total.detach()
            self.count += 1
            torch._fused_adam_(
                [self.parameters.flat], [self.grad], [self.mean], [self.square], [], [self.count],
                lr=lr, beta1=self.beta1, beta2=BETA2, weight_decay=0.0, eps=self.eps,
                amsgrad=False, maximize=False,
            )  # fmt: skip
        return total.detach()

    def _lay_places(self) -> None:
        """Offer wide weights their places in the flat gradient; `agents.layers` writes to what it finds."""
        for leaf, view in zip(self.leaves, self.grad_views, strict=True):
            if leaf[0].numel() >= WIDE:
                leaf.grad = view

    def _take(self, gradients: Sequence[Tensor]) -> None:
        """The gradients in one buffer, some of which are there already."""
        pairs = list(zip(self.grad_views, gradients, strict=True))
        torch._foreach_copy_(
            [view for view, gradient in pairs if gradient is not view],
            [gradient for view, gradient in pairs if gradient is not view],
        )
        self._lay_places()

    def bias(self) -> Tensor:
        """[2] what the next step's mean and square are divided by: ``1 - βᵗ``."""
        return 1.0 - self.betas ** (self.count + 1)

    def apply(self, gradient: Tensor, lr: float, bias: Tensor) -> None:
        """One step down a gradient [K, D], as `step` takes it, in plain operations: they can be compiled.

        ``bias`` is `bias()`, which a compiler would work out anew for every parameter.
        """
        norm = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        gradient = gradient * (self.max_grad_norm / (norm + 1e-7)).clamp(max=1.0)
        if self.rule is not None:
            self._by_rule(gradient, lr, bias)
            return
        self.count += 1
        self.mean.lerp_(gradient, 1.0 - self.beta1)
        self.square.lerp_(gradient.square(), 1.0 - BETA2)
        mean, square = self.mean / bias[0], self.square / bias[1]
        self.parameters.flat.sub_(lr * mean / (square.sqrt() + self.eps))

    def _by_rule(self, gradient: Tensor, lr: float | Tensor, bias: Tensor) -> None:
        assert self.rule is not None
        self.count += 1
        self.rule(self, gradient, lr, bias)

    def state_dict(self) -> State:
        return {"mean": self.mean, "square": self.square, "count": self.count}

    def load_state_dict(self, state: State) -> None:
        self.mean.copy_(torch.as_tensor(state["mean"]))
        self.square.copy_(torch.as_tensor(state["square"]))
        self.count.copy_(torch.as_tensor(state["count"]))

    def keep_from(self, other: FlatAdam, seeds: list[int]) -> None:
        """Take over the moments of these seeds from the optimizer of the larger group."""
        self.mean.copy_(other.mean[seeds])
        self.square.copy_(other.square[seeds])
        self.count.copy_(other.count)
