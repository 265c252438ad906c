"""Soft actor-critic and its family: a stochastic policy that is paid for its entropy.

Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", arXiv:1812.05905, Algorithm 1, with
the learned temperature of its section 5. Each switch is one paper's part (`agents.sac_named` has the papers
by name):

* more critics, of which a few, drawn anew each time, make the target: REDQ (Chen et al. 2021,
  arXiv:2101.05982);
* dropout and LayerNorm in the critics: DroQ (Hiraoka et al. 2022, arXiv:2110.02034);
* batch renormalisation and no target network: CrossQ (Bhatt et al. 2024, arXiv:1902.05605);
* critics of quantiles, the largest of which are left out: TQC (Kuznetsov et al. 2020, arXiv:2005.04269).

Deviations: over several steps (``n_step``) only the last state's entropy counts, and actions are not corrected
for the policy's change. DroQ's policy learns from the critics' batch, where theirs draws another. REDQ's and
DroQ's target entropies, TQC's ``dropped`` and Swimmer's discount are the authors' in the presets of MuJoCo; by
themselves the settings are those below. CrossQ's policy climbs critics whose moving statistics are of before the
update; its temperature has the policy's Adam, and its policy's renormalisation begins with the critics'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from agents.actor_critic import ActorCriticLearner, Draws, Networks, assemble
from agents.batch_renorm import Moments
from agents.continuous_networks import MLP, Critics, GaussianPolicy
from agents.contract import Batch, LossOut
from agents.hyper import BadValue, Range, Search, at_least, check, positive, unit
from agents.layers import NO_NOISE
from agents.policy_actor import PolicyActor, width_of
from agents.replay.frames import MakeFrames
from agents.rules import td
from agents.rules.actor_critic import pooled, soft_value, temperature_loss
from agents.rules.distributional import midpoints, ordered_quantile_huber
from envs.contract import Spec

GROUP = 4  # seeds trained together


@dataclass(frozen=True)
class SACConfig:
    """Hyperparameters of SAC; all steps are lane steps of one seed."""

    lr: Annotated[float, positive(), Search("log", 1e-4, 3e-3)] = 3e-4
    """Adam's learning rate of the critics"""
    policy_lr: Annotated[float, positive(), Search("log", 1e-4, 3e-3)] = 3e-4
    """that of the policy and its temperature"""
    adam_beta1: Annotated[float, Range(0.0, 0.999)] = 0.9
    """decay of Adam's mean"""
    adam_eps: Annotated[float, positive()] = 1e-8
    """Adam's epsilon"""
    gamma: Annotated[float, unit(), Search("linear", 0.95, 0.999)] = 0.99
    """discount per step"""
    batch_size: Annotated[int, at_least(1)] = 256
    """transitions in a gradient step"""
    replay_size: Annotated[int, at_least(2)] = 1_000_000
    """transitions kept, a seed"""
    replay_ratio: Annotated[float, positive()] = 1.0
    """gradient steps of the critics per lane step"""
    learning_starts: Annotated[int, at_least(0)] = 5_000
    """lane steps before the first gradient step, with actions drawn uniformly"""
    n_step: Annotated[int, at_least(1), Search("linear", 1, 5)] = 1
    """rewards summed before bootstrapping"""
    alpha: Annotated[float, positive()] = 1.0
    """temperature: what a unit of entropy is worth, at the start"""
    learn_alpha: bool = True
    """let the temperature go where the policy has the target entropy"""
    target_entropy: Annotated[float, at_least(0)] = 1.0
    """with learn_alpha: the entropy to keep is minus this for each number of an action"""
    critics: Annotated[int, at_least(1)] = 2
    """critics in the ensemble"""
    target_critics: Annotated[int, at_least(0)] = 0
    """how many of them, drawn anew each time, make a target; 0: all"""
    policy_value: Literal["min", "mean"] = "min"
    """which of the critics' values the policy climbs"""
    policy_period: Annotated[int, at_least(1)] = 1
    """gradient steps of the critics for one of the policy; to be set with replay_ratio"""
    target_network: bool = True
    """targets by slow copies of the critics"""
    target_period: Annotated[int, at_least(1)] = 1
    """gradient steps between target updates"""
    target_tau: Annotated[float, positive(1), Search("log", 1e-3, 5e-2)] = 0.005
    """step towards the online network at a target update; 1 copies; with target_network"""
    quantiles: Annotated[int, at_least(0)] = 0
    """quantiles that each critic learns of the return; 0: its mean"""
    dropped: Annotated[int, at_least(0)] = 2
    """with quantiles: how many, the largest of all, a target leaves out for each critic"""
    hidden: tuple[Annotated[int, at_least(1)], ...] = (256, 256)
    """widths of the hidden layers of the policy and of the critics"""
    norm: Literal["none", "layer", "batch"] = "none"
    """LayerNorm in the critics, or batch renormalisation in critics and policy"""
    renorm_after: Annotated[int, at_least(0)] = 100_000
    """with norm batch: gradient steps until moving statistics correct the batch's"""
    dropout: Annotated[float, Range(0, 0.95)] = 0.0
    """share of the critics' hidden numbers that is dropped while learning"""
    normalise_obs: bool = False
    """observations by their mean and deviation so far, within 10 deviations"""
    bf16: bool = False
    """hidden layers compute in bfloat16"""

    def __post_init__(self) -> None:
        check(self)
        for wrong, reason in self._conflicts():
            if wrong:
                raise BadValue(reason)

    def _conflicts(self) -> list[tuple[bool, str]]:
        """What makes no sense together, and why."""
        return [
            (
                self.replay_size < self.batch_size,
                f"replay_size: got {self.replay_size}, takes at least batch_size = {self.batch_size}",
            ),
            (
                self.target_critics > self.critics,
                f"target_critics: got {self.target_critics}, takes at most critics = {self.critics}",
            ),
            (
                0 < self.quantiles <= self.dropped,
                f"dropped: got {self.dropped}, takes less than quantiles = {self.quantiles}",
            ),
            (
                self.quantiles > 0 and self.target_critics > 0,
                "target_critics: quantiles are pooled of all critics; take --target-critics 0",
            ),
            (
                self.norm == "batch" and self.target_network,
                "norm: batch statistics of a slow copy are of another policy's actions, which is what CrossQ "
                "does without; take --no-target-network",
            ),
            (
                self.norm != "batch" and not self.target_network,
                "target_network: only --norm batch learns without one",
            ),
            (
                self.norm == "batch" and (self.dropout > 0 or self.target_critics > 0),
                "norm: batch takes both halves of a batch through all critics at once; leave dropout and "
                "target_critics out",
            ),
            (
                self.dropout > 0 and not self.hidden,
                f"dropout: got {self.dropout}, takes 0 where there are no hidden layers to drop from",
            ),
        ]

    @property
    def slow(self) -> tuple[str, ...]:
        """Which networks have a slow copy."""
        return ("critics",) if self.target_network else ()

    # -- The losses ------------------------------------------------------------------------------

    def critic_loss(
        self, networks: Networks, batch: Batch, noise: Draws, moments: Moments
    ) -> LossOut:
        """Each critic's distance from the soft value of what follows (equations 5 and 6)."""
        with torch.no_grad():
            a_t, log_pi = networks.policy.sample(batch.next_obs, noise["epsilon_t"])
            alpha = networks.policy.log_alpha.exp()
        q_tm1, q_t = self._values(networks, batch, a_t, noise, moments)
        with torch.no_grad():
            goal = td.bootstrap(
                batch.reward.unsqueeze(-1),
                batch.discount.unsqueeze(-1),
                soft_value(self._successor(q_t), log_pi.unsqueeze(-1), alpha.unsqueeze(-1)),
            )  # [K, B, 1 or numbers of a distribution]
        mean, target = self._mean(q_tm1.detach()).mean(1), self._mean(goal)
        metrics = {"td_error": (target - mean).abs(), "q_mean": mean, "target_mean": target}
        return LossOut(self._distance(q_tm1, goal), metrics)

    def _values(
        self, networks: Networks, batch: Batch, a_t: Tensor, noise: Draws, moments: Moments
    ) -> tuple[Tensor, Tensor]:
        """What the critics say of the pairs taken, [K, E, B, Z], and of those that follow, without gradient."""
        if self.target_network:
            q_tm1 = networks.critics(batch.obs, batch.action, self._masks(noise, "online"))
            with torch.no_grad():
                slow, masks = networks.target_critics, self._masks(noise, "target")
                if "chosen" in noise:
                    return q_tm1, slow.some(noise["chosen"], batch.next_obs, a_t, masks)
                return q_tm1, slow(batch.next_obs, a_t, masks)
        # CrossQ, figure 2: one pass, so that both halves are normalised by the same statistics
        obs = torch.cat([batch.obs, batch.next_obs], 1)
        action = torch.cat([batch.action, a_t], 1)
        q_tm1, q_t = networks.critics(obs, action, moments=moments).chunk(2, 2)
        return q_tm1, q_t.detach()

    def _successor(self, q_t: Tensor) -> Tensor:
        """[K, E, B, Z] to the pessimist's value [K, B, 1], or to the quantiles that are left [K, B, M]."""
        if self.quantiles:
            return pooled(q_t.movedim(1, 2), self.dropped * self.critics)
        return q_t.amin(1)

    def _distance(self, q_tm1: Tensor, goal: Tensor) -> Tensor:
        """[K, E, B, Z] and a goal [K, B, M] to losses [K, B], summed over critics."""
        if not self.quantiles:
            return td.squared(q_tm1, goal.unsqueeze(1).expand_as(q_tm1)).squeeze(-1).sum(1)
        taus = midpoints(self.quantiles, q_tm1.device)
        losses = ordered_quantile_huber(q_tm1, taus, goal.unsqueeze(1), 1.0)
        return losses.sum(1) / self.quantiles

    def _mean(self, q: Tensor) -> Tensor:
        """[K, E, B, Z] to [K, E, B]."""
        return q.mean(-1) if self.quantiles else q.squeeze(-1)

    def policy_loss(
        self, networks: Networks, batch: Batch, noise: Draws, moments: Moments
    ) -> LossOut:
        """``α log π(a|s) - Q(s, a)`` of the policy's own action (equation 9), and the temperature's loss."""
        policy = networks.policy
        own = moments if self.norm == "batch" else None
        action, log_pi = policy.sample(batch.obs, noise["epsilon_tm1"], own)
        q = self._mean(networks.critics(batch.obs, action, self._masks(noise, "policy")))
        value = q.amin(1) if self.policy_value == "min" else q.mean(1)
        alpha = policy.log_alpha.exp().detach()
        loss = -soft_value(value, log_pi, alpha)
        if self.learn_alpha:
            entropy = -self.target_entropy * action.shape[-1]
            loss = loss + temperature_loss(policy.log_alpha, log_pi.detach(), entropy)
        metrics = {"alpha": alpha, "entropy": -log_pi.detach()}
        return LossOut(loss, metrics)

    def _masks(self, noise: Draws, of: str) -> Mapping[str, Tensor]:
        """Dropout's masks of one pass, by layer."""
        if not self.dropout:
            return NO_NOISE
        begins = f"{of}."
        found = {
            name.removeprefix(begins): mask
            for name, mask in noise.items()
            if name.startswith(begins)
        }
        assert found, f"no masks were drawn for {of}"
        return found

    # -- What is random --------------------------------------------------------------------------

    def draw(
        self,
        networks: Networks,
        batch: Batch,
        generators: Sequence[torch.Generator],
        policy_due: bool,
    ) -> dict[str, Tensor]:
        """Normal numbers [K, B, A] for both actions; the target's critics [K, M]; dropout's masks."""
        rows, size = batch.obs.shape[1], networks.policy.mlp.outputs // 2
        drawn = [torch.randn(2, rows, size, generator=g, device=g.device) for g in generators]
        epsilon = torch.stack(drawn, 1).to(batch.obs.device)
        noise = {"epsilon_t": epsilon[0], "epsilon_tm1": epsilon[1]}
        if self.target_critics:
            orders = [
                torch.randperm(self.critics, generator=g, device=g.device) for g in generators
            ]
            chosen = torch.stack(orders)[:, : self.target_critics]
            noise["chosen"] = chosen.to(batch.obs.device)
        if self.dropout:
            widths = networks.critics.mlp.masks()
            masks = self._draw_masks(widths, rows, generators, policy_due)
            noise |= {name: mask.to(batch.obs.device) for name, mask in masks.items()}
        return noise

    def _draw_masks(
        self,
        widths: Mapping[str, int],
        rows: int,
        generators: Sequence[torch.Generator],
        policy_due: bool,
    ) -> dict[str, Tensor]:
        """1 / (1 - p) where a number stays and 0 where not, [K M, B, width], by pass and layer."""
        members = {
            "online": self.critics,
            "target": self.target_critics or self.critics,
            **({"policy": self.critics} if policy_due else {}),
        }
        shapes = {
            f"{of}.{layer}": (count, rows, width)
            for of, count in members.items()
            for layer, width in widths.items()
        }
        sizes = [math.prod(shape) for shape in shapes.values()]
        each = [dropout_mask(sum(sizes), self.dropout, g) for g in generators]
        kept = torch.stack(each) if len(each) > 1 else each[0].unsqueeze(0)
        parts = zip(shapes.items(), torch.split(kept, sizes, 1), strict=True)
        return {name: part.reshape(-1, *shape[1:]) for (name, shape), part in parts}


