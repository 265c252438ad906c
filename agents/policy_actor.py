"""The actor of every agent with continuous actions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.contract import Array, Params, State
from agents.device.bridge import Bridge
from agents.networks import FlatParameters
from agents.running import normalised
from envs.contract import Spec

OBS_BOUND = 10.0
"""How many deviations a normalised observation is away at most: what has not moved so far would be far out."""


def action_units(spec: Spec, seeds: int) -> dict[str, Tensor]:
    """What an action in [-1, 1] is times ``action_half`` plus ``action_centre``: [K, A] float32 each."""
    low, high = (np.asarray(end, np.float64).reshape(-1) for end in _bounds(spec))
    centre, half = (high + low) / 2.0, (high - low) / 2.0
    return {
        name: torch.from_numpy(value.astype(np.float32)).expand(seeds, -1).contiguous()
        for name, value in (("action_centre", centre), ("action_half", half))
    }


class PolicyActor:
    """Acts by a policy, whose observations and actions it brings into the policy's units and back.

    A policy has ``explore(obs, epsilon)`` and ``mode(obs)``, critics value what it does for whoever looks at
    an agent's health. Parameters and statistics are as they were published.
    """

    stored = looks_back = False  # it has no state

    def __init__(
        self,
        spec: Spec,
        policy: Any,
        critics: Any,
        generators: Sequence[np.random.Generator],
    ) -> None:
        """An actor of as many seeds as there are generators; ``policy`` None: the critics hold it."""
        self.spec, self.generators = spec, generators
        self._critics = critics.requires_grad_(False)
        self.policy = self._critics if policy is None else policy.requires_grad_(False)
        self._place(torch.device("cpu"))
        self._unread: Tensor | None = (
            None  # the critics' newest weights, until somebody asks for values
        )
        self.uniform = True
        seeds = len(generators)
        self.centre, self.half = (
            value[:, None].numpy() for value in action_units(spec, seeds).values()
        )
        shape = (seeds, 1, width_of(spec)[0])
        self.mean, self.scale = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        self.bound = np.inf  # of what is normalised
        self.low, self.high = _bounds(spec)

    def move(self, device: torch.device) -> None:
        """Compute there from now on, which pays for many lanes."""
        self._critics, self.policy = self._critics.to(device), self.policy.to(device)
        self._place(device)

    def _place(self, device: torch.device) -> None:
        self.parameters = FlatParameters(self.policy)
        self._of_critics = FlatParameters(self._critics) if self.apart else self.parameters
        self.bridge = Bridge(device)

    @property
    def apart(self) -> bool:
        """Whether there is a policy beside the critics."""
        return self.policy is not self._critics

    def initial_state(self, lanes: int) -> State:
        """None: the observation is all there is."""
        del lanes
        return {}

    def act(
        self, obs: Array, first: Array, facts: Mapping[str, Array], state: State, explore: bool
    ) -> tuple[Array, State, dict[str, Array]]:
        """Actions [K, n, ...] in the environment's units for observations [K, n, ...].

        Without exploring they are the policy's best, and the extras hold the observations, as ``seen``.
        """
        del first, facts
        if not explore:
            return self._actions(self._best(obs)), state, {"seen": obs}
        return self._actions(self._drawn(obs)), state, {}

    def _drawn(self, obs: Array) -> Array:
        """[K, n, A] in [-1, 1], drawn uniformly or as the policy explores."""
        shape = (obs.shape[1], self.centre.shape[-1])
        if self.uniform:
            return np.stack([g.uniform(-1.0, 1.0, shape) for g in self.generators])
        epsilon = np.stack([g.standard_normal(shape, np.float32) for g in self.generators])
        with torch.inference_mode(), self.bridge.crossed():
            rows = {"obs": self._input(obs), "epsilon": torch.from_numpy(epsilon)}
            there = self.bridge.up(rows)
            return self.bridge.down(self.policy.explore(there["obs"], there["epsilon"]))

    def _best(self, obs: Array) -> Array:
        with torch.inference_mode(), self.bridge.crossed():
            return self.bridge.down(self.policy.mode(self._up(obs)))

    def _up(self, obs: Array) -> Tensor:
        """What the networks look at, where they are."""
        return self.bridge.up({"obs": self._input(obs)})["obs"]

    def _actions(self, action: Array) -> Array:
        """In the environment's units, within its bounds whatever rounding does."""
        raw = (self.centre + self.half * action).reshape(*action.shape[:2], *self.spec.action_shape)
        within: Array = np.clip(raw, self.low, self.high).astype(self.spec.action_dtype)
        return within

    def _input(self, obs: Array) -> Tensor:
        rows = normalised(obs.reshape(*obs.shape[:2], -1), self.mean, self.scale)
        return torch.from_numpy(rows.clip(-self.bound, self.bound))

    @property
    def critics(self) -> Any:
        """The critics, with the weights that were published last."""
        self._read()
        return self._critics

    def _read(self) -> None:
        if self._unread is not None:
            own = self._of_critics.flat
            own.copy_(self._unread.reshape(own.shape), non_blocking=True)
            self._unread = None

    def members(self, seen: Array) -> Array:
        """What each critic expects of the policy's best action at observations [K, n, ...]: [K, E, n, 1]."""
        with torch.inference_mode(), self.bridge.crossed():
            x = self._up(seen)
            q: Tensor = self.critics(x, self.policy.mode(x))
            return self.bridge.down(q.mean(-1, keepdim=True))

    def values(self, seen: Array) -> Array:
        """The same as the critics' mean: [K, n, 1]."""
        values: Array = self.members(seen).mean(1)
        return values

    def paid(self, seen: Array, generator: np.random.Generator) -> Array:
        """What a policy is paid at observations [K, n, ...] besides rewards, for its entropy: [K, n].

        Of an action drawn in each, all seeds by the same numbers.
        """
        if not hasattr(self.policy, "paid"):
            return np.zeros(seen.shape[:2], np.float32)
        shape = (seen.shape[1], self.centre.shape[-1])
        drawn = generator.standard_normal(shape, np.float32)
        epsilon = np.broadcast_to(drawn, (len(seen), *shape))
        with torch.inference_mode(), self.bridge.crossed():
            there = self.bridge.up({"obs": self._input(seen), "epsilon": torch.tensor(epsilon)})
            return self.bridge.down(self.policy.paid(there["obs"], there["epsilon"]))

    def activations(self, seen: Array) -> list[Array]:
        """What every ReLU of the first critic gives there, [K, n, units] each."""
        with torch.inference_mode(), self.bridge.crossed():
            x = self._up(seen)
            found = self.critics.activations(x, self.policy.mode(x))
            return [self.bridge.down(layer) for layer in found]

    def load_params(self, params: Params) -> None:
        """Copy the policy's weights, and take statistics and units; acting needs no critics."""
        with self.bridge.crossed():
            flat = params.tensors["flat"]
            self.parameters.flat.copy_(flat, non_blocking=True)
        if self.apart:
            self._unread = params.tensors["critics"]
        self.centre, self.half = (
            params.tensors[name].numpy()[:, None] for name in ("action_centre", "action_half")
        )
        if "obs_mean" in params.tensors:
            self.bound = OBS_BOUND
            self.mean, self.scale = (
                params.tensors[name].numpy().reshape(len(flat), 1, -1)
                for name in ("obs_mean", "obs_scale")
            )
        self.uniform = bool(params.scalars["uniform_actions"])


def _bounds(spec: Spec) -> tuple[Array, Array]:
    assert spec.action_low is not None
    assert spec.action_high is not None
    return spec.action_low, spec.action_high


def width_of(spec: Spec) -> tuple[int, int]:
    """How many numbers an observation has, and an action."""
    return math.prod(spec.obs_shape), math.prod(spec.action_shape)
