"""Bootstrapped DQN: an ensemble explores deeply, since each member follows a guess of its own to its end.

Osband, Blundell, Pritzel & Van Roy 2016, "Deep Exploration via Bootstrapped DQN", arXiv:1602.04621, with the
additive random priors of Osband, Aslanides & Cassirer 2018, arXiv:1806.03335: members share no layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn

from agents.contract import Array, Batch, LossOut, Network, Noise, Params, State, group_generators
from agents.device.bridge import Bridge
from agents.exploration import epsilon_greedy, greedy
from agents.hyper import BadValue, Search, at_least, check, positive, unit
from agents.learner import GradientLearner
from agents.networks import FlatParameters, QNetwork, initialise
from agents.replay.frames import MakeFrames
from agents.replay.ring import RingReplay
from agents.replay.stack import push
from agents.rules import td
from envs.contract import Spec

GROUP = 4  # seeds trained together: each is an ensemble already


@dataclass(frozen=True)
class BootstrappedDQNConfig:
    """Hyperparameters of bootstrapped DQN; all steps are lane steps of one seed."""

    heads: Annotated[int, at_least(1)] = 10
    """networks in the ensemble"""
    prior_scale: Annotated[float, at_least(0), Search("log", 0.3, 30.0)] = 3.0
    """factor β on each network's fixed random prior; 0: no priors"""
    mask_share: Annotated[float, unit()] = 0.5
    """share of the transitions that each network learns of"""
    lr: Annotated[float, positive(), Search("log", 1e-4, 1e-2)] = 1e-3
    """Adam's learning rate"""
    gamma: Annotated[float, unit(), Search("linear", 0.95, 0.999)] = 0.99
    """discount per step"""
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
    n_step: Annotated[int, at_least(1), Search("linear", 1, 10)] = 1
    """rewards summed before bootstrapping"""
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
    """LayerNorm after every hidden layer"""
    huber: Annotated[float, positive()] = 1.0
    """where the loss turns from quadratic to linear"""
    max_grad_norm: Annotated[float, positive()] = 10.0
    """bound on a seed's gradient norm"""
    adam_eps: Annotated[float, positive()] = 1e-8
    """Adam's epsilon"""
    reward_scale: Annotated[float, positive()] = 1.0
    """factor on rewards, for the learner only"""
    reward_clip: Annotated[float, at_least(0)] = 0.0
    """bound on scaled rewards' magnitude; 0 for none"""
    frame_stack: Annotated[int, at_least(1)] = 1
    """newest observations that the networks look at"""
    end_on_life_loss: bool = False
    """a lost life ends the episode for the learner"""

    def __post_init__(self) -> None:
        check(self)
        if self.replay_size < self.batch_size:
            raise BadValue(
                f"replay_size: got {self.replay_size}, takes at least batch_size = {self.batch_size}"
            )

    def loss(self, online: Network, target: Network, batch: Batch, noise: Noise) -> LossOut:
        """The mean over heads of DQN's loss, each head with its own target, where its mask is 1.

        Osband et al. 2016, Algorithm 1 with equation 1; the target is of the same head (section 3).
        """
        del (
            noise
        )  # none: what is random was drawn when the transition came, or at an episode's start
        assert isinstance(online, Ensemble)
        assert isinstance(target, Ensemble)
        q_tm1 = td.select(online(batch.obs), self._each_head(batch.action))  # [K, H, B]
        with torch.no_grad():
            prior = online.prior(batch.next_obs)  # the target's is the same, as it never learns
            q_t = target(batch.next_obs, prior)
            mask = batch.next_action_mask
            legal = None if mask is None else mask.unsqueeze(1)
            chooses = online(batch.next_obs, prior) if self.double else q_t
            a_t = td.greedy_action(chooses, legal)
            reward, discount = batch.reward.unsqueeze(1), batch.discount.unsqueeze(1)
            goal = td.bootstrap(reward, discount, td.select(q_t, a_t))
            learns = bootstrap_mask(
                batch.extras["number"], online.mask_key, self.heads, self.mask_share
            )
            td_error = (goal - q_tm1).abs().mean(1)
        loss = (learns * td.huber(q_tm1, goal, self.huber)).mean(1)
        metrics = {
            "td_error": td_error,
            "q_mean": q_tm1.detach().mean(1),
            "target_mean": goal.mean(1),
            "head_spread": q_tm1.detach().std(1, correction=0),
        }
        return LossOut(loss, metrics)

    def _each_head(self, action: Tensor) -> Tensor:
        return action.unsqueeze(1).expand(-1, self.heads, -1)


