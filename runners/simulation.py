"""Episodes of policies that do not learn, in a simulator with its parameters set this way and that.

The work is cut into rounds, an episode in each lane, and every round leaves a file of its own: what
is killed goes on with the rounds that are missing. A round depends on the seed and its number alone,
so that rounds of one number begin alike under all settings and policies, and the processes that they
are shared out to change no bit.

As a command, ``python -m runners.simulation FOLDER CELL.ROUND...`` plays some of them.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from envs.contract import Array, SimulatorError, Spec, UnsupportedEnv, observation_facts, spec_of
from runners import files, seeding
from runners.checked import CheckedSimulator, finite, making
from runners.errors import BadInput, command, disk, leave, line_of
from runners.evaluation import EPISODE_LIMIT, Purpose
from runners.grid import combinations, written
from runners.journal import Block
from runners.seeding import Stream

if TYPE_CHECKING:
    from runners.policy import Policy

RANDOM = "random"


class Player(NamedTuple):
    """A policy: uniformly random actions, or what a run has learned."""

    name: str  # RANDOM, or the run's name
    path: str = ""  # the run folder
    seed: int = 0  # whose best weights
    weights: str = ""  # their SHA-256


@dataclass(frozen=True)
class Plan:
    """What is simulated: every combination of the parameters' values, with every policy."""

    env: str
    backend: str
    parameters: Mapping[str, Sequence[Any]]
    players: Sequence[Player]
    episodes: int
    lanes: int
    seed: int

    @cached_property
    def settings(self) -> list[dict[str, Any]]:
        """The combinations."""
        return list(combinations(self.parameters))

    @property
    def cells(self) -> list[tuple[dict[str, Any], Player]]:
        """A setting and a policy each; all policies of a setting stand together."""
        return [(setting, player) for setting in self.settings for player in self.players]

    @property
    def rounds(self) -> int:
        """How often every lane plays an episode."""
        return -(-self.episodes // self.lanes)

    @property
    def units(self) -> list[Unit]:
        """All rounds of all cells."""
        return [Unit(c, r) for c in range(len(self.cells)) for r in range(self.rounds)]

    @property
    def folder_name(self) -> str:
        """With ten hex digits over all that can change a bit; where runs lie is left out."""
        from runners.config import BITS
        from runners.provenance import versions

        found = versions()
        record = {
            **self.to_json(),
            "players": [player._replace(path="") for player in self.players],
        }
        record["versions"] = {name: (found.get(name) or "").partition(".")[0] for name in BITS}
        # the order of parameters and policies is that of the cells, so keys are not sorted
        digits = hashlib.sha256(json.dumps(record).encode()).hexdigest()[:10]
        return f"simulation-{re.sub(r'[^A-Za-z0-9._-]', '-', self.env)[:70]}-{digits}"

    def to_json(self) -> dict[str, Any]:
        """For plan.json."""
        return asdict(self) | {"players": [list(player) for player in self.players]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Plan:
        """The plan in a plan.json."""
        return cls(**{**record, "players": [Player(*one) for one in record["players"]]})


class Unit(NamedTuple):
    """A round of a cell."""

    cell: int
    round: int

    def __str__(self) -> str:
        return f"{self.cell}.{self.round}"


class Round(NamedTuple):
    """What a round came to; the seconds are of all steps but the first, which compiles."""

    returns: Sequence[float]  # [lanes]
    lengths: Sequence[int]  # [lanes]
    steps: int  # of all lanes, until the last episode had ended
    seconds: float


def round_path(folder: Path, unit: Unit) -> Path:
    """The file that a round leaves."""
    return folder / "rounds" / f"{unit}.json"


def read_round(folder: Path, unit: Unit) -> Round | None:
    """A round that was played; None where it was not."""
    try:
        return Round(**json.loads(round_path(folder, unit).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # damaged by somebody else: it is played again
        return None


def error_path(folder: Path, unit: Unit) -> Path:
    """The file that says why a round could not be played."""
    return folder / "rounds" / f"{unit}.error"


# -- Checks before anything is played ------------------------------------------------------------


def check(plan: Plan) -> list[Spec]:
    """Make the simulator with each value of each parameter, and hold the policies against it.

    Returns:
        What lanes look like, by setting that was looked at.

    Raises:
        UnsupportedEnv: there is no such environment, backend, parameter or value.
        BadInput: a policy was trained on another environment, or with other observations or actions.
    """
    import envs

    first = plan.settings[0]
    tried = [first] + [
        {**first, name: value} for name, values in plan.parameters.items() for value in values[1:]
    ]
    found = []
    for setting in tried:
        with closing(envs.make(plan.env, 1, 0, plan.backend, **setting)) as env:
            found.append(spec_of(env, CheckedSimulator(env, plan.env).reset(0, plan.seed)[1]))
    for player in plan.players:
        if player.path:
            for setting, spec in zip(tried, found, strict=True):
                _check_player(plan, player, setting, spec)
        elif not _bounded(found[0]):
            raise BadInput(f"policy random: {plan.env} has actions without bounds")
    return found


def find_player(text: str, env_id: str, out: str) -> Player:
    """The policy that ``--policy`` names.

    Raises:
        BadInput: there is no such run, it was trained on another environment, or has no weights yet.
    """
    if text == RANDOM:
        return Player(RANDOM)
    from runners import weights
    from runners.policy import first_seed, open_run, seed_weights

    run = open_run(text, out)
    trained = run.config()["env"]
    if trained != env_id:
        raise BadInput(f"policy {run.name}: was trained on {trained}, not on {env_id}")
    seed = first_seed(run)
    seed_weights(run, seed)
    digest = files.read_stamp(run.seed(seed).best / weights.FILE).sha256
    return Player(run.name, str(run.path.resolve()), seed, digest)


def _check_player(plan: Plan, player: Player, setting: Mapping[str, Any], spec: Spec) -> None:
    from runners.policy import open_run, open_setting

    run = open_run(player.path)
    own = open_setting(run).spec
    if _look(own) == _look(spec):
        return
    options = run.config()["env_options"]
    told = " ".join(f"--set {name}={written(value)}" for name, value in options.items())
    raise BadInput(
        f"policy {player.name}: was trained on {_shown(own)}, and {describe(setting) or plan.env} has "
        f"{_shown(spec)}" + (f"; it was trained with {told}" if told else "")
    )


def _shown(spec: Spec) -> str:
    states = f"{spec.num_states} states"
    seen = states if spec.num_states else f"{spec.obs_dtype} observations {spec.obs_shape}"
    acts = f"{spec.num_actions} actions" if spec.num_actions else f"actions {spec.action_shape}"
    return f"{seen} and {acts}"


def _look(spec: Spec) -> tuple[Any, ...]:
    return (
        spec.obs_shape, np.dtype(spec.obs_dtype), spec.num_states, spec.num_actions,
        spec.action_shape, spec.action_mask,
    )  # fmt: skip


def _bounded(spec: Spec) -> bool:
    bounds = (spec.action_low, spec.action_high)
    return all(bound is None or bool(np.isfinite(bound).all()) for bound in bounds)


def describe(setting: Mapping[str, Any]) -> str:
    """A setting in words."""
    return ", ".join(f"{name}={written(value)}" for name, value in setting.items())


# -- Playing -------------------------------------------------------------------------------------


Act = Callable[[Array, Array, Array | None], Array]  # obs, first, action mask -> actions


def random_policy(spec: Spec, lanes: int, generator: np.random.Generator) -> Act:
    """Uniform over the legal actions, or over the Box; the same draws whatever is observed."""

    def act(obs: Array, first: Array, mask: Array | None) -> Array:
        del obs, first
        if not spec.num_actions:
            low, high = np.asarray(spec.action_low), np.asarray(spec.action_high)
            drawn = low + generator.random((lanes, *spec.action_shape)) * (high - low)
            actions: Array = np.clip(drawn.astype(spec.action_dtype), low, high)
            return actions
        share = generator.random(lanes)
        if mask is None:
            return (share * spec.num_actions).astype(np.int64)
        legal = np.asarray(mask, np.bool_)
        # the so many-th legal action: where the count of legal ones first exceeds its number
        number = np.floor(share * legal.sum(axis=1))[:, None]
        chosen: Array = (legal.cumsum(axis=1) > number).argmax(axis=1)
        return chosen

    return act


def play(
    plan: Plan, setting: Mapping[str, Any], number: int, policy: Policy | None = None
) -> Round:
    """A round: the first episode of every lane after a reset, on a simulator of its own.

    Args:
        plan: what is simulated.
        setting: its parameters.
        number: the round's.
        policy: who acts; None is random.

    Raises:
        SimulatorError: a simulator raised, or returned a wrong shape, dtype or number.
    """
    import envs

    node = (Stream.EVALUATION, Purpose.SIMULATION, number)
    seed, lanes = seeding.integer(plan.seed, *node), plan.lanes
    with making(plan.env, Block(lanes, 0, plan.seed)):
        env = envs.make(plan.env, lanes, seed, plan.backend, **setting)
    limit = np.inf if envs.time_limit(plan.env, **setting) else EPISODE_LIMIT
    with closing(env):
        simulator = CheckedSimulator(env, plan.env)
        obs, infos = simulator.reset(0, seed)
        if policy is None:
            act = random_policy(spec_of(env, infos), lanes, seeding.generator(plan.seed, *node, 1))
        else:
            act = policy
            policy.reset()
        returns, lengths = np.zeros(lanes), np.zeros(lanes, np.int64)
        playing, first = np.ones(lanes, np.bool_), np.ones(lanes, np.bool_)
        steps, began = 0, time.perf_counter()
        while playing.any() and steps < limit:
            actions = act(obs, first, observation_facts(infos).get("action_mask"))
            obs, reward, terminated, truncated, infos = simulator.step(steps, actions)
            np.add(returns, reward, out=returns, where=playing)
            _check_finite(plan.env, steps, obs, returns)
            lengths += playing
            first = (
                ~playing
            )  # they are in the reset's own step, or in an episode that nobody counts
            playing &= ~(terminated | truncated)
            steps += 1
            if steps == 1:
                first[:], began = False, time.perf_counter()
        seconds = time.perf_counter() - began
    return Round(returns.tolist(), lengths.tolist(), (steps - 1) * lanes, seconds)


def _check_finite(env_id: str, step: int, obs: Array, returns: Array) -> None:
    if finite(obs) and finite(returns):
        return
    sound = np.isfinite(obs).reshape(len(returns), -1).all(axis=1) & np.isfinite(returns)
    lane = int(np.argmin(sound))
    raise SimulatorError(env_id, lane, step, "an observation or a reward is not finite")


# -- The process that plays ----------------------------------------------------------------------


def play_units(folder: Path, units: Sequence[Unit]) -> None:
    """Play those rounds that are missing, and leave their files.

    Raises:
        DiskFault: one cannot be written.
    """
    plan = Plan.from_json(json.loads((folder / "plan.json").read_text()))
    policies: dict[Player, Policy] = {}
    for unit in units:
        if read_round(folder, unit) is not None:
            continue
        setting, player = plan.cells[unit.cell]
        if player.path and player not in policies:
            from runners.policy import load_policy

            policies[player] = load_policy(player.path, player.seed)
        try:
            record = files.dump(play(plan, setting, unit.round, policies.get(player))._asdict())
            path = round_path(folder, unit)
        except (SimulatorError, UnsupportedEnv) as error:
            record, path = (line_of(error) or "").encode(), error_path(folder, unit)
        with disk(path):
            files.replace(path, record, "round")


@command
def main(argv: Sequence[str]) -> int:
    """Play the rounds that the command line names."""
    folder, *texts = argv
    units = [Unit(*map(int, text.split("."))) for text in texts]
    plan = json.loads((Path(folder) / "plan.json").read_text())
    if any(player[1] for player in plan["players"]):
        from runners.train import torch_set

        with torch_set():
            play_units(Path(folder), units)
    else:
        play_units(Path(folder), units)
    return 0


if __name__ == "__main__":
    leave(main())
