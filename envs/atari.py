"""The Atari games of the Arcade Learning Environment, as ``ALE/Breakout-v5``.

The standard protocol is the default and every part of it an option, see
`envs.atari_engines.Settings`: single pictures of 84 x 84 in grey (an agent stacks them), four frames a
step of which the last two are pooled, sticky actions, up to 29 no-ops at a reset, raw rewards.
``max_episode_steps`` are agent steps; at the limit episodes are truncated, which is not an end of the
game. Losing a life ends nothing: it is the step's fact ``life_loss``.

ALE's own vector class ("ale") is the fastest and cannot give its state. "list", emulators in a Python
list, takes the same steps to the bit and can, except in three games that ALE saves incompletely.
"envpool" is EnvPool's Atari, with other streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.atari_engines import STICKY_MENU, AleVector, EnvPool, Lanes, Settings
from envs.contract import Array, UnsupportedEnv, VectorSimulator
from envs.options import reject_unknown, whole
from envs.packages import require
from envs.simulator import Simulator
from envs.single import Single

LARGEST = {"img_height": 210, "img_width": 160}  # pictures are made smaller, never larger
LEAST = {"noop_max": 0, "max_episode_steps": 0}
FRAMES_PER_SECOND = 60
SAVED_INCOMPLETELY = (STICKY_MENU, "miniature_golf", "pitfall2", "tic_tac_toe_3d")
"""ALE 0.12.1 does not save an action that sticks, the second game's counts and all of the third's clock.