def bootstrap_mask(number: Tensor, key: Tensor, heads: int, share: float) -> Tensor:
    """Whether each head learns of a transition: Bernoulli(``share``), the same whenever it is asked.

    A hash of the seed's key and the transition's number stands for a stored mask (splitmix64's mixing, Steele, Lea
    & Flood 2014).

    Args:
        number: [K, B] int64, of transitions as they came.
        key: [K, 1] float32 from 0 to 1, each seed's own.
        heads: H.
        share: of the transitions, a head.

    Returns:
        [K, H, B] float32, 0 or 1.
    """
    x = number.unsqueeze(1) * heads + torch.arange(heads, device=number.device).unsqueeze(-1)
    x = x ^ ((key * (1 << 24)).to(torch.int64).unsqueeze(-1) << 40)  # above any number
    x = (x + 1) * -7046029254386353131  # the odd constants as signed numbers, which wrap
    x = (x ^ (x >> 30)) * -4658895280553007687
    x = (x ^ (x >> 27)) * -7723592293110705685
    x = x ^ (x >> 31)
    bits = 24
    return ((x & ((1 << bits) - 1)) < share * (1 << bits)).to(torch.float32)


class Ensemble(nn.Module):
    """H networks a seed: ``Q_h = f_h + β p_h``, where p_h stays as it was drawn.

    Source: Osband et al. 2018, arXiv:1806.03335, equation 5 and Figure 3.
    """

    def __init__(
        self,
        make: Callable[[int, torch.device], QNetwork],
        seeds: int,
        heads: int,
        prior_scale: float,
        device: torch.device,
    ) -> None:
        """``make(networks, device)`` makes so many networks of the kind; all are 0 until `reset`."""
        super().__init__()
        self.make, self.seeds, self.heads, self.prior_scale = make, seeds, heads, prior_scale
        # what computes for one seed; it has no numbers of its own, and is no part of the module tree
        self.shape = (make(heads, torch.device("meta")),)
        for part in self._parts():
            for name, leaf in self.shape[0].named_parameters():
                zeros = torch.zeros(seeds, *leaf.shape, device=device)
                own = nn.Parameter(zeros, requires_grad=part == "free")
                self.register_parameter(_flat_name(part, name), own)
        # A parameter that is never learned, so that it is saved and published with the others.
        self.mask_key = nn.Parameter(torch.zeros(seeds, 1, device=device), requires_grad=False)

    def _parts(self) -> list[str]:
        return ["free", "prior"] if self.prior_scale else ["free"]

    def reset(self, generators: Sequence[torch.Generator]) -> None:
        """Draw each seed's networks, then its priors and what its masks depend on, from its own generator."""
        each = [generator for generator in generators for _ in range(self.heads)]
        for part in self._parts():
            drawn = self.make(len(each), next(self.parameters()).device)
            initialise(drawn, each)
            for name, leaf in drawn.named_parameters():
                own = self.get_parameter(_flat_name(part, name))
                own.data.copy_(leaf.data.view(own.shape))
        for key, generator in zip(self.mask_key.data, generators, strict=True):
            key.uniform_(generator=generator)

    def forward(self, obs: Tensor, prior: Tensor | None = None) -> Tensor:
        """Observations [K, B, ...] to action values [K, H, B, A] of every head.

        ``prior`` is what `prior` gives for them; None: it is worked out.
        """
        q = self._through("free", obs)
        prior = self.prior(obs) if prior is None else prior
        return q if prior is None else q + prior

    def prior(self, obs: Tensor) -> Tensor | None:
        """β p_h [K, H, B, A]; None without priors."""
        if not self.prior_scale:
            return None
        with torch.no_grad():
            return self.prior_scale * self._through("prior", obs)

    def first_head(self) -> QNetwork:
        """Each seed's first network without its prior, a copy whose layers can be looked into."""
        copy = self.make(self.seeds, next(self.parameters()).device)
        for name, leaf in copy.named_parameters():
            leaf.data.copy_(self.get_parameter(_flat_name("free", name)).data[:, 0])
        return copy

    def _through(self, part: str, obs: Tensor) -> Tensor:
        """Seed by seed, whose parameters are views: those of all in one product would be copies."""
        network = self.shape[0]
        names = [name for name, _ in network.named_parameters()]
        leaves = [self.get_parameter(_flat_name(part, name)).unbind() for name in names]
        q = []
        for k, rows in enumerate(obs):
            weights = {name: leaf[k] for name, leaf in zip(names, leaves, strict=True)}
            each = rows.expand(self.heads, *rows.shape)
            q.append(torch.func.functional_call(network, weights, (each,)))
        return torch.stack(q)


def _flat_name(part: str, name: str) -> str:
    """A parameter's name may hold no dots."""
    return f"{part}_{name.replace('.', '_')}"


