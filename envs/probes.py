"""What `envs.check` asks of a recorded environment: each probe is a function of its traces."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.contract import Array, FiniteMDP, VectorSimulator, spec_of
from envs.trace import Finding, Trace, record

ENOUGH_ENDS = 10  # of one kind, before final observations are judged by what most of them are


def declared(env: VectorSimulator) -> Iterator[Finding]:
    """Spaces and metadata say what the contract asks for."""
    if not isinstance(env, VectorEnv):
        yield Finding("spaces", f"{type(env).__name__} is not a gymnasium.vector.VectorEnv")
        return
    mode = env.metadata.get("autoreset_mode")
    if mode != AutoresetMode.NEXT_STEP:
        yield Finding("spaces", f"autoreset_mode is {mode}, not AutoresetMode.NEXT_STEP")
    try:
        spec_of(env)
    except ValueError as error:
        yield Finding("spaces", str(error))
        return
    for name in ("observation", "action"):
        one, batched = getattr(env, f"single_{name}_space"), getattr(env, f"{name}_space")
        if getattr(one, "start", 0) != 0:
            yield Finding("spaces", f"Discrete {name}s start at {one.start}, not 0")
        elif batched != batch_space(one, env.num_envs):
            yield Finding(
                "spaces", f"{name}_space is not {env.num_envs} lanes of single_{name}_space"
            )


def values(trace: Trace, space: spaces.Space[Any]) -> Iterator[Finding]:
    """Everything is a number, and observations lie in their space."""
    for name, array, late in (("obs", trace.obs, 0), ("reward", trace.reward, 1)):
        bad = ~np.isfinite(array)
        if bad.any():
            yield _at("numbers", bad, late, f"{name} is {_shown(array[bad][0])}")
    if isinstance(space, spaces.Discrete):
        low, high = np.array(0), np.array(space.n - 1)
    else:
        assert isinstance(space, spaces.Box)
        low, high = space.low, space.high
    outside = (trace.obs < low) | (trace.obs > high)
    if outside.any():
        what = f"obs has {_shown(trace.obs[outside][0])}, outside of {space}"
        yield _at("range", outside, 0, what)


def reset_rule(trace: Trace) -> Iterator[Finding]:
    """The step after an end yields reward 0 and no flags."""
    found = []
    for name in ("reward", "terminated", "truncated"):
        array = getattr(trace, name)
        bad = trace.ignored & (array != 0)
        if bad.any():
            what = f"{name} is {_shown(array[bad][0])} in the step after an end, which only resets"
            found.append(_at("reset rule", bad, 1, what))
    # a flag makes an end of the step itself, and the next one seems wrong too: the cause goes first
    yield from sorted(found, key=lambda finding: finding.step or 0)


def time_limit(trace: Trace, limit: int) -> Iterator[Finding]:
    """Episodes are truncated after ``limit`` steps (0: never), not before and not later."""
    elapsed = np.zeros(trace.done.shape[1], np.int64)
    early, late = np.zeros_like(trace.done), np.zeros_like(trace.done)
    lengths = np.zeros(trace.done.shape, np.int64)
    for t, ignored in enumerate(trace.ignored):
        elapsed = np.where(ignored, 0, elapsed + 1)
        lengths[t] = elapsed
        at_limit = (elapsed >= limit) & (limit > 0)
        early[t] = trace.truncated[t] & ~at_limit & ~ignored
        late[t] = at_limit & ~trace.done[t] & ~ignored
    if early.any():
        rule = f"the limit is {limit}" if limit else "there is no limit"
        what = f"truncated after {lengths[early][0]} steps of the episode, but {rule}"
        yield _at("time limit", early, 1, what)
    if late.any():
        what = (
            f"not truncated after {lengths[late][0]} steps of the episode, but the limit is {limit}"
        )
        yield _at("time limit", late, 1, what)


def final_observation(trace: Trace) -> Iterator[Finding]:
    """The observation of an end belongs to the episode that ended.

    Where it does, it is about as far from the first observations of episodes as the one before it.
    It is a fault where nearly all final observations lie among the first ones, but less than half
    of those before them: that needs no second environment.
    """
    ignored = trace.ignored
    firsts = np.concatenate([trace.obs[0], trace.obs[1:][ignored]])
    among = _among(trace.obs, firsts)  # [T+1, N]
    for kind, ends in (
        ("terminated", trace.terminated & ~ignored),
        ("truncated", trace.truncated & ~trace.terminated & ~ignored),
    ):
        if ends.sum() < ENOUGH_ENDS:
            continue
        if among[1:][ends].mean() > 0.9 and among[:-1][ends].mean() < 0.5:
            what = f"where an episode is {kind}, obs is that of a reset, not the true final one"
            yield _at("final observation", ends, 1, what)


def outcomes(trace: Trace, mdp: FiniteMDP) -> Iterator[Finding]:
    """Every step is one that the environment's own `FiniteMDP` makes possible."""
    state, action, after = trace.obs[:-1], trace.action, trace.obs[1:]
    valid = ~trace.ignored
    inside = (state >= 0) & (state < mdp.num_states)
    s = np.where(inside, state, 0)
    possible = (
        (mdp.P[s, action] > 0)
        & (mdp.successor[s, action] == after[..., None])
        & (mdp.R[s, action] == trace.reward[..., None])
        & (mdp.terminal[s, action] == trace.terminated[..., None])
    ).any(axis=2)
    bad = valid & inside & ~possible
    if bad.any():
        t, lane = np.argwhere(bad)[0]
        what = (
            f"action {action[t, lane]} in state {state[t, lane]} led to state {after[t, lane]} with "
            f"reward {trace.reward[t, lane]} and terminated={trace.terminated[t, lane]}, "
            "which has probability 0 in its FiniteMDP"
        )
        yield Finding("transitions", what, int(lane), int(t) + 1)
    starts = np.concatenate([trace.obs[:1], np.where(trace.ignored, after, -1)])
    wrong = (starts >= 0) & (mdp.rho[np.clip(starts, 0, mdp.num_states - 1)] == 0)
    if wrong.any():
        what = f"an episode begins in state {starts[wrong][0]}, which has probability 0"
        yield _at("transitions", wrong, 0, what)


