"""Ids of JAX simulators: ``MinAtar/*``, the games of pgx as ``pgx/*``, those of gymnax as ``gymnax/*``.

MinAtar's games are stepped by pgx ("jax"), or by the package minatar itself ("minatar", one Python
object a lane; both are under the GPL). Either has MinAtar's minimal action set, sticky actions with
probability 0.1 (option ``sticky_action_prob``), rising difficulty, and planes [10, 10, C] of uint8 0
and 1. pgx's Seaquest is repaired, see `envs.jax_suites`; what still differs is that pgx begins each
episode with "nothing" as the action to repeat where minatar repeats the last episode's, and that a
submarine of pgx does not shoot in the step in which a bullet hits it. gymnax's MinAtar has no sticky
actions, so it is another environment and has ids of its own, such as gymnax/Breakout-MinAtar.

Games of pgx give the facts ``action_mask`` [N, A] bool and ``to_play`` [N] int32. There is one action
a step: the observation is that of the side to move, ``to_play`` is its seat, and the reward is that
of the player who made the step's action; the other one's is its negative. Which seat begins is
drawn at each reset. An illegal action ends the game with reward -1.
"""

from __future__ import annotations

import colorsys
import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from envs import minatar_lanes
from envs.contract import Array, UnsupportedEnv, VectorSimulator
from envs.options import did_you_mean, reject_unknown
from envs.packages import require
from envs.single import Single

MINATAR = {
    "MinAtar/Asterix": "asterix",
    "MinAtar/Breakout": "breakout",
    "MinAtar/Freeway": "freeway",
    "MinAtar/Seaquest": "seaquest",
    "MinAtar/SpaceInvaders": "space_invaders",
}

MINATAR_LIMIT = 5000
"""Steps. MinAtar has no limit, but a good player of Breakout never loses; Freeway ends after 2,501."""

PGX = {
    f"pgx/{name}": name
    for name in (
        "2048",
        "animal_shogi",
        "backgammon",
        "chess",
        "connect_four",
        "gardner_chess",
        "go_9x9",
        "go_19x19",
        "hex",
        "kuhn_poker",
        "leduc_holdem",
        "othello",
        "shogi",
        "tic_tac_toe",
    )
}
"""Not sparrow_mahjong: three players, and the reward of the one who moves would say too little."""

GYMNAX = {
    "gymnax/CartPole-v1": 500,
    "gymnax/Pendulum-v1": 200,
    "gymnax/Acrobot-v1": 500,
    "gymnax/MountainCar-v0": 200,
    "gymnax/MountainCarContinuous-v0": 999,
    "gymnax/Asterix-MinAtar": 1000,
    "gymnax/Breakout-MinAtar": 1000,
    "gymnax/Freeway-MinAtar": 2500,
    "gymnax/SpaceInvaders-MinAtar": 1000,
    "gymnax/Catch-bsuite": 1000,
    "gymnax/DeepSea-bsuite": 2000,
    "gymnax/MemoryChain-bsuite": 1000,
    "gymnax/UmbrellaChain-bsuite": 100,
    "gymnax/DiscountingChain-bsuite": 100,
    "gymnax/FourRooms-misc": 500,
    "gymnax/MetaMaze-misc": 200,
    "gymnax/PointRobot-misc": 100,
    "gymnax/BernoulliBandit-misc": 100,
    "gymnax/GaussianBandit-misc": 100,
    "gymnax/Reacher-misc": 100,
    "gymnax/Swimmer-misc": 500,
    "gymnax/Pong-misc": 1000,
}
"""Id -> its limit of steps. Not MNISTBandit, which downloads, and SimpleBandit, which raises."""

PLANES = {"pgx/2048": 31} | dict.fromkeys(
    ("pgx/connect_four", "pgx/go_9x9", "pgx/go_19x19", "pgx/hex", "pgx/othello", "pgx/tic_tac_toe"),
    2,
)
"""How many planes of a board are drawn: the stones of the side to move, then those of the other."""

FPS = 10
CELL = 32  # pixels


def backends(env_id: str) -> list[str]:
    """The backends of ``env_id``.

    Raises:
        UnsupportedEnv: there is no such id; names the nearest.
    """
    if env_id in MINATAR:
        return ["jax", "minatar"]
    if env_id in PGX or env_id in GYMNAX:
        return ["jax"]
    known = [*MINATAR, *PGX, *GYMNAX]
    of_suite = ", ".join(one for one in known if one.split("/")[0] == env_id.split("/")[0])
    hint = did_you_mean(env_id, known) or f"; there are {of_suite}"
    raise UnsupportedEnv(f"there is no environment {env_id!r}{hint}")


