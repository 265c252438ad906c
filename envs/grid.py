"""MiniGrid and BabyAI: what the agent sees as one array of planes, its mission too where it is asked for.

MiniGrid's observation is a dict: an image [7, 7, 3] uint8 of indices (object, colour, state), the
compass direction and the mission as text. An index is no intensity: "ball" (6) is not twice "floor"
(3). So a lane's observation is the image one-hot, [7, 7, 11 + 6 + 3] uint8 of 0 and 1, as large as
MiniGrid's own tables of indices say. ``one_hot=false`` leaves the indices. The direction is dropped:
the view is the agent's own.

``mission=encode`` appends planes that are constant over the view, 0 or 1, which say exactly what the
mission asks for: see `GivenMissions` (MiniGrid) and `BabyAIMissions`. ``mission=drop`` is the default.

An episode is truncated by MiniGrid's own ``max_steps``, which ``max_episode_steps`` sets. The reward
of a success depends on it, as 1 - 0.9 * steps / max_steps: with another limit the same behaviour has
another return, and without one (0) a success pays nearly 1 however late it comes.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs import native
from envs.contract import Array, UnsupportedEnv, VectorSimulator
from envs.packages import require

NEVER = 2**31 - 1  # max_steps of an episode that is never truncated
MISSIONS = ("drop", "encode")
RESETS = 32  # to see whether the limit of a BabyAI level is the same in every episode
MOST_MISSIONS = 100_000  # of one id; MiniGrid's own have at most some hundreds

# What tells BabyAI's instructions apart. Its other words do not: "the" instead of "a" says that only
# one object fits, which the agent may see for itself.
VERBS = ("go", "pick", "open", "put")
COLOURS = ("blue", "green", "grey", "purple", "red", "yellow")
THINGS = ("ball", "box", "door", "key", "object")
PLACES = ("front", "behind", "left", "right")
WORDS = {word: i for i, word in enumerate((*VERBS, *COLOURS, *THINGS, *PLACES))}
FILLERS = frozenset(("to", "up", "the", "a", "in", "of", "you", "on", "your"))


def backends(env_id: str) -> list[str]:
    """One environment a lane; none for unknown ids.

    Raises:
        UnsupportedEnv: MiniGrid is not installed.
    """
    _minigrid(env_id)
    return native.backends(env_id)


def make(
    env_id: str, num_envs: int, seed: int, backend: str, options: Mapping[str, Any]
) -> VectorSimulator:
    """Lanes of ``env_id`` with observations [N, 7, 7, C] uint8.

    Raises:
        UnsupportedEnv: an option that does not exist, or a value that it does not take.
    """
    inner, dress = _split(env_id, options)
    return native.make(env_id, num_envs, seed, backend, inner, dress)


def scalar(env_id: str, options: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """One lane, which can be rendered with ``render_mode="rgb_array"``."""
    inner, dress = _split(env_id, options)
    return native.scalar(env_id, inner, dress)


def time_limit(env_id: str, options: Mapping[str, Any]) -> int:
    """Steps until an episode is truncated; 0 for never, or where it differs between episodes.

    It differs in BabyAI levels of several kinds of missions: each mission brings its own limit.
    ``max_episode_steps`` gives them one.
    """
    if "max_episode_steps" in options:
        return int(options["max_episode_steps"])
    env = scalar(env_id, options)
    inner: Any = env.unwrapped
    limits = {inner.max_steps}
    if 0 in limits:  # a BabyAI level that knows it only at a reset
        limits = {(env.reset(seed=seed), inner.max_steps)[1] for seed in range(RESETS)}
    env.close()
    return int(limits.pop()) if len(limits) == 1 else 0


def _split(env_id: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], native.Dress]:
    """The options of MiniGrid's constructor, and what is put around each lane."""
    inner = dict(options)
    one_hot, mission = inner.pop("one_hot", True), inner.pop("mission", "drop")
    if not isinstance(one_hot, bool):
        raise UnsupportedEnv(f"{env_id}: option one_hot: got {one_hot!r}, takes true or false")
    if mission not in MISSIONS:
        raise UnsupportedEnv(
            f"{env_id}: option mission: got {mission!r}, takes {' or '.join(MISSIONS)}"
        )
    if "max_steps" in inner:
        raise UnsupportedEnv(f"{env_id}: write max_episode_steps instead of max_steps")
    if "max_episode_steps" in inner:
        inner["max_steps"] = inner.pop("max_episode_steps") or NEVER
    return inner, partial(Image, one_hot=one_hot, encode_mission=mission == "encode")


class GivenMissions:
    """The missions of a `MissionSpace`: one bit for each word or group of words that a gap can have.

    "put the {colour} {thing} near the {colour} {thing}" has 6 + 3 + 6 + 3 bits, four of them 1. A
    space without gaps has one mission and no bits.
    """

    def __init__(self, env_id: str, space: Any) -> None:
        gaps: list[list[str]] = space.ordered_placeholders or []
        if math.prod(map(len, gaps)) > MOST_MISSIONS:
            raise UnsupportedEnv(
                f"{env_id}: more than {MOST_MISSIONS:,} missions are not encoded; use mission=drop"
            )
        self.size = sum(map(len, gaps))
        one_hot = [np.eye(len(gap), dtype=np.uint8) for gap in gaps]
        self._bits: dict[str, Array] = {}
        for chosen in itertools.product(*(range(len(gap)) for gap in gaps)):
            text = space.mission_func(*(gap[i] for gap, i in zip(gaps, chosen, strict=True)))
            rows = [rows[i] for rows, i in zip(one_hot, chosen, strict=True)]
            self._bits.setdefault(text, np.concatenate([np.zeros(0, np.uint8), *rows]))

    def __call__(self, text: str) -> Array:
        """[size] uint8, 0 or 1.

        Raises:
            ValueError: the space has no such mission.
        """
        if self.size and text not in self._bits:
            raise ValueError(f"the mission {text!r} is not in the environment's space")
        return self._bits.get(text, np.zeros(0, np.uint8))


