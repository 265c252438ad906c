"""What an environment did, recorded step by step: the evidence that `envs.probes` judges."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.contract import OBSERVATION_FACTS, STEP_FACTS, Array, LaneError, VectorSimulator
from envs.simulator import block_seeds


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with an environment, or worth knowing about it.

    ``step`` k is the k-th call of ``step`` after a reset, 0 the reset itself; ``lane`` and ``step``
    are None where the finding is about all of them. ``fault`` is False for what is only information.
    """

    probe: str
    what: str
    lane: int | None = None
    step: int | None = None
    fault: bool = True

    def __str__(self) -> str:
        lane = "" if self.lane is None else f", lane {self.lane}"
        step = "" if self.step is None else f", step {self.step}"
        return f"{self.probe}{lane}{step}: {self.what}"


class Broken(Exception):
    """An environment did something after which no more can be recorded."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


@dataclass
class Trace:
    """T steps of N lanes.

    Row t of ``obs`` and of the facts is the observation after step t, row 0 that of the reset; row
    t of the other arrays belongs to step t + 1.
    """

    obs: Array  # [T+1, N, ...]
    action: Array  # [T, N, ...]
    reward: Array  # [T, N]
    terminated: Array  # [T, N] bool
    truncated: Array  # [T, N] bool
    facts: dict[str, Array]  # [T+1, N, ...]

    @property
    def done(self) -> Array:
        """[T, N] bool: an episode ended in this step."""
        done: Array = self.terminated | self.truncated
        return done

    @property
    def ignored(self) -> Array:
        """[T, N] bool: the step after an end, which resets the lane."""
        return np.concatenate([np.zeros_like(self.done[:1]), self.done[:-1]])

    @property
    def last(self) -> tuple[Array, dict[str, Any]]:
        """Observation and facts after the last step, to go on from in `record`."""
        return self.obs[-1], {key: value[-1] for key, value in self.facts.items()}

    def lanes(self, lane: int) -> Trace:
        """One lane alone."""
        n = slice(lane, lane + 1)
        return Trace(
            self.obs[:, n],
            self.action[:, n],
            self.reward[:, n],
            self.terminated[:, n],
            self.truncated[:, n],
            {key: value[:, n] for key, value in self.facts.items()},
        )


def draws(env: VectorSimulator, steps: int, seed: int) -> Array:
    """[steps, N, ...] uniform numbers in [0, 1), from which `record` makes actions."""
    rng = np.random.default_rng(seed)
    return rng.random((steps, env.num_envs, *(env.single_action_space.shape or ())))


def record(
    env: VectorSimulator,
    uniform: Array,
    seed: int | None = None,
    other_on_ignored: bool = False,
    begin: tuple[Array, dict[str, Any]] | None = None,
) -> Trace:
    """Reset ``env``, with ``seed`` or bare, and step it with the actions that ``uniform`` draws.

    Args:
        env: the environment.
        uniform: of `draws`.
        seed: for ``reset``.
        other_on_ignored: take other actions in steps that have to ignore them.
        begin: an observation and facts to go on from, without a reset.

    Raises:
        Broken: an array has a wrong type, dtype or shape, or the environment raised.
    """
    infos: dict[str, Any]
    obs, infos = _reset(env, seed) if begin is None else begin
    # everything is copied at once: an environment may write to its arrays in the next step
    names = [key for key in (*OBSERVATION_FACTS, *STEP_FACTS) if key in infos]
    rows: list[tuple[Array, ...]] = []
    observed, facts = [np.copy(obs)], [{key: np.copy(infos[key]) for key in names}]
    done = np.zeros(env.num_envs, np.bool_)
    for step, row in enumerate(uniform, start=1):
        turned = other_on_ignored & done.reshape(-1, *[1] * (row.ndim - 1))
        action = _actions(env, (row + 0.5 * turned) % 1, infos.get("action_mask"))
        try:
            obs, reward, terminated, truncated, infos = env.step(action)
        except Exception as error:
            raise Broken(_raised("step", error, step)) from error
        _check_step(env, step, (obs, reward, terminated, truncated), infos, facts[0])
        rows.append((action, reward.copy(), terminated.copy(), truncated.copy()))
        observed.append(obs.copy())
        facts.append({key: infos[key].copy() for key in names})
        done = terminated | truncated
    columns: list[Array] = [np.stack(column) for column in zip(*rows, strict=True)]
    action, reward, terminated, truncated = columns
    series = {key: np.stack([row[key] for row in facts]) for key in names}
    return Trace(np.stack(observed), action, reward, terminated, truncated, series)


def held(env: VectorSimulator, uniform: Array) -> list[str]:
    """The names of arrays that a later step wrote to, after they had been returned."""
    obs, infos = _reset(env, None)
    kept = []
    for row in uniform:
        action = _actions(env, row, infos.get("action_mask"))
        obs, reward, terminated, truncated, infos = env.step(action)
        returned = {"obs": obs, "reward": reward, "terminated": terminated, "truncated": truncated}
        kept.append((returned, copy.deepcopy(returned)))
    names = list(kept[0][0]) if kept else []
    return [n for n in names if any((now[n] != then[n]).any() for now, then in kept)]


def _reset(env: VectorSimulator, seed: int | None) -> tuple[Array, dict[str, Any]]:
    try:
        obs, infos = env.reset(seed=None if seed is None else block_seeds(env, seed))
    except Exception as error:
        raise Broken(_raised("reset", error, 0)) from error
    _check_array(env, 0, "obs", obs, _obs_dtype(env), env.single_observation_space.shape or ())
    for key in (*OBSERVATION_FACTS, *STEP_FACTS):
        if key in infos and np.shape(infos[key])[:1] != (env.num_envs,):
            what = f"info {key!r} is {infos[key]!r}, not one array [{env.num_envs}, ...]"
            raise Broken(Finding("facts", what, step=0))
    return obs, infos


def _raised(call: str, error: Exception, step: int) -> Finding:
    """The finding that ``env.step`` or ``env.reset`` raised, in which lane where that is known."""
    if isinstance(error, LaneError):
        return Finding("runs", error.what, lane=error.lane, step=step)
    return Finding("runs", f"{call} raised {error!r}", step=step)


def _actions(env: VectorSimulator, uniform: Array, mask: Array | None) -> Array:
    """One action a lane from its uniform numbers; legal ones where there is a mask."""
    space = env.single_action_space
    if isinstance(space, spaces.Box):
        low, high = np.maximum(space.low, -1e3), np.minimum(space.high, 1e3)
        boxed: Array = (low + uniform * (high - low)).astype(space.dtype)
        return boxed
    assert isinstance(space, spaces.Discrete)
    if mask is None:
        chosen: Array = (uniform * int(space.n)).astype(np.int64)
        return chosen
    legal = [np.flatnonzero(row) for row in mask]
    return np.array(
        [x[int(u * x.size)] if x.size else 0 for x, u in zip(legal, uniform, strict=True)]
    )


def _check_step(
    env: VectorSimulator,
    step: int,
    returned: tuple[Array, ...],
    infos: dict[str, Any],
    first_facts: dict[str, Array],
) -> None:
    obs, reward, terminated, truncated = returned
    _check_array(env, step, "obs", obs, _obs_dtype(env), env.single_observation_space.shape or ())
    _check_array(env, step, "reward", reward, np.floating, ())
    _check_array(env, step, "terminated", terminated, np.bool_, ())
    _check_array(env, step, "truncated", truncated, np.bool_, ())
    for key in (*OBSERVATION_FACTS, *STEP_FACTS):
        if (key in infos) != (key in first_facts):
            what = "is missing, but was there" if key in first_facts else "is here, but was not"
            raise Broken(Finding("facts", f"info {key!r} {what} at the reset", step=step))
        if key in infos and np.shape(infos[key]) != first_facts[key].shape:
            what = f"info {key!r} has shape {np.shape(infos[key])}, not {first_facts[key].shape}"
            raise Broken(Finding("facts", what, step=step))


def _check_array(
    env: VectorSimulator, step: int, name: str, value: Any, dtype: Any, shape: tuple[int, ...]
) -> None:
    """Raise `Broken` unless ``value`` is an array of this dtype, one row of ``shape`` a lane."""
    expected = (env.num_envs, *shape)
    if not isinstance(value, np.ndarray):
        what = f"{name} is a {type(value).__name__}, not an array"
    elif value.shape != expected:
        what = f"{name} has shape {value.shape}, not {expected}"
    elif not np.issubdtype(value.dtype, dtype):
        wanted = getattr(dtype, "name", None) or dtype.__name__
        what = f"{name} has dtype {value.dtype}, not {wanted}"
    else:
        return
    raise Broken(Finding("arrays", what, step=step))


def _obs_dtype(env: VectorSimulator) -> Any:
    return np.dtype(env.single_observation_space.dtype)