def time_limit(env_id: str, options: Mapping[str, Any]) -> int:
    """The option ``max_episode_steps``, else the limit of the suite or `MINATAR_LIMIT`; 0 is never."""
    default = MINATAR_LIMIT if env_id in MINATAR else GYMNAX.get(env_id, 0)
    limit: int = options.get("max_episode_steps", default)
    return limit


def make(
    env_id: str, num_envs: int, seed: int, backend: str, options: Mapping[str, Any]
) -> VectorSimulator:
    """A vector environment of ``env_id``; see the module's docstring for what the lanes show.

    Raises:
        UnsupportedEnv: an option does not exist or has a wrong value, or a package is missing.
    """
    limit = time_limit(env_id, options)
    if env_id in MINATAR:
        sticky = _sticky(env_id, options)
        if backend == "minatar":
            package = require(env_id, "minatar", "minatar")
            games = partial(package.Environment, MINATAR[env_id], sticky)
            return minatar_lanes.MinAtarLanes(games, num_envs, seed, limit)
    else:
        sticky = 0.0
    _one_cpu_thread()
    require(env_id, "jax", "jax")
    require(env_id, "gymnax" if env_id in GYMNAX else "pgx", "jax")
    # these import jax, and so only now
    from envs import jax_suites
    from envs.jax_lanes import JaxLanes

    if env_id in MINATAR:
        game = jax_suites.minatar_game(MINATAR[env_id], sticky)
    elif env_id in PGX:
        reject_unknown(env_id, options, ("max_episode_steps",))
        game = jax_suites.pgx_game(PGX[env_id])
    else:
        for option, value in options.items():
            if not isinstance(value, int | float):
                raise UnsupportedEnv(f"{env_id}: option {option}: got {value!r}, takes a number")
        game = jax_suites.gymnax_game(env_id, tuple(sorted(options.items())), limit)
    return JaxLanes(game, num_envs, seed, limit)


def scalar(env_id: str, options: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """One lane as a Gymnasium environment, stepped by the automatic backend.

    Raises:
        UnsupportedEnv: as `make`, or ``render_mode`` is another than "rgb_array", or there is no
            picture of the environment.
    """
    inner = dict(options)
    mode = inner.pop("render_mode", None)
    if mode not in (None, "rgb_array"):
        raise UnsupportedEnv(f"{env_id}: render_mode: got {mode!r}, takes 'rgb_array'")
    lane = make(env_id, 1, 0, backends(env_id)[0], inner)
    picture = _picture_of(env_id, lane.single_observation_space.shape) if mode else None
    return Single(lane, picture, FPS, mode)


def _sticky(env_id: str, options: Mapping[str, Any]) -> float:
    reject_unknown(env_id, options, ("max_episode_steps", "sticky_action_prob"))
    given = options.get("sticky_action_prob", 0.1)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1:
        raise UnsupportedEnv(
            f"{env_id}: option sticky_action_prob: got {given!r}, takes a number from 0 to 1"
        )
    return float(given)


def _one_cpu_thread() -> None:
    """What JAX is told before it starts, unless the user has: the CPU, and one thread of it.

    A second thread brings these small steps nothing, and takes half as much CPU time again from
    whoever learns beside them.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("PJRT_NPROC", "1")
    os.environ.setdefault("JAX_CPU_ENABLE_ASYNC_DISPATCH", "0")
    # It warns of forks. Programs that are started from here, as for a video, are no such danger.
    warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)


def _picture_of(env_id: str, shape: Any) -> Callable[[Array], Array]:
    drawn = PLANES.get(env_id, 0 if env_id in PGX else None)
    if drawn == 0 or len(shape) not in (2, 3):
        raise UnsupportedEnv(f"{env_id}: it has no renderer")
    return lambda obs: planes_picture(obs if obs.ndim == 2 else obs[..., :drawn])


def planes_picture(obs: Array) -> Array:
    """Planes [H, W, C], or one [H, W], as a picture [H * 32, W * 32, 3] uint8, a colour a plane.

    Where several planes have something in a cell, the first is seen.
    """
    planes = obs.reshape(*obs.shape[:2], -1) > 0
    colours = np.array([(0, 0, 0), *map(_colour, range(planes.shape[2]))], np.uint8)
    seen = np.where(planes.any(axis=2), planes.argmax(axis=2) + 1, 0)
    return colours[seen].repeat(CELL, axis=0).repeat(CELL, axis=1)


def _colour(plane: int) -> tuple[int, ...]:
    """Hues a golden section apart: the first few differ most, and no two are the same."""
    rgb = colorsys.hsv_to_rgb(0.6 + plane * 0.618034, 0.75 if plane % 2 else 0.5, 1.0)
    return tuple(round(255 * part) for part in rgb)
