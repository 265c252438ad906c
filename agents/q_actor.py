"""The actor of every agent that acts by the values of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from agents.contract import Array, Params, State
from agents.exploration import epsilon_greedy, greedy
from agents.layers import NO_NOISE
from agents.networks import FlatParameters, QNetwork
from agents.noise import NetworkNoise
from agents.replay.stack import push


class QActor:
    """ε-greedy on a network of its own, into which published parameters are copied.

    Its state is the stack of frames that the network looks at, where it looks at more than one.
    """

    stored = False  # a stack is derived from observations

    def __init__(
        self,
        network: QNetwork,
        generators: Sequence[np.random.Generator],
        action_values: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """``action_values`` makes action values [K, n, A] of the network's outputs; None: they are it."""
        self.noise, self.action_values = NetworkNoise(network), action_values
        self.parameters = FlatParameters(network)
        self.network = network.requires_grad_(False)
        self.generators = generators
        self.epsilon = 1.0

    def initial_state(self, lanes: int) -> State:
        """No frames yet: {} where the network looks at the present observation only."""
        n = self.network
        if n.frame_stack == 1:
            return {}
        shape = (len(self.generators), lanes, n.frame_stack - 1, *n.spec.obs_shape)
        return {"frames": np.zeros(shape, n.spec.obs_dtype)}

    def act(
        self, obs: Array, first: Array, facts: Mapping[str, Array], state: State, explore: bool
    ) -> tuple[Array, State, dict[str, Array]]:
        """Actions [K, n] for observations [K, n, ...]; legal ones where a mask is among the facts."""
        if state:
            obs = push(state["frames"], obs, first)
            state = {"frames": obs[:, :, 1:]}
        noise = self.noise.act(obs.shape[1], self.generators) if explore else NO_NOISE
        values, mask = self.values(obs, noise), facts.get("action_mask")
        if explore:
            return epsilon_greedy(values, self.epsilon, self.generators, mask), state, {}
        return greedy(values, mask), state, {}

    def values(self, obs: Array, noise: Mapping[str, Tensor] = NO_NOISE) -> Array:
        """Action values [K, n, A] of what the network looks at; without noise those of its means."""
        with torch.inference_mode():
            out = self.network(torch.from_numpy(obs), noise)
            values: Array = (self.action_values(out) if self.action_values else out).numpy()
        return values

    def load_params(self, params: Params) -> None:
        """Copy the weights and take ε."""
        self.parameters.flat.copy_(params.tensors["flat"])
        self.epsilon = params.scalars["epsilon"]