class EnsembleActor:
    """Each lane follows one head from an episode's beginning to its end; greedy actions are voted on.

    Osband et al. 2016, Algorithm 1, line 4, and section 6.1 (the vote). Its state is each lane's head.
    """

    stored = False  # no learner looks at it

    def __init__(
        self, network: Ensemble, spec: Spec, frames: int, generators: Sequence[np.random.Generator]
    ) -> None:
        """An actor of as many seeds as there are generators, ``frames`` observations each."""
        self.parameters = FlatParameters(network)
        self.network = network.requires_grad_(False)
        self.bridge = Bridge(self.parameters.flat.device)
        self.spec, self.frames, self.generators = spec, frames, generators
        self.epsilon = 0.0

    @property
    def looks_back(self) -> bool:
        """Whether there is a stack of frames; the head of a lane is for exploring only."""
        return self.frames > 1

    def move(self, device: torch.device) -> None:
        """Compute there from now on, which pays for many lanes."""
        self.parameters = FlatParameters(self.network.to(device))
        self.bridge = Bridge(self.parameters.flat.device)

    def initial_state(self, lanes: int) -> State:
        """No head yet, and no frames."""
        shape = (len(self.generators), lanes)
        state: State = {"head": np.zeros(shape, np.int64)}
        if self.frames > 1:
            before = (*shape, self.frames - 1, *self.spec.obs_shape)
            state["frames"] = np.zeros(before, self.spec.obs_dtype)
        return state

    def act(
        self, obs: Array, first: Array, facts: Mapping[str, Array], state: State, explore: bool
    ) -> tuple[Array, State, dict[str, Array]]:
        """Actions [K, n] for observations [K, n, ...]; legal ones where a mask is among the facts."""
        after: State = {}
        if "frames" in state:
            obs = push(state["frames"], obs, first)
            after["frames"] = obs[:, :, 1:]
        values = self.members(obs)
        mask = facts.get("action_mask")
        if not explore:
            return vote(values, mask), {**after, "head": state["head"]}, {"seen": obs}
        heads, lanes = self.network.heads, obs.shape[1]
        drawn = np.stack([g.integers(heads, size=lanes) for g in self.generators])
        after["head"] = np.where(first, drawn, state["head"])
        own = np.take_along_axis(values, after["head"][:, None, :, None], 1)[:, 0]
        return epsilon_greedy(own, self.epsilon, self.generators, mask), after, {}

    def members(self, seen: Array) -> Array:
        """Action values [K, H, n, A] of every head."""
        with torch.inference_mode(), self.bridge.crossed():
            there = self.bridge.up({"seen": torch.from_numpy(seen)})
            return self.bridge.down(self.network(there["seen"]))

    def values(self, seen: Array) -> Array:
        """Action values [K, n, A] of what the networks look at: the heads' means."""
        mean: Array = self.members(seen).mean(1)
        return mean

    def activations(self, seen: Array) -> list[Array]:
        """What every ReLU of the first head gives there, [K, n, units, ...] each."""
        with torch.inference_mode(), self.bridge.crossed():
            there = self.bridge.up({"seen": torch.from_numpy(seen)})
            found = self.network.first_head().activations(there["seen"])
            return [self.bridge.down(layer) for layer in found]

    def load_params(self, params: Params) -> None:
        """Copy the weights and take ε."""
        with self.bridge.crossed():
            self.parameters.flat.copy_(params.tensors["flat"], non_blocking=True)
        self.epsilon = params.scalars["epsilon"]


def vote(values: Array, mask: Array | None = None) -> Array:
    """The action [K, n] that most heads of values [K, H, n, A] would take; ties to the lowest index."""
    best = greedy(values, None if mask is None else mask[:, None])
    votes = best[..., None] == np.arange(values.shape[-1])
    most: Array = votes.sum(1).argmax(-1)
    return most


def make_network(
    config: BootstrappedDQNConfig, spec: Spec, seeds: int, device: torch.device
) -> Ensemble:
    """The ensembles of K seeds, not yet drawn."""

    def members(networks: int, device: torch.device) -> QNetwork:
        return QNetwork(
            spec,
            networks,
            config.hidden,
            layer_norm=config.layer_norm,
            dueling=False,
            device=device,
            frame_stack=config.frame_stack,
        )

    return Ensemble(members, seeds, config.heads, config.prior_scale, device)


def make_actor(
    config: BootstrappedDQNConfig, spec: Spec, generators: Sequence[np.random.Generator]
) -> EnsembleActor:
    """An actor for as many seeds as there are generators."""
    network = make_network(config, spec, len(generators), torch.device("cpu"))
    return EnsembleActor(network, spec, config.frame_stack, generators)


def make_learner(
    config: BootstrappedDQNConfig,
    spec: Spec,
    lanes: int,
    learner_seeds: Sequence[np.random.SeedSequence],
    replay_generators: Sequence[np.random.Generator],
    device: torch.device,
    frames: MakeFrames | None = None,
) -> GradientLearner:
    """A learner for a group of K seeds of ``lanes`` lanes each; ``frames``: where its replay keeps observations."""
    network = make_network(config, spec, len(learner_seeds), device)
    network.reset(group_generators(learner_seeds, device))
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
        end_on_life_loss=config.end_on_life_loss,
        compression=config.replay_compression,
        frames=frames,
    )
    return GradientLearner(config, config.loss, network, replay)
