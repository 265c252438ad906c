"""A deep Q-network that explores by random network distillation: what is new is what is badly predicted.

Burda, Edwards, Storkey & Klimov 2018, "Exploration by Random Network Distillation", arXiv:1810.12894. Theirs
is a policy-gradient agent; here each of its two value heads is an action value of its own, learned from
replay, as Badia et al. 2020 (Agent57), arXiv:2003.13350, section 3.1, split theirs.
Deviations: observations are whitened by what was seen so far, not by a random agent's steps at first. Each gradient
step fits the predictor to the whole latest rollout, so that a row takes part in lanes · rollout_length · replay_ratio
steps (theirs: in a few passes over a share of the rows), and one from before learning_starts in none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.contract import Array, Batch, LossOut, Network, Noise, Rollout, State, group_generators
from agents.hyper import BadValue, Search, at_least, check, positive, unit
from agents.learner import GradientLearner
from agents.networks import QNetwork, initialise
from agents.q_actor import QActor
from agents.replay.frames import MakeFrames
from agents.replay.ring import RingReplay
from agents.rules import td
from agents.running import Running
from envs.contract import Spec

GROUP = 8  # seeds trained together

CLIP = 5.0  # whitened observations' bound, section 2.4


@dataclass(frozen=True)
class RNDConfig:
    """Hyperparameters of `dqn` with a distillation bonus; all steps are lane steps of one seed."""

    bonus_scale: Annotated[float, at_least(0), Search("log", 0.1, 10.0)] = 1.0
    """weight of the bonus's value beside the reward's while exploring; 0: none"""
    gamma_int: Annotated[float, unit()] = 0.99
    """discount per step of bonuses, which go on beyond an episode's end"""
    features: Annotated[int, at_least(1)] = 64
    """numbers of the random network that are to be predicted"""
    lr: Annotated[float, positive(), Search("log", 1e-4, 1e-2)] = 1e-3
    """Adam's learning rate"""
    gamma: Annotated[float, positive(1), Search("linear", 0.95, 0.999)] = 0.99
    """discount per step of rewards"""
    batch_size: Annotated[int, at_least(1)] = 64
    """transitions in a gradient step"""
    replay_size: Annotated[int, at_least(2)] = 100_000
    """transitions kept, a seed"""
    replay_compression: Literal["none", "lz4"] = "none"
    """how the replay keeps images; the bits are the same"""
    replay_ratio: Annotated[float, positive()] = 0.5
    """gradient steps per lane step"""
    learning_starts: Annotated[int, at_least(0)] = 1_000
    """lane steps before the first gradient step"""
    n_step: Annotated[int, at_least(1)] = 1
    """rewards summed before bootstrapping; 1, as each step has a bonus of its own"""
    double: bool = True
    """choose the next action by the online network"""
    target_period: Annotated[int, at_least(1), Search("log", 50, 2_000)] = 500
    """lane steps between target updates"""
    target_tau: Annotated[float, positive(1)] = 1.0
    """step towards the online network at a target update; 1 copies"""
    epsilon_start: Annotated[float, unit()] = 0.0
    """share of random actions at the start"""
    epsilon_end: Annotated[float, unit()] = 0.0
    """share of random actions in the end"""
    epsilon_steps: Annotated[int, at_least(0)] = 10_000
    """lane steps over which it falls"""
    hidden: tuple[Annotated[int, at_least(1)], ...] = (64, 64)
    """widths of the hidden layers"""
    layer_norm: bool = False
    """LayerNorm after every hidden layer of the value network"""
    huber: Annotated[float, positive()] = 1.0
    """where the loss of values turns from quadratic to linear"""
    max_grad_norm: Annotated[float, positive()] = 10.0
    """bound on a seed's gradient norm"""
    adam_eps: Annotated[float, positive()] = 1e-8
    """Adam's epsilon"""
    reward_scale: Annotated[float, positive()] = 1.0
    """factor on rewards, for the learner only"""
    reward_clip: Annotated[float, at_least(0)] = 0.0
    """bound on scaled rewards' magnitude; 0 for none"""
    frame_stack: Annotated[int, at_least(1)] = 1
    """newest observations that the value network looks at"""

    def __post_init__(self) -> None:
        check(self)
        if self.replay_size < self.batch_size:
            raise BadValue(
                f"replay_size: got {self.replay_size}, takes at least batch_size = {self.batch_size}"
            )
        if self.n_step > 1:
            raise BadValue(
                f"n_step: got {self.n_step}, takes 1: a window has no bonuses of the steps inside it"
            )

    def loss(self, online: Network, target: Network, batch: Batch, noise: Noise) -> LossOut:
        """DQN's loss of rewards, the same of bonuses, and the error of the predictor (section 2.2).

        A bonus is the present error at the successor, so that none is ever stale. The predictor learns of
        the latest rollout alone: of replayed rows it would learn that what was seen once is old.
        """
        del noise  # none
        assert isinstance(online, RNDNetwork)
        known = batch.extras
        q_tm1 = td.select(online(batch.obs), batch.action)  # [K, B, 2]
        newest = batch.next_obs[:, :, -1] if self.frame_stack > 1 else batch.next_obs
        moments = known["obs_mean"], known["obs_std"]
        errors = online.error(online.whiten(known["latest"], *moments))
        surprise = (errors * known["latest_share"]).sum(1, keepdim=True)  # [K, 1]
        with torch.no_grad():
            bonus = online.error(online.whiten(newest, *moments))
            bonus = bonus / known["bonus_std"].unsqueeze(1)
            goal = torch.stack(self.goals(online, target, batch, bonus), -1)
        loss = td.huber(q_tm1, goal, self.huber).sum(-1) + surprise
        q, v = q_tm1.detach()[..., 0], goal[..., 0]
        metrics = {"td_error": (v - q).abs(), "q_mean": q, "target_mean": v}
        # of scaled rewards, as metrics are understood; a bonus is never scaled, so that here it has to be
        bonuses = {"bonus": bonus, "bonus_value": q_tm1.detach()[..., 1]}
        metrics |= {name: value * self.reward_scale for name, value in bonuses.items()}
        return LossOut(loss, metrics)

    def goals(
        self, online: Network, target: Network, batch: Batch, bonus: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[K, B] targets of reward and bonus: episodic and of the policy that is best; and neither.

        Bonuses are those of the exploring policy, and end nowhere (section 2.3): behind a termination
        comes a beginning, of which the lanes' latest stand for all.
        """
        restart, rows = batch.extras["restart"], batch.next_obs.shape[1]
        following = torch.cat([batch.next_obs, restart], 1)
        mask = batch.next_action_mask
        if mask is not None:
            mask = torch.cat([mask, batch.extras["restart_mask"]], 1)
        q_t = target(following)
        chooser = online(following) if self.double else q_t
        best = td.greedy_action(rewards_values(chooser), mask)
        exploring = td.greedy_action(self.exploring_values(chooser), mask)
        v_t = td.select(q_t[..., 0], best)[:, :rows]
        bonus_v_t = td.select(q_t[..., 1], exploring)
        v_restart = bonus_v_t[:, rows:].mean(1, keepdim=True)
        bonus_v_t = torch.where(batch.discount == 0, v_restart, bonus_v_t[:, :rows])
        gamma_int = torch.full_like(bonus, self.gamma_int)
        return (
            td.bootstrap(batch.reward, batch.discount, v_t),
            td.bootstrap(bonus, gamma_int, bonus_v_t),
        )

    def exploring_values(self, out: Tensor) -> Tensor:
        """[..., A] what exploration goes by: ``Q_E + β Q_I`` of outputs [..., A, 2]."""
        return out[..., 0] + self.bonus_scale * out[..., 1]


def rewards_values(out: Tensor) -> Tensor:
    """[..., A] values of rewards alone, of outputs [..., A, 2]."""
    return out[..., 0]


class RNDNetwork(QNetwork):
    """Two values for each action, of rewards and of bonuses; beside them the two networks of the bonus.

    The random one stays as it was drawn. The predictor has two more layers (appendix A.5).
    """

    def __init__(self, config: RNDConfig, spec: Spec, seeds: int, device: torch.device) -> None:
        super().__init__(
            spec,
            seeds,
            config.hidden,
            layer_norm=config.layer_norm,
            dueling=False,
            device=device,
            frame_stack=config.frame_stack,
            outputs=2,
        )
        whitened = replace(
            spec,
            obs_shape=statistics_shape(spec),
            obs_dtype=np.float32,
            num_states=0,
            num_actions=config.features,
            obs_scale=1.0,
        )
        more = (config.features, config.features)
        self.predictor, self.random = (
            QNetwork(whitened, seeds, hidden, layer_norm=False, dueling=False, device=device)
            for hidden in ((*config.hidden, *more), config.hidden)
        )
        self.random.requires_grad_(False)

    def whiten(self, obs: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Single observations [K, B, ...] less their mean, over their deviation [K, ...], clipped (section 2.4).

        A state's number is a row of a 1 and zeros.
        """
        if self.num_states:
            obs = functional.one_hot(obs, self.num_states)
        x = (obs.to(torch.float32) - mean.unsqueeze(1)) / std.unsqueeze(1)
        return x.clamp(-CLIP, CLIP)

    def error(self, whitened: Tensor) -> Tensor:
        """[K, B] the predictor's mean squared error over the random network's features."""
        with torch.no_grad():
            wanted = self.random(whitened)
        error: Tensor = self.predictor(whitened) - wanted
        return error.square().mean(-1)


def statistics_shape(spec: Spec) -> tuple[int, ...]:
    """Of one observation's statistics."""
    return (spec.num_states,) if spec.num_states else spec.obs_shape


class RNDStatistics:
    """What bonuses are measured by: moments of observations, and of the sums of bonuses to come.

    A bonus is divided by the deviation of its lane's running sum ``R ← γ_I R + error`` (section 2.4), over
    all transitions so far. Beside them each lane's latest beginning, [K, n, ...], a stack where there is one.
    """

    def __init__(
        self, config: RNDConfig, spec: Spec, seeds: int, lanes: int, device: torch.device
    ) -> None:
        self.spec, self.gamma, self.device = spec, config.gamma_int, device
        self.observations = Running(seeds, statistics_shape(spec))
        self.returns = Running(seeds)
        self.carried = np.zeros((seeds, lanes))
        stack = (config.frame_stack,) if config.frame_stack > 1 else ()
        self.restart = np.zeros((seeds, lanes, *stack, *spec.obs_shape), spec.obs_dtype)
        self.newest = self.restart[:, :, -1] if stack else self.restart  # the rest stays blank
        self.restart_mask = np.ones((seeds, lanes, spec.num_actions), np.bool_)
        # what the latest rollout's steps led to, and what each counts
        self.latest = np.zeros((seeds, lanes, *spec.obs_shape), spec.obs_dtype)
        self.share = np.zeros((seeds, lanes))
        self._tell()

    def _tell(self) -> None:
        """Bring the loss's numbers up to date."""

        def tensor(x: Array, kind: torch.dtype | None = torch.float32) -> Tensor:
            return torch.tensor(x, dtype=kind, device=self.device)

        self._extras = {
            "obs_mean": tensor(self.observations.mean),
            "obs_std": tensor(self.observations.deviation()),
            "bonus_std": tensor(self.returns.deviation()),
            "restart": tensor(self.restart, None),
            "latest": tensor(self.latest, None),
            "latest_share": tensor(self.share),
        }
        if self.spec.action_mask:
            self._extras["restart_mask"] = tensor(self.restart_mask, None)

    def extras(self) -> dict[str, Tensor]:
        """All that a loss asks for, by name."""
        return self._extras

    def observe(self, rollout: Rollout, network: nn.Module) -> None:
        """Add the observations that steps led to, and the bonuses that they bring now."""
        assert isinstance(network, RNDNetwork)
        seeds, lanes = self.carried.shape

        def by_seed(x: Array) -> Array:
            return np.asarray(x).reshape(len(x), seeds, lanes, *x.shape[2:])

        obs, first, valid = (by_seed(x) for x in (rollout.obs, rollout.first, rollout.valid))
        masks = by_seed(rollout.facts["action_mask"]) if self.spec.action_mask else None
        for t in range(len(first)):
            self.newest[first[t]] = obs[t][first[t]]
            if masks is not None:
                self.restart_mask[first[t]] = masks[t][first[t]]
        seen = obs[1:]
        rows, counts = len(seen) * lanes, _by_row(valid)
        self.observations.add(self._numbers(_by_row(seen)), counts)
        self.latest = seen.swapaxes(0, 1).reshape(seeds, rows, *seen.shape[3:]).copy()
        share = valid.swapaxes(0, 1).reshape(seeds, rows)
        self.share = share / np.maximum(share.sum(1, keepdims=True), 1)
        self._tell()
        returns = self._returns(self._errors(len(seen), network), valid)
        self.returns.add(_by_row(returns), counts)
        self._tell()

    def _numbers(self, rows: Array) -> Array:
        """Observations [M, K, ...] as what moments are of: a state's number as a row of a 1 and zeros."""
        return rows[..., None] == np.arange(self.spec.num_states) if self.spec.num_states else rows

    def _errors(self, rows: int, network: RNDNetwork) -> Array:
        """[T, K, n] the predictor's errors at the latest observations."""
        known = self._extras
        with torch.no_grad():
            white = network.whiten(known["latest"], known["obs_mean"], known["obs_std"])
            errors: Array = network.error(white).cpu().numpy()
        return errors.reshape(len(errors), rows, -1).swapaxes(0, 1)

    def _returns(self, errors: Array, valid: Array) -> Array:
        """[T, K, n] the lanes' running sums behind each row; an ignored row adds nothing."""
        sums = np.empty(errors.shape)
        for t, error in enumerate(errors):
            np.copyto(self.carried, self.gamma * self.carried + error, where=valid[t])
            sums[t] = self.carried
        return sums

    def state_dict(self) -> State:
        return {
            "observations": self.observations.state_dict(),
            "returns": self.returns.state_dict(),
            "carried": self.carried,
            "restart": self.restart,
            "restart_mask": self.restart_mask,
            "latest": self.latest,
            "share": self.share,
        }

    def load_state_dict(self, state: State) -> None:
        self.observations.load_state_dict(state["observations"])
        self.returns.load_state_dict(state["returns"])
        for name in ("carried", "restart", "restart_mask"):
            getattr(self, name)[:] = state[name]
        self.latest, self.share = np.array(state["latest"]), np.array(state["share"])
        self._tell()

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        kept = list(seeds)
        self.observations.keep(kept)
        self.returns.keep(kept)
        stacked = self.newest is not self.restart
        self.carried, self.restart = self.carried[kept], self.restart[kept]
        self.restart_mask = self.restart_mask[kept]
        self.latest, self.share = self.latest[kept], self.share[kept]
        self.newest = self.restart[:, :, -1] if stacked else self.restart
        self._tell()


def _by_row(column: Array) -> Array:
    """[T, K, n, ...] as [T n, K, ...]."""
    return column.swapaxes(1, 2).reshape(-1, column.shape[1], *column.shape[3:])


def make_actor(config: RNDConfig, spec: Spec, generators: Sequence[np.random.Generator]) -> QActor:
    """An ε-greedy actor on both values while it explores, else on those of rewards."""
    network = RNDNetwork(config, spec, len(generators), torch.device("cpu"))
    return QActor(network, generators, rewards_values, exploring_values=config.exploring_values)


def make_learner(
    config: RNDConfig,
    spec: Spec,
    lanes: int,
    learner_seeds: Sequence[np.random.SeedSequence],
    replay_generators: Sequence[np.random.Generator],
    device: torch.device,
    frames: MakeFrames | None = None,
) -> GradientLearner:
    """A learner for a group of K seeds of ``lanes`` lanes each; ``frames``: where its replay keeps observations."""
    seeds = len(learner_seeds)
    network = RNDNetwork(config, spec, seeds, device)
    initialise(network, group_generators(learner_seeds, device))
    replay = RingReplay(
        spec,
        replay_generators,
        lanes,
        capacity=config.replay_size,
        batch_size=config.batch_size,
        n_step=config.n_step,
        gamma=config.gamma,
        reward_scale=config.reward_scale,
        reward_clip=config.reward_clip or np.inf,
        frame_stack=config.frame_stack,
        compression=config.replay_compression,
        frames=frames,
    )
    statistics = RNDStatistics(config, spec, seeds, lanes, device)
    return GradientLearner(config, config.loss, network, replay, statistics=statistics)