Nor the frame that is cut short while the fourth one thinks: the next one then shows another screen.
"""


def backends(env_id: str) -> list[str]:
    """ALE's own vector class first; none for games that ALE does not have.

    Raises:
        UnsupportedEnv: ale_py is not installed.
    """
    require(env_id, "ale_py", "atari")  # registers its games with Gymnasium
    return ["ale", "list", "envpool"] if env_id in gymnasium.registry else []


def make(
    env_id: str, num_envs: int, seed: int, backend: str, options: Mapping[str, Any]
) -> VectorSimulator:
    """``num_envs`` lanes of a game; ``backend`` is ale, list or envpool.

    Raises:
        UnsupportedEnv: an option or a value that does not exist, a package or a ROM that is missing.
    """
    settings = settings_of(env_id, options)
    game, rom = rom_of(env_id)
    if backend == "list":
        resumable = game not in SAVED_INCOMPLETELY
        kind = ResumableAtari if resumable else Atari
        return kind(Lanes(rom, num_envs, settings), num_envs, seed, settings)
    if backend == "envpool":
        return Atari(EnvPool(env_id, rom, num_envs, settings), num_envs, seed, settings)
    return Atari(AleVector(rom, num_envs, settings), num_envs, seed, settings)


def time_limit(env_id: str, options: Mapping[str, Any]) -> int:  # noqa: ARG001 - one for all games
    """Agent steps until an episode is truncated; 0 is never."""
    limit: int = options.get("max_episode_steps", Settings.max_episode_steps)
    return limit


def scalar(env_id: str, options: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """One lane of the backend "list"; ``render_mode="rgb_array"`` shows the console's screen.

    Raises:
        UnsupportedEnv: an option or a value that does not exist.
    """
    given = dict(options)
    mode = given.pop("render_mode", None)
    if mode not in (None, "rgb_array"):
        raise UnsupportedEnv(f"{env_id}: option render_mode: got {mode!r}, takes 'rgb_array'")
    settings = settings_of(env_id, given)
    lanes = Lanes(rom_of(env_id)[1], 1, settings)
    seed = int(np.random.SeedSequence().generate_state(1)[0])  # until reset is given one
    fps = max(1, round(FRAMES_PER_SECOND / settings.frameskip))
    screen = lanes.lanes[0].emulator.getScreenRGB
    return Single(Atari(lanes, 1, seed, settings), lambda _: screen(), fps, mode)


def settings_of(env_id: str, options: Mapping[str, Any]) -> Settings:
    """The options as settings.

    Raises:
        UnsupportedEnv: names the option, what it got and what it takes.
    """
    kinds = {field.name: type(field.default) for field in fields(Settings)}
    reject_unknown(env_id, options, kinds)
    for name, value in options.items():
        takes = None
        if kinds[name] is bool:
            takes = None if isinstance(value, bool) else "true or false"
        elif kinds[name] is float:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            takes = None if number and 0 <= value <= 1 else "a number from 0 to 1"
        elif whole(env_id, name, value, LEAST.get(name, 1)) > LARGEST.get(name, 2**30):
            takes = f"at most {LARGEST.get(name, 2**30)}"
        if takes:
            raise UnsupportedEnv(f"{env_id}: option {name}: got {value!r}, takes {takes}")
    return Settings(**options)


def rom_of(env_id: str) -> tuple[str, Any]:
    """The game's name in ALE and the path of its ROM.

    Raises:
        UnsupportedEnv: the ROM's file is missing or another one.
    """
    from ale_py import roms

    game = gymnasium.registry[env_id].kwargs["game"]
    try:
        return game, roms.get_rom_path(game)
    except OSError as error:
        raise UnsupportedEnv(f"{env_id}: no ROM: {error}") from error


class Atari(Simulator):
    """N lanes of a game: frames [N, height, width] uint8, or [N, height, width, 3] with colours.

    Rewards are the game's points, float64 [N]. The fact ``life_loss`` [N] bool says whether the step
    took a life; the last one counts too. An episode at ``max_episode_steps`` is truncated.
    """

    releases_gil = True

    def __init__(
        self, engine: AleVector | EnvPool | Lanes, num_envs: int, seed: int, settings: Settings
    ) -> None:
        frame = spaces.Box(0, 255, settings.shape, np.uint8)
        super().__init__(num_envs, seed, frame, spaces.Discrete(engine.num_actions))
        self.engine = engine
        self.limit = settings.max_episode_steps
        self.lives = np.zeros(num_envs, np.int32)
        self.elapsed = np.zeros(num_envs, np.int64)
        self.done, self.limited = np.zeros((2, num_envs), np.bool_)

    def begin(self, seeds: list[int] | None) -> tuple[Array, dict[str, Any]]:
        """New episodes in all lanes.

        Raises:
            ValueError: a seed is not in 0..2**31 - 1, all that ALE takes.
        """
        for lane, seed in enumerate(seeds or ()):
            if not 0 <= seed < 2**31:
                raise ValueError(f"lane {lane}: seed {seed} is not in 0..{2**31 - 1}")
        obs, self.lives = self.engine.restart(seeds)
        self.elapsed[:] = 0
        self.done[:] = self.limited[:] = False
        return obs, {"life_loss": np.zeros(self.num_envs, np.bool_)}

    def advance(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes."""
        obs, points, terminated, lives = self.engine.play(actions, self.limited)
        goes_on = ~self.done
        self.elapsed += 1
        self.elapsed *= goes_on
        life_loss = (lives < self.lives) & goes_on
        self.lives = lives
        self.limited = (self.elapsed >= (self.limit or np.inf)) & ~terminated
        self.done = terminated | self.limited
        reward = points.astype(np.float64)
        return obs, reward, terminated, self.limited.copy(), {"life_loss": life_loss}

    def close_extras(self, **kwargs: Any) -> None:  # noqa: ARG002 - Gymnasium's signature
        """Let the engine's threads end."""
        self.engine.close()


class ResumableAtari(Atari):
    """Lanes whose emulators can be saved."""

    engine: Lanes

    def get_state(self) -> dict[str, Any]:
        """Lives, elapsed, done and limited, [N] each, and the engine's lanes."""
        if not self._begun:
            raise RuntimeError("reset the environment before asking for its state")
        return {
            "lives": self.lives.copy(),
            "elapsed": self.elapsed.copy(),
            "done": self.done.copy(),
            "limited": self.limited.copy(),
            "engine": self.engine.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`."""
        self.resumed()
        self.lives = np.array(state["lives"], np.int32)
        self.elapsed[:] = state["elapsed"]
        self.done = np.array(state["done"], np.bool_)
        self.limited = np.array(state["limited"], np.bool_)
        self.engine.set_state(state["engine"])