def equal(probe: str, one: Trace, two: Trace, what: str) -> Iterator[Finding]:
    """Two traces are the same, bit for bit; ``what`` says what it means where they are not."""
    found = difference(one, two)
    if found is not None:
        name, step, lane = found
        yield Finding(probe, f"{what} ({name} differs)", lane, step)


def difference(one: Trace, two: Trace) -> tuple[str, int, int] | None:
    """``(array, step, lane)`` where two traces first differ, or None."""
    first: tuple[int, int, str] | None = None
    for name, late in (("obs", 0), ("reward", 1), ("terminated", 1), ("truncated", 1)):
        a, b = getattr(one, name), getattr(two, name)
        unequal = (a != b) & ~((a != a) & (b != b))  # NaN is equal to NaN here
        if unequal.any():
            t, lane = np.argwhere(unequal)[0][:2]
            here = (int(t) + late, int(lane), name)
            first = here if first is None else min(first, here)
    return None if first is None else (first[2], first[0], first[1])


def round_trip(
    env: VectorSimulator, fresh: VectorSimulator, uniform: Array, cut: int
) -> Iterator[Finding]:
    """``set_state(get_state())`` after ``cut`` steps brings the same steps again, here and fresh."""
    offered = [name for name in ("get_state", "set_state") if hasattr(env, name)]
    if len(offered) < 2:
        if offered:
            yield Finding("state", f"has {offered[0]} alone")
        return
    before = record(env, uniform[:cut])
    state = env.get_state()  # type: ignore[attr-defined]
    kept = copy.deepcopy(state)
    yield from _leaves(state)
    rest = uniform[cut:]
    expected = record(env, rest, begin=before.last)
    if not _same(state, kept):
        yield Finding("state", "get_state gives a view: later steps changed it")
        state = kept
    record(fresh, uniform[:3])
    for which, where in ((env, "the same"), (fresh, "a fresh")):
        which.set_state(state)  # type: ignore[attr-defined]
        again = record(which, rest, begin=before.last)
        what = f"set_state in {where} environment: other steps"
        found = list(equal("state", expected, again, what))
        if not _same(state, kept):
            found.append(Finding("state", "set_state keeps the given arrays: steps changed them"))
        yield from found
        if found:
            return


def reference(
    env: VectorSimulator, uniform: Array, scalar: gymnasium.Env[Any, Any], seed: int
) -> Iterator[Finding]:
    """One lane does what Gymnasium's scalar environment does when it is stepped by hand."""
    trace = record(env, uniform)
    obs, _ = scalar.reset(seed=seed)
    if not _close(trace.obs[0, 0], obs):
        what = "draws other numbers than the scalar environment; the two are not compared"
        yield Finding("final observation", what, fault=False)
        return
    done = False
    for t, action in enumerate(trace.action[:, 0]):
        reward, terminated, truncated = 0.0, False, False
        if done:
            obs, _ = scalar.reset()
        else:
            obs, raw, terminated, truncated, _ = scalar.step(action)
            reward = float(raw)
        done = terminated or truncated
        expected = {"terminated": terminated, "truncated": truncated, "reward": reward}
        for name, value in expected.items():
            got = getattr(trace, name)[t, 0]
            if not _close(got, value):
                what = f"{name} is {_shown(got)}, the scalar environment gives {_shown(value)}"
                yield Finding("scalar twin", what, 0, t + 1)
                return
        if not _close(trace.obs[t + 1, 0], obs):
            probe = "final observation" if done else "scalar twin"
            what = f"obs is {trace.obs[t + 1, 0]}, the scalar environment gives {obs}"
            yield Finding(probe, what, 0, t + 1)
            return


def _at(probe: str, bad: Array, late: int, what: str) -> Finding:
    """A finding at the first True of ``bad`` [T, N, ...], whose row t belongs to step t + late."""
    t, lane = np.argwhere(bad)[0][:2]
    return Finding(probe, what, int(lane), int(t) + late)


def _among(obs: Array, firsts: Array) -> Array:
    """[T+1, N] bool: observations that are first ones (integers) or in the box around them."""
    if obs.ndim == 2 and np.issubdtype(obs.dtype, np.integer):
        return np.isin(obs, firsts)
    inside = (obs >= firsts.min(axis=0)) & (obs <= firsts.max(axis=0))
    flat: Array = inside.reshape(*inside.shape[:2], -1).all(axis=2)
    return flat


def _leaves(state: Any, path: str = "state") -> Iterator[Finding]:
    """A state holds nothing that a file without pickle could not."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from _leaves(value, f"{path}[{key!r}]")
    elif isinstance(state, list | tuple):
        for i, value in enumerate(state):
            yield from _leaves(value, f"{path}[{i}]")
    elif isinstance(state, np.ndarray):
        if state.dtype == object:
            yield Finding("state", f"{path} is an array of objects")
    elif not isinstance(state, int | float | str | np.generic | None):
        yield Finding("state", f"{path} is a {type(state).__name__}, not an array or a JSON value")


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    return bool(np.array_equal(one, two))


def _close(one: Any, two: Any) -> bool:
    """Equal up to float32 rounding: a vectorised formula may round otherwise."""
    return bool(np.allclose(np.asarray(one, float), np.asarray(two, float), rtol=1e-4, atol=1e-5))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)
