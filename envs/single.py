"""One lane of a vector environment of the lab as a Gymnasium environment, which can be drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from envs.contract import Array, VectorSimulator


class Single(gymnasium.Env[Any, Any]):
    """Lane 0 of a one-lane simulator; infos are the lane's facts.

    ``picture(obs)`` makes an RGB picture [H, W, 3] uint8 of an observation; None where nothing does.
    """

    def __init__(
        self, simulator: VectorSimulator, picture: Callable[[Array], Array] | None, fps: float
    ) -> None:
        self.simulator, self.picture = simulator, picture
        self.observation_space = simulator.single_observation_space
        self.action_space = simulator.single_action_space
        self.metadata = {"render_modes": ["rgb_array"] if picture else [], "render_fps": fps}
        self.render_mode = "rgb_array" if picture else None
        self._obs: Array | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; with ``seed``, a stream anew."""
        super().reset(seed=seed)
        obs, facts = self.simulator.reset(seed=seed, options=options)
        self._obs = obs[0]
        return obs[0], {name: fact[0] for name, fact in facts.items()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; behind an end, `reset` has to come first."""
        obs, reward, terminated, truncated, facts = self.simulator.step(np.asarray(action)[None])
        self._obs = obs[0]
        return (
            obs[0],
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {name: fact[0] for name, fact in facts.items()},
        )

    def render(self) -> Any:
        """The picture of the last observation.

        Raises:
            RuntimeError: there has been no reset, or nothing draws this environment.
        """
        if self.picture is None or self._obs is None:
            raise RuntimeError("nothing to render: no picture function, or no reset before")
        return self.picture(self._obs)

    def close(self) -> None:
        self.simulator.close()