def dropout_mask(size: int, rate: float, generator: torch.Generator) -> Tensor:
    """[size] 1 / (1 - p) with probability 1 - p, else 0: by the gaps between zeros, which are geometric.

    As many draws as there are zeros, and six standard deviations more, which in a thousand million masks
    falls short once; where few are dropped that is a tenth of the time of a draw for each number.
    """
    zeros = size * rate
    gaps = torch.empty(math.ceil(zeros + 6.0 * math.sqrt(zeros)) + 1, device=generator.device)
    places = gaps.geometric_(rate, generator=generator).cumsum(0, dtype=torch.float64) - 1.0
    mask = torch.full((size + 1,), 1.0 / (1.0 - rate), device=generator.device)
    # those beyond the end share a place there
    return mask.index_fill_(0, places.clamp(max=size).to(torch.int64), 0.0)[:size]


def make_networks(
    config: SACConfig, spec: Spec, seeds: int, device: torch.device
) -> tuple[GaussianPolicy, Critics]:
    """Policy and critics of K seeds, not yet initialised."""
    inputs, actions = width_of(spec)
    batch_norm = "batch" if config.norm == "batch" else "none"
    policy = MLP(
        seeds, inputs, config.hidden, 2 * actions, device, norm=batch_norm, bf16=config.bf16
    )
    critics = MLP(
        seeds * config.critics, inputs + actions, config.hidden, config.quantiles or 1, device,
        norm=config.norm, dropout=config.dropout, bf16=config.bf16,
    )  # fmt: skip
    return GaussianPolicy(policy, seeds, config.alpha, config.learn_alpha), Critics(
        critics, config.critics
    )


def make_actor(
    config: SACConfig, spec: Spec, generators: Sequence[np.random.Generator]
) -> PolicyActor:
    """An actor that draws from the policy, for as many seeds as there are generators."""
    networks = make_networks(config, spec, len(generators), torch.device("cpu"))
    return PolicyActor(spec, *networks, generators)


def make_learner(
    config: SACConfig,
    spec: Spec,
    lanes: int,
    learner_seeds: Sequence[np.random.SeedSequence],
    replay_generators: Sequence[np.random.Generator],
    device: torch.device,
    frames: MakeFrames | None = None,
) -> ActorCriticLearner:
    """A learner for a group of K seeds of ``lanes`` lanes each; ``frames``: where its replay keeps observations."""
    networks = make_networks(config, spec, len(learner_seeds), device)
    return assemble(config, spec, lanes, networks, learner_seeds, replay_generators, frames)