class BabyAIMissions:
    """Instructions of the Baby Language, which its levels make up without a list of them.

    One is at most "A and B, then C and D" or "C and D after you A and B", and an action names at most
    two things ("put X next to Y"). So there are 2 x 2 x 2 parts in the order in which they are to be
    done; each has one bit a word of `WORDS`.
    """

    size = 8 * len(WORDS)

    def __call__(self, text: str) -> Array:
        """[size] uint8, 0 or 1.

        Raises:
            ValueError: the text is not of the Baby Language.
        """
        bits = np.zeros((2, 2, 2, len(WORDS)), np.uint8)
        after = text.split(" after you ")
        steps = after[::-1] if len(after) > 1 else text.split(", then ")
        try:
            for i, step in enumerate(steps):
                for j, action in enumerate(step.split(" and ")):
                    for k, thing in enumerate(action.split(" next to ")):
                        words = [WORDS[word] for word in thing.split() if word not in FILLERS]
                        bits[i, j, k, words] = 1
        except (IndexError, KeyError) as error:
            raise ValueError(f"the mission {text!r} is not in the Baby Language") from error
        return bits.reshape(-1)


class Image(gymnasium.ObservationWrapper[Array, Any, Any]):
    """One lane of MiniGrid whose observation is one array [H, W, C] uint8; it has no state."""

    def __init__(
        self, env: gymnasium.Env[Any, Any], one_hot: bool = True, encode_mission: bool = False
    ) -> None:
        """Planes in the order object, colour, state (or the three indices), then the mission's.

        Raises:
            UnsupportedEnv: the mission's texts are too many to be encoded, or MiniGrid lacks a file.
        """
        super().__init__(env)
        _require_patterns(env)
        constants = _minigrid("MiniGrid")
        tables = (constants.OBJECT_TO_IDX, constants.COLOR_TO_IDX, constants.STATE_TO_IDX)
        sizes = [max(table.values()) + 1 for table in tables]
        # one look-up a cell instead of three: a quarter of the time
        self._planes = _one_hot(sizes) if one_hot else None
        assert isinstance(env.observation_space, spaces.Dict)
        image, mission = env.observation_space["image"], env.observation_space["mission"]
        self._mission: GivenMissions | BabyAIMissions | None = None
        if encode_mission:
            babyai = type(mission).__name__ == "BabyAIMissionSpace"
            name = env.spec.id if env.spec else type(env.unwrapped).__name__
            self._mission = BabyAIMissions() if babyai else GivenMissions(name, mission)
        channels = (sum(sizes) if one_hot else 3) + (self._mission.size if self._mission else 0)
        shape = (*(image.shape or ())[:2], channels)
        self.observation_space = spaces.Box(0, 1 if one_hot else 255, shape, np.uint8)

    def observation(self, observation: Any) -> Array:
        """The planes of MiniGrid's dict; a new array.

        Raises:
            IndexError: an index that MiniGrid's tables do not have.
            ValueError: a mission of another kind than its space tells of.
        """
        seen: Array = observation["image"]
        if self._planes is not None:
            seen = self._planes[seen[..., 0], seen[..., 1], seen[..., 2]]
        if self._mission is None:
            return seen
        planes = np.empty(self.observation_space.shape or (), np.uint8)
        planes[..., : seen.shape[2]] = seen
        planes[..., seen.shape[2] :] = self._mission(observation["mission"])
        return planes


def _require_patterns(env: gymnasium.Env[Any, Any]) -> None:
    """MiniGrid 3.2.0 comes without the pictures that its WFC levels are made after."""
    pattern = getattr(getattr(env.unwrapped, "config", None), "pattern_path", None)
    if pattern is not None and not Path(pattern).is_file():
        name = env.spec.id if env.spec else type(env.unwrapped).__name__
        raise UnsupportedEnv(f"{name}: the installed MiniGrid lacks its file {Path(pattern).name}")


def _one_hot(sizes: list[int]) -> Array:
    """[*sizes, sum of sizes] uint8: one index of each kind -> their one-hot vectors in a row."""
    rows = [np.eye(n, dtype=np.uint8)[at] for n, at in zip(sizes, np.indices(sizes), strict=True)]
    return np.concatenate(rows, axis=-1)


def _minigrid(env_id: str) -> Any:
    """MiniGrid's constants; its import registers its ids. It is kept from writing to standard output."""
    require(env_id, "minigrid", "grid")
    level: Any = importlib.import_module("minigrid.envs.babyai.core.roomgrid_level")
    level.print = _silent  # it prints each level that it made up and rejected
    return importlib.import_module("minigrid.core.constants")


def _silent(*_: Any) -> None:
    pass
