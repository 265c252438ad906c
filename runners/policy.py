"""A trained run from Python: its greedy policy as a function, and what came out as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from runners.config import from_json
from runners.errors import BadInput
from runners.run_folder import RunFolder, find_run

if TYPE_CHECKING:
    from agents.contract import Actor, Array, Params, State
    from envs.contract import Spec
    from runners.group import Setting

Run = str | Path | RunFolder


class Policy:
    """What a seed has learned: ``policy(obs [N, ...]) -> actions [N]``, greedy.

    It remembers what its agent needs of the past of each of the N lanes, so one policy serves one
    vector environment. `reset` makes it forget; so does another number of lanes.
    """

    def __init__(self, actor: Actor, spec: Spec) -> None:
        self.actor, self.spec = actor, spec
        self._lanes = 0
        self._state: State = {}

    def __call__(
        self,
        obs: ArrayLike,
        first: ArrayLike | None = None,
        action_mask: ArrayLike | None = None,
    ) -> Array:
        """The greedy actions for the observations of N lanes.

        Args:
            obs: [N, ...] as the environment returns them.
            first: [N] bool, true where an observation came from a reset. Without it no episode
                begins, except in the first call, where all do.
            action_mask: [N, A], true where an action is legal; without it all are.

        Returns:
            [N, ...] actions in the environment's units.

        Raises:
            BadInput: the observations are not of this environment, or are not batched.
        """
        batch = self._checked(np.asarray(obs))
        lanes = len(batch)
        begins = np.zeros(lanes, np.bool_) if first is None else np.array(first, np.bool_)
        if begins.shape != (lanes,):
            raise BadInput(f"first: got shape {begins.shape}, takes ({lanes},), one flag a lane")
        if lanes != self._lanes:
            self._lanes, self._state = lanes, self.actor.initial_state(lanes)
            begins[:] = True
        facts = {} if action_mask is None else {"action_mask": self._mask(action_mask, lanes)[None]}
        # The actor serves groups of seeds; this is a group of one.
        actions, self._state, _ = self.actor.act(
            batch[None], begins[None], facts, self._state, False
        )
        chosen: Array = actions[0]
        return chosen

    def reset(self) -> None:
        """Forget the past of all lanes: the next call begins new episodes."""
        self._lanes = 0

    def _mask(self, action_mask: ArrayLike, lanes: int) -> Array:
        mask, shape = np.asarray(action_mask), (lanes, self.spec.num_actions)
        if mask.shape != shape:
            raise BadInput(f"action_mask: got shape {mask.shape}, takes {shape}")
        return mask

    def _checked(self, obs: Array) -> Array:
        """The observations in the dtype that the agent was trained with: float64 as float32."""
        shape, dtype = self.spec.obs_shape, np.dtype(self.spec.obs_dtype)
        if obs.shape == shape:
            raise BadInput(f"obs: got one observation {shape}, takes a batch [N, ...]: obs[None]")
        if obs.shape[1:] != shape or not len(obs):
            expected = ", ".join(["N", *map(str, shape)])
            raise BadInput(f"obs: got shape {obs.shape}, takes [{expected}]")
        if not np.can_cast(obs.dtype, dtype, "same_kind"):
            raise BadInput(f"obs: got {obs.dtype}, takes {dtype}")
        states = self.spec.num_states
        if states and not (obs.min() >= 0 and obs.max() < states):
            raise BadInput(f"obs: got {obs.min()}..{obs.max()}, takes states 0..{states - 1}")
        return np.array(obs, dtype, order="C")  # a copy: some simulators' arrays are read-only


def load_policy(run: Run, seed: int | None = None, last: bool = False) -> Policy:
    """The greedy policy of a trained seed.

    Args:
        run: a run folder, its path, a unique beginning of its name below ``runs``, or ``"last"``.
        seed: whose weights; the first seed of the run where none is named.
        last: take the last weights, not those that did best in an evaluation.

    Raises:
        BadInput: there is no such run or seed, or it has no weights yet.
    """
    folder = open_run(run)
    seed = first_seed(folder) if seed is None else seed
    return make_policy(open_setting(folder), seed_weights(folder, seed, last))


def make_policy(setting: Setting, params: Params) -> Policy:
    """The policy of one seed's weights."""
    actor = setting.make_actor([np.random.default_rng(0)])  # greedy: nothing is drawn from it
    actor.load_params(params)
    return Policy(actor, setting.spec)


def results(*runs: Run) -> list[dict[str, Any]]:
    """What runs came to, as plain data: one dict a run, in the order they are named.

    ==========  ====================================================================
    path        the run folder
    config      config.json: agent, environment and every setting
    summary     summary.json: means, intervals and one value a seed; None before the end
    seeds       seed -> ``result`` (fresh episodes of the last and the best weights; None
                before the end) and ``evals`` (evals.jsonl: the learning curve)
    ==========  ====================================================================

    Args:
        runs: each a run folder, its path, a unique beginning of its name below ``runs``, or
            ``"last"``.

    Raises:
        BadInput: there is no such run.
    """
    from runners.outcome import read_result

    found = []
    for folder in map(open_run, runs):
        seeds = {
            seed: {
                "result": read_result(folder.seed(seed).path),
                "evals": folder.seed(seed).read_evals().records,
            }
            for seed in folder.seeds()
        }
        found.append(
            {
                "path": str(folder.path),
                "config": folder.config(),
                "summary": folder.summary(),
                "seeds": seeds,
            }
        )
    return found


# -- What commands on a finished run share -------------------------------------------------------


def open_run(run: Run, out: str = "runs") -> RunFolder:
    """The run folder that somebody means, as `find_run` finds it."""
    return run if isinstance(run, RunFolder) else find_run(str(run), out)


def open_setting(run: RunFolder) -> Setting:
    """The environment and the agent of a run, as they were configured."""
    from runners.group import make_setting

    return make_setting(from_json(run.config()))


def first_seed(run: RunFolder) -> int:
    """The seed that is meant where none is named."""
    seeds = run.seeds()
    if not seeds:
        raise BadInput(f"{run.path}: no seed has been trained; go on with train --resume")
    return seeds[0]


def seed_weights(run: RunFolder, seed: int, last: bool = False) -> Params:
    """The best or the last weights of a seed; no folder is made for a seed that is not there.

    Raises:
        BadInput: the run has no such seed, or the seed no such weights yet.
    """
    from runners import weights

    first_seed(run)
    if seed not in run.seeds():
        known = ", ".join(map(str, run.seeds()))
        raise BadInput(f"seed {seed}: {run.name} has the seeds {known}")
    if not has_weights(run, seed, last):
        raise BadInput(
            f"{run.path}: seed {seed} has no {_which(last)} weights yet; go on with train --resume"
        )
    folder = run.seed(seed)
    return weights.load_weights(folder.last if last else folder.best)


def has_weights(run: RunFolder, seed: int, last: bool = False) -> bool:
    """Whether a seed of the run has been trained so far."""
    from runners import weights

    folder = run.seed(seed)
    return ((folder.last if last else folder.best) / weights.FILE).is_file()


def _which(last: bool) -> str:
    return "last" if last else "best"
