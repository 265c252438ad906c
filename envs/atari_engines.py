"""What plays Atari games: ALE's own threads, EnvPool, and emulators in a Python list.

An engine plays N lanes without a time limit and knows nothing of facts; `envs.atari` does the rest. It
has ``num_actions`` and

* ``restart(seeds)``: new episodes in all lanes; ``(obs [N, ...] uint8, lives [N])``. One seed a lane
  begins its streams anew, None goes on with them;
* ``play(actions, limited)``: one step, ``(obs, reward, terminated, lives)``, each [N, ...]. A lane whose
  last step terminated begins a new episode, and so does one in ``limited``, which is at the limit;
* ``close()``.

`Lanes` does what ALE's vector class does, bit for bit, down to the generators: two Mersenne Twisters a
lane with the lane's seed, of which one draws the no-ops and one the sticky actions.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.contract import Array, UnsupportedEnv
from envs.cores import cores
from envs.packages import require
from envs.resize import Shrinker

NEVER = 2**31 - 2  # for engines that count in an int32 and add one
FIRE = 1
SETUP_FRAMES = {"berzerk": 20}
"""No-ops that a reset makes itself to get into the game: stickiness is drawn for them too."""
STICKY_MENU = "double_dunk"
"""Its reset goes through a menu by sticky actions, so ALE's own stickiness has to stay on."""


@dataclass(frozen=True)
class Settings:
    """The protocol; the defaults are the standard one of Machado et al. (2018), with pictures 84 x 84."""

    img_height: int = 84
    img_width: int = 84
    grayscale: bool = True
    frameskip: int = 4
    maxpool: bool = True
    noop_max: int = 30
    repeat_action_probability: float = 0.25
    full_action_space: bool = False
    use_fire_reset: bool = False
    max_episode_steps: int = 27_000

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one observation: [height, width], and 3 where it has colours."""
        size = self.img_height, self.img_width
        return size if self.grayscale else (*size, 3)


def threads(lanes: int) -> int:
    """How many threads step so many lanes: one a lane, as far as there are cores. No bit depends on it."""
    return min(lanes, cores())


def _ale_py() -> Any:
    return importlib.import_module("ale_py")


def new_emulator(rom: Any, stickiness: float = 0.0) -> Any:
    """An ``ALEInterface`` that plays ``rom``."""
    ale_py = _ale_py()
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    emulator = ale_py.ALEInterface()
    emulator.setFloat("repeat_action_probability", stickiness)
    emulator.loadROM(rom)
    return emulator


class AleVector:
    """ALE's vector class, which steps its lanes in threads of C++."""

    def __init__(self, rom: Any, num_envs: int, settings: Settings) -> None:
        self._vector = _ale_py().ALEVectorInterface(
            rom_path=rom,
            num_envs=num_envs,
            frame_skip=settings.frameskip,
            stack_num=1,
            img_height=settings.img_height,
            img_width=settings.img_width,
            grayscale=settings.grayscale,
            maxpool=settings.maxpool,
            noop_max=settings.noop_max,
            use_fire_reset=settings.use_fire_reset,
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
            # its own limit leaves the last frame out of the last picture
            max_episode_steps=NEVER,
            repeat_action_probability=settings.repeat_action_probability,
            full_action_space=settings.full_action_space,
            num_threads=threads(num_envs),
            autoreset_mode="NextStep",
        )
        self.num_actions = len(self._vector.get_action_set())
        self._lanes, self._shape = list(range(num_envs)), (num_envs, *settings.shape)
        self._strengths = [1.0] * num_envs

    def restart(self, seeds: list[int] | None) -> tuple[Array, Array]:
        """See the module; -1 is the engine's word for going on."""
        obs, infos = self._vector.reset(self._lanes, seeds or [-1] * len(self._lanes))
        return obs.reshape(self._shape), infos["lives"]

    def play(self, actions: Array, limited: Array) -> tuple[Array, Array, Array, Array]:
        """See the module; the arrays are fresh."""
        late = np.flatnonzero(limited)
        if late.size:
            actions = np.where(limited, 0, actions)
        self._vector.send(actions.tolist(), self._strengths)
        obs, reward, terminated, _, infos = self._vector.recv()
        if late.size:  # it cannot hold a lane still, so these have made one more step for nothing
            obs, infos = self._vector.reset(late.tolist(), [-1] * late.size)
            reward[late], terminated[late] = 0, False
        return obs.reshape(self._shape), reward, terminated, infos["lives"]

    def close(self) -> None:
        """Let the threads end."""
        del self._vector


