"""One lane of a simulator of the lab's own as a Gymnasium environment, which can show pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from envs.contract import Array, VectorSimulator


class Single(gymnasium.Env[Any, Any]):
    """The only lane of ``lanes``: scalars, and its facts as infos.

    A bare ``reset`` behind an end is the lane's own, so that this takes the steps that the lane
    takes in a vector environment.
    """

    def __init__(
        self,
        lanes: VectorSimulator,
        picture: Callable[[Array], Array] | None,
        fps: int,
        render_mode: str | None = None,
    ) -> None:
        """``picture`` draws what the last observation shows, [height, width, 3] uint8.

        None where nothing draws it; ``fps`` steps are a second.
        """
        self.lanes, self.picture = lanes, picture
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"] if picture else [], "render_fps": fps}
        self.observation_space = lanes.single_observation_space
        self.action_space = lanes.single_action_space
        self._ended = False
        self._last: Array = np.empty(0)  # the last action, as a batch
        self._obs: Array = np.empty(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: ``(obs, infos)``.

        Raises:
            RuntimeError: the environment is closed.
        """
        super().reset(seed=seed)
        if self._ended and seed is None:
            obs, *_, infos = self.lanes.step(self._last)  # which is ignored
        else:
            obs, infos = self.lanes.reset(seed=seed, options=options)
        self._ended, self._obs = False, obs[0]
        return obs[0], _of_one(infos)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step: ``(obs, reward, terminated, truncated, infos)``.

        Raises:
            ValueError: the action has another shape, is NaN or out of range.
            TypeError: the action is not of the space's kind.
            RuntimeError: the episode has ended or none has begun, or the environment is closed.
        """
        if self._ended:
            raise RuntimeError("the episode has ended: call reset before step")
        self._last = np.asarray(action)[np.newaxis]
        obs, reward, terminated, truncated, infos = self.lanes.step(self._last)
        self._ended, self._obs = bool(terminated[0] or truncated[0]), obs[0]
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), _of_one(infos)

    def render(self) -> Any:
        """The picture [height, width, 3] uint8; None without ``render_mode="rgb_array"``.

        Raises:
            RuntimeError: there has been no reset, so that there is nothing to see.
        """
        if self.picture is None or self.render_mode != "rgb_array":
            return None
        if not self._obs.size:
            raise RuntimeError("call reset before render")
        return self.picture(self._obs)

    def close(self) -> None:
        """Close the lane; twice is fine."""
        self.lanes.close()


def _of_one(infos: dict[str, Any]) -> dict[str, Any]:
    return {key: value[0] for key, value in infos.items()}
