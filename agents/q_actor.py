"""The actor of every agent that acts by the values of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from agents.contract import Array, Params, State
from agents.exploration import epsilon_greedy, greedy, ladder
from agents.layers import NO_NOISE
from agents.networks import FlatParameters, QNetwork
from agents.noise import NetworkNoise
from agents.replay.stack import push


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
    ) -> None:
        """An actor of as many seeds as there are generators.

        Args:
            network: of those seeds.
            generators: one a seed, for exploration.
            action_values: makes action values [K, n, A] of the network's outputs; None: they are it.
            ladder_alpha: α of `exploration.ladder`; 0: all lanes explore alike.
        """
        self.noise, self.action_values = NetworkNoise(network), action_values
        self.parameters = FlatParameters(network)
        self.network = network.requires_grad_(False)
        self.generators = generators
        self.epsilon, self.ladder_alpha = 1.0, ladder_alpha

    @property
    def stored(self) -> bool:
        """Whether the network remembers what cannot be rebuilt; a stack is derived from observations."""
        return self.network.memory is not None and self.network.memory.stored

    def initial_state(self, lanes: int) -> State:
        """Nothing remembered, no frames yet: {} where the network looks at the present observation only."""
        n = self.network
        if n.memory is not None:
            return {name: value.numpy() for name, value in n.memory.initial_state(lanes).items()}
        if n.frame_stack == 1:
            return {}
        shape = (len(self.generators), lanes, n.frame_stack - 1, *n.spec.obs_shape)
        return {"frames": np.zeros(shape, n.spec.obs_dtype)}

    def act(
        self, obs: Array, first: Array, facts: Mapping[str, Array], state: State, explore: bool
    ) -> tuple[Array, State, dict[str, Array]]:
        """Actions [K, n] for observations [K, n, ...]; legal ones where a mask is among the facts."""
        noise = self.noise.act(obs.shape[1], self.generators) if explore else NO_NOISE
        if self.network.memory is not None:
            values, state = self._recall(obs, first, state, noise)
        else:
            if state:
                obs = push(state["frames"], obs, first)
                state = {"frames": obs[:, :, 1:]}
            values = self.values(obs, noise)
        mask = facts.get("action_mask")
        if not explore:
            return greedy(values, mask), state, {}
        epsilon = self._epsilon(obs.shape[1])
        return epsilon_greedy(values, epsilon, self.generators, mask), state, {}

    def _epsilon(self, lanes: int) -> float | Array:
        return ladder(self.epsilon, self.ladder_alpha, lanes) if self.ladder_alpha else self.epsilon

    def _recall(
        self, obs: Array, first: Array, state: State, noise: Mapping[str, Tensor]
    ) -> tuple[Array, State]:
        """Action values [K, n, A] of one row of a sequence, and what is remembered after it."""
        memory = {name: torch.from_numpy(value) for name, value in state.items()}
        row = torch.from_numpy(obs).unsqueeze(1), torch.from_numpy(first).unsqueeze(1)
        with torch.inference_mode():
            features, memory = self.network.remember(*row, memory, noise)
            values = self._action_values(self.network.decode(features, noise))
        return values, {name: value.numpy() for name, value in memory.items()}

    def values(self, obs: Array, noise: Mapping[str, Tensor] = NO_NOISE) -> Array:
        """Action values [K, n, A] of what the network looks at; without noise those of its means."""
        with torch.inference_mode():
            return self._action_values(self.network(torch.from_numpy(obs), noise))

    def _action_values(self, out: Tensor) -> Array:
        values: Array = (self.action_values(out) if self.action_values else out).numpy()
        return values

    def load_params(self, params: Params) -> None:
        """Copy the weights and take ε."""
        self.parameters.flat.copy_(params.tensors["flat"])
        self.epsilon = params.scalars["epsilon"]