class EnvPool:
    """EnvPool's Atari; it has ROMs and an ALE of its own, and makes 1 to ``noop_max`` no-ops."""

    def __init__(self, env_id: str, rom: Any, num_envs: int, settings: Settings) -> None:
        self._envpool = require(env_id, "envpool", "envpool")
        self._task = env_id.removeprefix("ALE/")
        refusal = None
        if self._task not in self._envpool.list_all_envs():
            refusal = "EnvPool does not have this game"
        elif new_emulator(rom).getScreenDims() != (210, 160):
            refusal = "EnvPool cuts its screen off at 210 lines"
        elif not settings.maxpool:
            refusal = "EnvPool has no option maxpool=False"
        elif not settings.noop_max:
            refusal = "EnvPool makes at least one no-op, noop_max=0 is not possible"
        if refusal:
            raise UnsupportedEnv(f"{env_id}: {refusal}; use backend='ale'")
        self._shape = (num_envs, *settings.shape)
        self._options = {
            "stack_num": 1,
            "img_height": settings.img_height,
            "img_width": settings.img_width,
            "gray_scale": settings.grayscale,
            "frame_skip": settings.frameskip,
            "noop_max": settings.noop_max,
            "repeat_action_probability": settings.repeat_action_probability,
            "full_action_space": settings.full_action_space,
            "use_fire_reset": settings.use_fire_reset,
            "max_episode_steps": settings.max_episode_steps or NEVER,
            "episodic_life": False,
            "reward_clip": False,
        }
        spec = self._envpool.make_spec(self._task, **self._options)
        self.num_actions = int(spec.gymnasium_action_space.n)
        self._pool: Any = None

    def restart(self, seeds: list[int] | None) -> tuple[Array, Array]:
        """See the module; a pool takes its seeds when it is made."""
        if seeds is not None:
            many = len(seeds)
            self.close()
            self._pool = self._envpool.make_gymnasium(
                self._task,
                num_envs=many,
                num_threads=threads(many),
                env_seed=seeds,
                **self._options,
            )
        obs, infos = self._pool.reset()
        return self._framed(obs), infos["lives"]

    def play(self, actions: Array, limited: Array) -> tuple[Array, Array, Array, Array]:  # noqa: ARG002
        """See the module; it counts steps itself, and knows what is limited."""
        obs, reward, terminated, _, infos = self._pool.step(actions)
        return self._framed(obs), reward, terminated, infos["lives"]

    def close(self) -> None:
        """Let the threads end."""
        if self._pool is not None:
            self._pool.close()

    def _framed(self, obs: Array) -> Array:
        """Channels last; a copy where there are several."""
        if len(self._shape) == 4:
            obs = obs.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(obs).reshape(self._shape)


