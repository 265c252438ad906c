"""The actor of every agent that acts by the values of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from agents.contract import Array, Params, State
from agents.device.bridge import Bridge
from agents.exploration import epsilon_greedy, greedy, ladder
from agents.layers import NO_NOISE
from agents.networks import FlatParameters, QNetwork
from agents.noise import NetworkNoise
from agents.replay.stack import push

_SEEN = "seen"  # among what is handed to a device: no noise is called so


class QActor:
    """ε-greedy on a network of its own, into which published parameters are copied.

    Its state is what the network remembers, or the stack of frames that it looks at.
    """

    def __init__(
        self,
        network: QNetwork,
        generators: Sequence[np.random.Generator],
        action_values: Callable[[Tensor], Tensor] | None = None,
        ladder_alpha: float = 0.0,
        exploring_values: Callable[[Tensor], Tensor] | None = None,
        tells_values: bool = False,
    ) -> None:
        """An actor of as many seeds as there are generators.

        Args:
            network: of those seeds.
            generators: one a seed, for exploration.
            action_values: makes action values [K, n, A] of the network's outputs; None: they are it.
            ladder_alpha: α of `exploration.ladder`; 0: all lanes explore alike.
            exploring_values: what it goes by instead while it explores; None: the same.
            tells_values: while exploring its extras are "q" and "v" [K, n], the values of the action taken
                and of the best legal one, for first priorities.
        """
        self.noise, self.action_values = NetworkNoise(network), action_values
        self.exploring_values = exploring_values or action_values
        self.parameters = FlatParameters(network)
        self.network = network.requires_grad_(False)
        self.bridge = Bridge(self.parameters.flat.device)
        self.generators = generators
        self.epsilon, self.ladder_alpha = 1.0, ladder_alpha
        self.first_lane, self.lanes = 0, 0
        self.tells_values = tells_values

    def move(self, device: torch.device) -> None:
        """Compute there from now on, which pays for many lanes."""
        self.parameters = FlatParameters(self.network.to(device))
        self.bridge = Bridge(self.parameters.flat.device)

    @property
    def stored(self) -> bool:
        """Whether the network remembers what cannot be rebuilt; a stack is derived from observations."""
        return self.network.memory is not None and self.network.memory.stored

    @property
    def looks_back(self) -> bool:
        """Whether it remembers, or looks at a stack of frames."""
        return self.network.memory is not None or self.network.frame_stack > 1

    def initial_state(self, lanes: int) -> State:
        """Nothing remembered, no frames yet: {} where the network looks at the present observation only."""
        n = self.network
        if n.memory is not None:
            state = n.memory.initial_state(lanes)
            return {name: value.cpu().numpy() for name, value in state.items()}
        if n.frame_stack == 1:
            return {}
        shape = (len(self.generators), lanes, n.frame_stack - 1, *n.spec.obs_shape)
        return {"frames": np.zeros(shape, n.spec.obs_dtype)}

    def act(
        self, obs: Array, first: Array, facts: Mapping[str, Array], state: State, explore: bool
    ) -> tuple[Array, State, dict[str, Array]]:
        """Actions [K, n] for observations [K, n, ...]; legal ones where a mask is among the facts.

        Without exploring the extras hold what the network looked at, as ``seen``: the stack of frames
        where there is one, or with what is remembered in one row. `values` and `activations` take it.
        """
        noise = self.noise.act(obs.shape[1], self.generators) if explore else NO_NOISE
        seen = obs
        if self.network.memory is not None:
            seen = obs if explore else _in_one_row(obs, first, state)
            values, state = self._recall(obs, first, state, noise, explore)
        else:
            if state:
                seen = push(state["frames"], obs, first)
                state = {"frames": seen[:, :, 1:]}
            values = self.values(seen, noise, explore)
        mask = facts.get("action_mask")
        if explore:
            epsilon = self._epsilon(obs.shape[1])
            action = epsilon_greedy(values, epsilon, self.generators, mask)
            return action, state, _told(values, action, mask) if self.tells_values else {}
        return greedy(values, mask), state, {"seen": seen}

    def place(self, first_lane: int, lanes: int) -> None:
        """It acts for some of each seed's ``lanes``, from ``first_lane`` on; else for all of them."""
        self.first_lane, self.lanes = first_lane, lanes

    def _epsilon(self, count: int) -> float | Array:
        if not self.ladder_alpha:
            return self.epsilon
        rungs = ladder(self.epsilon, self.ladder_alpha, self.lanes or count)
        return rungs[self.first_lane : self.first_lane + count]

    def _recall(
        self,
        obs: Array,
        first: Array,
        state: State,
        noise: Mapping[str, Tensor],
        explore: bool = False,
    ) -> tuple[Array, State]:
        """Action values [K, n, A] of one row of a sequence, and what is remembered after it."""
        with torch.inference_mode(), self.bridge.crossed():
            noise = self.bridge.up(noise)
            features, memory = self._remember(obs, first, state, noise)
            values = self._action_values(self.network.decode(features, noise), explore)
            return values, {name: self.bridge.down(value) for name, value in memory.items()}

    def _remember(
        self, obs: Array, first: Array, state: State, noise: Mapping[str, Tensor] = NO_NOISE
    ) -> tuple[Tensor, dict[str, Tensor]]:
        arrays = {"obs": obs, "first": first, **{f"m.{name}": m for name, m in state.items()}}
        there = self.bridge.up({name: torch.from_numpy(array) for name, array in arrays.items()})
        memory = {name: there[f"m.{name}"] for name in state}
        row = there["obs"].unsqueeze(1), there["first"].unsqueeze(1)
        return self.network.remember(*row, memory, noise)

    def values(
        self, seen: Array, noise: Mapping[str, Tensor] = NO_NOISE, explore: bool = False
    ) -> Array:
        """Action values [K, n, A] of what the network looks at; without noise those of its means."""
        with torch.inference_mode(), self.bridge.crossed():
            if self.network.memory is None:
                there = self.bridge.up({_SEEN: torch.from_numpy(seen), **noise})
                noise = {name: there[name] for name in noise}
                return self._action_values(self.network(there[_SEEN], noise), explore)
            features, _ = self._remember(*self._parts(seen))
            return self._action_values(self.network.decode(features), explore)

    def members(self, seen: Array) -> Array:
        """The same as [K, 1, n, A]: of an ensemble of one."""
        return self.values(seen)[:, None]

    def _action_values(self, out: Tensor, explore: bool) -> Array:
        chosen = self.exploring_values if explore else self.action_values
        return self.bridge.down(chosen(out) if chosen else out)

    def activations(self, seen: Array) -> list[Array]:
        """What every ReLU gives, [K, n, units, ...] each, for what the network looks at."""
        with torch.inference_mode(), self.bridge.crossed():
            if self.network.memory is None:
                there = self.bridge.up({_SEEN: torch.from_numpy(seen)})
                found = self.network.activations(there[_SEEN])
            else:
                obs, first, state = self._parts(seen)
                features, _ = self._remember(obs, first, state)
                there = self.bridge.up({_SEEN: torch.from_numpy(obs)})
                found = self.network.activations(there[_SEEN], features)
            return [self.bridge.down(layer) for layer in found]

    def _parts(self, seen: Array) -> tuple[Array, Array, State]:
        """Observations, whether they are first ones, and memories, of what `_in_one_row` joined."""
        spec, empty = self.network.spec, self.initial_state(1)
        shapes = [spec.obs_shape, (), *(value.shape[2:] for value in empty.values())]
        dtypes = [spec.obs_dtype, np.bool_, *(value.dtype for value in empty.values())]
        ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
        pieces = [
            piece.reshape(*seen.shape[:2], *shape).astype(dtype)
            for piece, shape, dtype in zip(np.split(seen, ends, -1), shapes, dtypes, strict=True)
        ]
        return pieces[0], pieces[1], dict(zip(empty, pieces[2:], strict=True))

    def load_params(self, params: Params) -> None:
        """Copy the weights and take ε."""
        with self.bridge.crossed():
            self.parameters.flat.copy_(params.tensors["flat"], non_blocking=True)
        self.epsilon = params.scalars["epsilon"]


def _told(values: Array, action: Array, mask: Array | None) -> dict[str, Array]:
    """The values of the action taken and of the best legal one."""
    best = greedy(values, mask)
    return {
        name: np.take_along_axis(values, chosen[..., None], -1)[..., 0]
        for name, chosen in (("q", action), ("v", best))
    }


def _in_one_row(obs: Array, first: Array, state: State) -> Array:
    """[K, n, D] float32: observations, whether they are first ones, and memories."""
    pieces = [obs, first, *state.values()]
    joined = [piece.reshape(*first.shape, -1).astype(np.float32) for piece in pieces]
    return np.concatenate(joined, -1)
