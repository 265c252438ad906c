"""``python -m runners.replay_crash FILE``: do again what made a simulator fail, in this process."""

from __future__ import annotations

import contextlib
import faulthandler
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runners.errors import BadInput, NoCheckpoint, command, leave, within_a_simulator
from runners.evaluate import Parser

if TYPE_CHECKING:
    from envs.contract import Array, SimulatorError, Spec, VectorSimulator
    from runners.checked import CheckedSimulator
    from runners.crash_report import Report

DESCRIPTION = """\
When a simulator raises, or returns what it must not, the run stops and leaves a report in the run
folder: groups/<a>-<b>/crash-<n>.json, or crash-<n>.json where the very first reset failed. This
command makes the same simulator again, leads it to the report's first point (its making, a reset, or
a saved state), takes all actions from there on, and says whether the same fault comes. No learning,
no agent; the simulator is in this process, where a breakpoint() in its code stops, or, with backend
async, in processes of this one."""

EPILOG = """\
example:
  python -m runners.replay_crash runs/dqn-MyEnv-v0-0123456789/groups/0-4/crash-1.json

exit status: 1 the same fault came: same text, lane and step; 0 no fault came again; 5 another
fault came; 2 bad input, as a file that is no report; 3 the report has no point to begin from: too
much had happened since the last. A simulator that kills its process kills this one too, after it
has printed where it was (139 for signal 11)."""


def replay(report: Report) -> SimulatorError | None:
    """The fault that comes, or None where all rows are taken without one.

    Raises:
        NoCheckpoint: the report has no point to begin from.
        BadInput: what the report holds is not for this environment.
        UnsupportedEnv: there is no such environment, backend or option here.
    """
    import envs
    from envs.contract import SimulatorError
    from runners.checked import CheckedSimulator, making
    from runners.journal import Block

    if not report.complete or report.point == "unknown":
        raise NoCheckpoint(
            f"the report has the last {len(report.unpacked_actions()):,} rows and no point to "
            "begin from; its traceback and last_actions are all that is known"
        )
    envs.backends(report.env)  # whatever the simulator's own code does, the id has to be one
    block = Block(report.lanes, report.simulator_seed, first_lane=report.first_lane)
    died_in_making = report.point == "made" and report.reset_step is None
    try:
        with making(report.env, block) if died_in_making else contextlib.nullcontext():
            env = envs.make(
                report.env, report.lanes, report.simulator_seed, report.backend, **report.options
            )
    except SimulatorError as error:
        return error
    try:
        _repeat(report, CheckedSimulator(env, report.env, report.first_lane))
    except SimulatorError as error:
        return error
    finally:
        with contextlib.suppress(Exception):  # what comes after the fault is not asked for
            env.close()
    return None


def _repeat(report: Report, simulator: CheckedSimulator) -> None:
    """Lead the simulator to the point and take all actions; raises what the run has raised."""
    actions = _actions(report, simulator.env)
    numbers = _numbers(report, simulator.env)
    if report.point == "state":
        _to_state(report, simulator)
    elif report.point == "reset":
        obs, _ = simulator.reset(report.point_step, report.point_seed)
        numbers.look(report.point_step, None, obs)
    for step, action in enumerate(actions, report.first_step):
        obs, reward, terminated, truncated, _ = simulator.step(step, action)
        numbers.look(step, reward, obs)
        numbers.played(terminated | truncated)
    if report.reset_step is not None:
        obs, _ = simulator.reset(report.reset_step, report.reset_seed)
        numbers.look(report.reset_step, None, obs)
    numbers.close()


def _actions(report: Report, env: VectorSimulator) -> Array:
    actions, shape = report.unpacked_actions(), env.single_action_space.shape or ()
    if actions.shape[2:] != shape:
        raise BadInput(f"actions: got {actions.shape[2:]} a lane; {report.env} takes {shape}")
    return actions


def _to_state(report: Report, simulator: CheckedSimulator) -> None:
    if not simulator.gives_state:
        raise BadInput(f"state: {report.env} with backend {report.backend} takes none")
    simulator.reset(report.point_step)  # as a run that goes on: some make themselves ready there
    try:
        simulator.set_state(report.unpacked_state(), report.point_step)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise BadInput(f"state: {report.env} does not take it ({told})") from error


# -- Numbers that are not finite: found where and when a run finds them --------------------------


def _numbers(report: Report, env: VectorSimulator) -> TrainingNumbers | EvaluationNumbers:
    from envs.contract import spec_of

    spec = spec_of(env)
    if report.purpose == "training":
        return TrainingNumbers(spec, np.dtype(report.reward_dtype), _fault_of(report))
    return EvaluationNumbers(spec, report.lanes, _fault_of(report))


