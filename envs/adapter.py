"""What brings Gymnasium's vector environments under the contract of `envs.contract`."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import VectorWrapper

from envs.contract import OBSERVATION_FACTS, STEP_FACTS, Array, VectorSimulator


def lane_seeds(seed: int, lanes: int) -> list[int]:
    """One integer a lane from a block's one: distinct even where blocks have neighbouring seeds."""
    return [int(word >> 1) for word in np.random.SeedSequence(seed).generate_state(lanes)]


class GymnasiumEnv(VectorWrapper[Any, Any, Any, Any, Any]):
    """A Gymnasium vector environment under the contract: the kept seed, and facts as infos.

    Facts are the keys of ``OBSERVATION_FACTS`` and ``STEP_FACTS`` that the first reset's infos have;
    a lane or a step that lacks one gets ones in an action mask and zeros elsewhere. All other
    infos are dropped. Returned arrays are fresh at every step.
    """

    def __init__(self, env: VectorSimulator, seed: int, separate_lanes: bool) -> None:
        super().__init__(env)
        self._seed: int | None = seed
        self._separate_lanes = separate_lanes
        self._facts: dict[str, Array] = {}  # key -> what stands where a lane has none, [N, ...]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin new episodes in all lanes; without a seed, with the kept one once."""
        seed, self._seed = self._seed if seed is None else seed, None
        expanded: Any = seed
        if seed is not None and self._separate_lanes:
            expanded = lane_seeds(seed, self.num_envs)
        obs, infos = self.env.reset(seed=expanded, options=options)
        self._facts = {
            key: np.ones_like(infos[key]) if key == "action_mask" else np.zeros_like(infos[key])
            for key in (*OBSERVATION_FACTS, *STEP_FACTS)
            if key in infos
        }
        return obs, self._present(infos)

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes; obs [N, ...], reward [N], terminated and truncated [N] bool."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        return obs, reward, terminated, truncated, self._present(infos) if self._facts else {}

    def _present(self, infos: dict[str, Any]) -> dict[str, Any]:
        """The facts alone, one array ``[N, ...]`` a key, whichever lanes have them in this step."""
        present = {}
        for key, neutral in self._facts.items():
            if key not in infos:
                present[key] = neutral.copy()
                continue
            value, has = infos[key], infos.get(f"_{key}")
            if has is not None and not has.all():
                value = np.where(has.reshape(-1, *[1] * (value.ndim - 1)), value, neutral)
            present[key] = value
        return present
