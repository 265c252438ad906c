"""The actor of every agent that acts by the values of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from agents.contract import Array, Params, State
from agents.exploration import epsilon_greedy
from agents.networks import FlatParameters, QNetwork


class QActor:
    """ε-greedy on a network of its own, into which published parameters are copied."""

    def __init__(self, network: QNetwork, generators: Sequence[np.random.Generator]) -> None:
        self.parameters = FlatParameters(network)
        self.network = network.requires_grad_(False)
        self.generators = generators
        self.epsilon = 1.0

    def initial_state(self, lanes: int) -> State:
        """None: it looks at the present observation only."""
        del lanes
        return {}

    def act(
        self, obs: Array, first: Array, facts: Mapping[str, Array], state: State, explore: bool
    ) -> tuple[Array, State, dict[str, Array]]:
        """Actions [K, n] for observations [K, n, ...]."""
        del first, facts
        values = self.values(obs)
        if explore:
            return epsilon_greedy(values, self.epsilon, self.generators), state, {}
        return values.argmax(-1), state, {}

    def values(self, obs: Array) -> Array:
        """Action values [K, n, A]."""
        with torch.inference_mode():
            values: Array = self.network(torch.from_numpy(obs)).numpy()
        return values

    def load_params(self, params: Params) -> None:
        """Copy the weights and take ε."""
        self.parameters.flat.copy_(params.tensors["flat"])
        self.epsilon = params.scalars["epsilon"]