class Lanes:
    """Emulators in a list, stepped one after the other."""

    def __init__(self, rom: Any, num_envs: int, settings: Settings) -> None:
        self.lanes = [Lane(rom, settings) for _ in range(num_envs)]
        self.num_actions = len(self.lanes[0].actions)
        self._terminated = np.zeros(num_envs, np.bool_)
        self._shape = (num_envs, *settings.shape)

    def restart(self, seeds: list[int] | None) -> tuple[Array, Array]:
        """See the module."""
        obs = np.empty(self._shape, np.uint8)
        for i, lane in enumerate(self.lanes):
            if seeds is not None:
                lane.seed(seeds[i])
            lane.reset(obs[i])
        self._terminated[:] = False
        return obs, self._lives()

    def play(self, actions: Array, limited: Array) -> tuple[Array, Array, Array, Array]:
        """See the module; the arrays are fresh."""
        obs = np.empty(self._shape, np.uint8)
        reward = np.zeros(len(self.lanes), np.int64)
        terminated = np.zeros(len(self.lanes), np.bool_)
        for i, lane in enumerate(self.lanes):
            if limited[i]:
                lane.step(0, obs[i])  # as ALE's vector class has to
            if limited[i] or self._terminated[i]:
                lane.reset(obs[i])
            else:
                reward[i], terminated[i] = lane.step(int(actions[i]), obs[i])
        self._terminated = terminated
        return obs, reward, terminated.copy(), self._lives()

    def close(self) -> None:
        """Forget the emulators."""
        self.lanes = []

    def get_state(self) -> dict[str, Any]:
        """Everything, a dict a lane."""
        return {
            "terminated": self._terminated.copy(),
            "lanes": [lane.get_state() for lane in self.lanes],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`."""
        self._terminated = np.array(state["terminated"], np.bool_)
        for lane, its in zip(self.lanes, state["lanes"], strict=True):
            lane.set_state(its)

    def _lives(self) -> Array:
        return np.array([lane.emulator.lives() for lane in self.lanes], np.int32)


class Lane:
    """One emulator with the preprocessing of ALE's vector class."""

    def __init__(self, rom: Any, settings: Settings) -> None:
        self._rom, self._settings = rom, settings
        stickiness = settings.repeat_action_probability
        in_menu = rom.stem == STICKY_MENU
        self.emulator = new_emulator(rom, stickiness if in_menu else 0.0)
        full = settings.full_action_space
        legal = self.emulator.getLegalActionSet() if full else self.emulator.getMinimalActionSet()
        self.actions = [int(action.value) for action in legal]
        self._fires = settings.use_fire_reset and FIRE in self.actions
        self._noops, self._sticky = np.random.MT19937(), np.random.MT19937()
        # C++ compares draw / 2**32 with a float32; both products here are exact
        self._sticks_below = 0.0 if in_menu else float(np.float32(stickiness)) * 2**32
        self._setup_draws = 2 * SETUP_FRAMES.get(rom.stem, 0)
        self._held = 0  # what a sticky frame repeats
        size = self.emulator.getScreenDims()
        colours = settings.shape[2:]
        self._screens = np.zeros((2, *size, *colours), np.uint8)  # the last and the one before
        self._read = (
            self.emulator.getScreenGrayscale if settings.grayscale else self.emulator.getScreenRGB
        )
        self._shrink = Shrinker(size, (settings.img_height, settings.img_width), *(colours or (1,)))

    def seed(self, seed: int) -> None:
        """Begin both generators and the emulator anew."""
        key = twister_key(seed)
        for generator in (self._noops, self._sticky):
            generator.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 624}}
        self.emulator.setInt("random_seed", seed)
        self.emulator.loadROM(self._rom)  # which resets
        self._sticky.random_raw(self._setup_draws)

    def reset(self, obs: Array) -> None:
        """A new episode: FIRE where it is asked for, then up to ``noop_max - 1`` no-ops.

        Writes the first observation.
        """
        self._restart()
        if self._fires:
            self._frame(FIRE)
        for _ in range(below(self._noops, max(self._settings.noop_max, 1)) - self._fires):
            self._frame(0)
            if self.emulator.game_over():
                self._restart()
        self._read(self._screens[0])
        self._screens[1] = 0
        self._picture(obs)

    def step(self, action: int, obs: Array) -> tuple[int, bool]:
        """``frameskip`` frames or until the game is over: ``(reward, terminated)``.

        Writes the observation. The frame in which the game ends is not in it, as in Gymnasium's
        AtariPreprocessing.
        """
        reward, over = 0, False
        for left in range(self._settings.frameskip, 0, -1):
            reward += self._frame(self.actions[action])
            over = self.emulator.game_over()
            if over:
                break
            if left <= 2:
                self._read(self._screens[left - 1])
        self._picture(obs)
        return reward, over

    def get_state(self) -> dict[str, Any]:
        """The emulator's bytes, the two last screens, the held action and both generators."""
        emulator = self.emulator.cloneState(include_rng=True).serialize()
        return {
            "emulator": np.frombuffer(emulator, np.uint8).copy(),
            "screens": self._screens.copy(),
            "held": self._held,
            "noops": _state_of(self._noops),
            "sticky": _state_of(self._sticky),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`."""
        emulator = _ale_py().ALEState(np.asarray(state["emulator"], np.uint8).tobytes())
        # What ALE does not save is whether the screen's last frame was cut short. In Q*bert and Tetris
        # a reset leaves one that was, and the first frame behind it ends that.
        self.emulator.reset_game()
        if emulator.getEpisodeFrameNumber():
            self.emulator.act(0)
        self.emulator.restoreState(emulator)
        self._screens[:] = state["screens"]
        self._held = int(state["held"])
        for generator, name in ((self._noops, "noops"), (self._sticky, "sticky")):
            key = np.array(state[name]["key"], np.uint32)
            pos = int(state[name]["pos"])
            generator.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": pos}}

    def _restart(self) -> None:
        self.emulator.reset_game()
        self._held = 0
        self._sticky.random_raw(self._setup_draws)

    def _frame(self, action: int) -> int:
        """One frame of ``action``, or of the last one where that sticks; its reward.

        ALE would do this itself, but it does not save the action it holds.
        """
        draw = self._sticky.random_raw()
        self._sticky.random_raw()  # the second player's
        if draw >= self._sticks_below:
            self._held = action
        reward: int = self.emulator.act(self._held)
        return reward

    def _picture(self, obs: Array) -> None:
        """The two screens as one observation; what was pooled stays, as a step may add no screen."""
        screen = self._screens[0]
        if self._settings.maxpool:
            np.maximum(screen, self._screens[1], out=screen)
        size = self._settings.img_height, self._settings.img_width
        self._shrink(screen.reshape(*screen.shape[:2], -1), obs.reshape(*size, -1))


def twister_key(seed: int) -> Array:
    """The 624 words with which C++'s ``std::mt19937(seed)`` begins."""
    words = [seed]
    for i in range(1, 624):
        words.append((1812433253 * (words[-1] ^ words[-1] >> 30) + i) % 2**32)
    return np.array(words, np.uint32)


def below(generator: np.random.MT19937, bound: int) -> int:
    """A whole number from 0 to ``bound - 1``, as libstdc++'s uniform_int_distribution draws it."""
    product = generator.random_raw() * bound
    if product % 2**32 < bound:
        while product % 2**32 < (2**32 - bound) % bound:
            product = generator.random_raw() * bound
    return int(product >> 32)


def _state_of(generator: np.random.MT19937) -> dict[str, Any]:
    key, pos = generator.state["state"]["key"], generator.state["state"]["pos"]
    return {"key": np.array(key, np.uint32), "pos": int(pos)}