def _fault_of(report: Report) -> Callable[[int, int, str], SimulatorError]:
    from envs.contract import SimulatorError

    return lambda lane, step, what: SimulatorError(report.env, report.first_lane + lane, step, what)


class TrainingNumbers:
    """A worker looks at a whole rollout: first at all rewards, then at all observations."""

    def __init__(
        self,
        spec: Spec,
        reward_dtype: np.dtype[Any],
        fault: Callable[[int, int, str], SimulatorError],
    ) -> None:
        self.spec, self.reward_dtype, self.fault = spec, reward_dtype, fault
        self.reward: SimulatorError | None = None
        self.observation: SimulatorError | None = None

    def look(self, step: int, reward: Array | None, obs: Array) -> None:
        """Remember the first of each kind, as the worker keeps them: in its own dtypes."""
        with np.errstate(over="ignore"):
            if reward is not None and self.reward is None:
                kept = reward.astype(self.reward_dtype)
                if (lane := _first_bad(kept)) is not None:
                    self.reward = self.fault(lane, step, f"the reward is {kept[lane]}")
            if self.observation is None:
                kept = obs.astype(self.spec.obs_dtype)
                if (lane := _first_bad(kept)) is not None:
                    self.observation = self.fault(lane, step, f"the observation is {kept[lane]}")

    def played(self, done: Array) -> None:
        """Nothing depends on it."""

    def close(self) -> None:
        """Raise what was found."""
        if found := self.reward or self.observation:
            raise found


class EvaluationNumbers:
    """An evaluation looks at every step, at the sums of lanes that still play."""

    def __init__(
        self, spec: Spec, lanes: int, fault: Callable[[int, int, str], SimulatorError]
    ) -> None:
        self.spec, self.fault = spec, fault
        self.totals, self.playing = np.zeros(lanes), np.ones(lanes, np.bool_)

    def look(self, step: int, reward: Array | None, obs: Array) -> None:
        """Raise what is found."""
        if reward is None:  # a reset: everyone plays
            self.totals[:], self.playing[:] = 0.0, True
        else:
            np.add(self.totals, reward, out=self.totals, where=self.playing)
        with np.errstate(over="ignore"):
            kept = obs.astype(self.spec.obs_dtype)
        sound = np.isfinite(kept).reshape(len(kept), -1).all(axis=1)
        if (sound & np.isfinite(self.totals)).all():
            return
        lane = int(np.argmin(sound & np.isfinite(self.totals)))
        what = "the reward is not finite" if sound[lane] else f"the observation is {kept[lane]}"
        raise self.fault(lane, step, f"in an evaluation {what}")

    def played(self, done: Array) -> None:
        """Lanes whose episode has ended count no more."""
        self.playing &= ~done

    def close(self) -> None:
        """All was said before."""


def _first_bad(numbers: Array) -> int | None:
    """The first lane of [n, ...] with a number that is not finite."""
    from runners.checked import finite

    if finite(numbers):
        return None
    return int(np.argwhere(~np.isfinite(numbers))[0][0])


# -- The command line ----------------------------------------------------------------------------


def _parser() -> Parser:
    parser = Parser("runners.replay_crash", DESCRIPTION, EPILOG)
    parser.add_argument("file", metavar="FILE", type=Path, help="a report: crash-<n>.json")
    return parser


def _how(report: Report) -> str:
    """What is going to be done, in one line."""
    rows = len(report.unpacked_actions())
    seed = "" if report.point_seed is None else f" with seed {report.point_seed}"
    begin = {"made": "its making", "reset": f"a reset{seed}", "state": "a saved state"}
    last = "" if report.reset_step is None else ", then a reset"
    return (
        f"replaying {report.env} ({report.backend}, {report.lanes} lanes): {rows:,} rows from "
        f"{begin.get(report.point, 'no point')}{last}"
    )


@command
def main(argv: Sequence[str]) -> int:
    """Read the report, do it again, say what came."""
    from runners import crash_report, provenance
    from runners.config import difference
    from runners.crash_report import one_text

    report = crash_report.read(_parser().parse_args(argv).file)
    for changed in difference(provenance.versions(), report.versions):
        sys.stderr.write(f"note: {changed}\n")
    sys.stderr.write(f"{_how(report)}\n")
    sys.stderr.flush()
    found = replay(report)
    if found is None:
        sys.stdout.write(f"did not come again: {report.fault}\n")
        return 0
    sys.stderr.write(within_a_simulator(found))
    came = (found.lane, found.step, one_text(found.what))
    if came == (report.lane, report.step, report.what):
        sys.stdout.write(f"the same: {_line(found)}\n")
        return 1
    sys.stdout.write(f"another fault: {_line(found)}\nthe report's: {report.fault}\n")
    return 5


def _line(error: SimulatorError) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    faulthandler.enable()  # a simulator that kills this process shall leave its place
    leave(main())
