"""Models that Stable-Baselines3 has saved elsewhere, played as the lab plays its own.

Its zips hold pickled Python: loading one runs code. That happens in one function here, behind a flag of the
user's; which algorithm it is of is read from its JSON alone.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners.errors import BadInput

if TYPE_CHECKING:
    from runners.evaluate import Evaluation

OWN = {"clip_range": "ppo", "exploration_rate": "dqn", "policy_delay": "td3", "target_entropy": "sac",
       "gae_lambda": "a2c"}  # fmt: skip
"""A setting that tells the algorithm, in this order: PPO has A2C's as well."""
LIMIT = 64 << 20  # bytes of its JSON


def algorithm_in(path: Path, named: str | None = None) -> str:
    """Whose model it is, as it says itself; nothing of it is run.

    Raises:
        BadInput: it is no zip of Stable-Baselines3, or of another algorithm than ``named``.
    """
    try:
        with zipfile.ZipFile(path) as opened:
            if opened.getinfo("data").file_size > LIMIT:
                raise BadInput(f"{path}: no model of Stable-Baselines3: its settings are too large")
            settings = json.loads(opened.read("data"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise BadInput(f"{path}: no model of Stable-Baselines3: {error}") from error
    found = next((algo for name, algo in OWN.items() if name in settings), None)
    if found is None:
        raise BadInput(
            f"{path}: of no algorithm that can be played here: {', '.join(OWN.values())}"
        )
    if named and named != found:
        raise BadInput(f"algo: got {named}, but {path} was saved by {found}; leave --algo out")
    return found


def check_trust(path: Path, trust: bool) -> None:
    """Go on where the user takes the risk, and say so.

    Raises:
        BadInput: there was no such word.
    """
    if not trust:
        raise BadInput(
            f"{path}: loading it runs code that it holds; add --trust where you know who made it"
        )
    sys.stderr.write(f"warning: {path} is trusted: loading it runs code that it holds\n")


def load_trusted(path: Path, algo: str) -> Any:
    """The model. This runs whatever code the zip holds: the one place that may, after `check_trust`.

    Raises:
        BadInput: Stable-Baselines3 cannot load it.
    """
    import stable_baselines3

    try:
        return getattr(stable_baselines3, algo.upper()).load(path, device="cpu")
    except Exception as error:  # unpickling raises whatever the code in it does
        raise BadInput(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from error


def evaluate(
    path: Path, algo: str, env: str, seeds: Sequence[int], episodes: int, **options: Any
) -> Evaluation:
    """Greedy episodes of a model that is trusted: those that a run's seeds play in ``evaluate``.

    What VecNormalize has learned is kept in another file, which is not read: a model that was trained
    behind it sees raw observations here.

    Raises:
        BadInput: it cannot be loaded, or its spaces are not the environment's.
    """
    import numpy as np

    import envs
    from envs.contract import spec_of
    from runners.evaluate import Evaluation
    from runners.evaluation import EPISODE_LIMIT, Evaluator, Purpose
    from runners.sb3.policy import SB3Actor, action_space, lane_space, params_of, stacks

    with closing(envs.make(env, 1, 0, **options)) as probe:
        spec = spec_of(probe, probe.reset()[1])
    model = load_trusted(path, algo)
    seen, acts, done = model.observation_space, model.action_space, action_space(spec)
    frames = (seen.shape or (1,))[0] if stacks(spec) else 1
    shown = (frames, *spec.obs_shape) if stacks(spec) else spec.obs_shape
    # images have their channels in front there
    if seen.shape not in (shown, (*shown[2:], *shown[:2])) or _count(seen) != spec.num_states:
        raise BadInput(
            f"{path}: was trained on observations {seen}; {env} shows {lane_space(spec)}"
        )
    if acts.shape != done.shape or _count(acts) != spec.num_actions:
        raise BadInput(f"{path}: was trained for actions {acts}; {env} takes {done}")
    limit = envs.time_limit(env, **options)
    evaluator = Evaluator(
        env,
        spec,
        lambda lanes: envs.make(env, lanes, 0, **options),
        lambda generators: SB3Actor([model.policy for _ in generators], spec, frames),
        limit,
    )
    params = params_of(model, model.num_timesteps, 0)
    with closing(evaluator):
        returns = np.concatenate(
            [evaluator.returns(params, [seed], episodes, Purpose.COMMAND) for seed in seeds]
        )
    steps = [params.lane_steps] * len(seeds)
    found = Evaluation(list(seeds), steps, returns)
    return found if limit else found._replace(cut_after=EPISODE_LIMIT)


def _count(space: Any) -> int:
    """The values of a Discrete space; 0 of another."""
    return int(getattr(space, "n", 0))
