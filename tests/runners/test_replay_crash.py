"""A simulator fails, in every way and at every place; the report leads to the same fault again."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import envs
from envs import classic
from envs.contract import SimulatorError, spec_of
from runners import crash_report, journal, replay_crash, seeding
from runners.console import SilentConsole
from runners.crash_report import Simulated, report_of
from runners.evaluation import Evaluator, Purpose
from runners.resolve import make_config
from runners.seeding import Stream
from runners.sources import Plan
from runners.train import run
from runners.worker import RolloutWorker
from tests.runners.crashing import ID, Crashing, changed, packed_rows
from tests.scripted import RandomActor

ROOT = Path(__file__).parents[2]
DQN = {
    "steps": 4_000, "lanes": 4, "block_size": 2, "rollout_length": 8, "batch_size": 16,
    "learning_starts": 100, "target_period": 100, "replay_size": 300, "hidden": (8,),
    "eval_every": 2_000, "eval_episodes": 2, "checkpoint_every": 400, "replay_ratio": 0.1,
}  # fmt: skip


def config(env=ID, **changes):
    return make_config("dqn", env, **{**DQN, **changes})


def crash(tmp_path, settings, seeds=(0, 1)):
    """The error that ended the run, and the newest report."""
    with pytest.raises(SimulatorError) as caught:
        run(settings, seeds, str(tmp_path))
    reports = sorted(tmp_path.rglob("crash-*.json"))
    assert reports
    assert f"runners.replay_crash {reports[-1]}" in str(caught.value)
    return caught.value, reports[-1]


def replayed(path, capsys):
    """Exit status and standard output of the command."""
    capsys.readouterr()
    status = replay_crash.main([str(path)])
    return status, capsys.readouterr().out


# -- A run that fails ----------------------------------------------------------------------------

FAULTS = {
    "raise": "step raised ZeroDivisionError: at ",
    "reset": "reset raised KeyError: 'no level behind ",
    "dtype": "the observation is float64(1,), not float32(1,)",
    "nan reward": "the reward is nan",
    "huge reward": "the reward is inf",  # in float32, as a rollout has it
    "infinite observation": "the observation is [inf]",
}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_fault_comes_again(fault, tmp_path, capsys):
    error, path = crash(tmp_path, config(env_options={"fault": fault}))
    assert path.parent.name == "0-1"
    report = json.loads(path.read_text())
    assert report["what"].startswith(FAULTS[fault])
    assert (report["lane"], report["step"]) == (error.lane, error.step)
    assert (report["env"], report["backend"], report["options"]) == (ID, "sync", {"fault": fault})
    # columns are seed-major: 2 seeds x 2 blocks x 2 lanes
    assert (report["seed"], report["block"]) == (error.lane // 4, error.lane // 2 % 2)
    assert (report["first_lane"], report["lanes"]) == (error.lane // 2 * 2, 2)
    assert report["versions"]["numpy"] == np.__version__
    assert len(report["last_actions"]) == min(8, error.step - report["first_step"] + 1)
    status, out = replayed(path, capsys)
    assert status == 1
    assert out == f"the same: {report['fault']}\n"


@pytest.mark.parametrize(
    ("fault", "step", "what"),
    [("late reward", 4, "the reward is nan"), ("late raise", 6, "step raised OverflowError")],
)
def test_of_several_faults_in_a_rollout_the_same_one_is_told(fault, step, what, tmp_path, capsys):
    """Step 2 has an infinite observation, but a run looks at rewards first, and after all rows."""
    error, path = crash(tmp_path, config(env_options={"fault": fault}))
    assert error.step == step
    assert error.what.startswith(what)
    assert replayed(path, capsys)[0] == 1


def test_a_simulator_that_is_well_now_does_not_fail_again(tmp_path, capsys):
    _, path = crash(tmp_path, config(env_options={"fault": "raise"}))
    status, out = replayed(changed(path, options={"fault": "none"}), capsys)
    assert status == 0
    assert out.startswith("did not come again: ")


def test_another_fault_is_not_the_same(tmp_path, capsys):
    _, path = crash(tmp_path, config(env_options={"fault": "raise"}))
    assert replayed(changed(path, options={"fault": "dtype"}), capsys)[0] == 5
    report = json.loads(path.read_text())
    assert replayed(changed(path, step=report["step"] + 1), capsys)[0] == 5
    status, out = replayed(changed(path, what="step raised ZeroDivisionError: at 7"), capsys)
    assert status == 5
    assert out.startswith("another fault: ")


def test_each_failure_has_its_own_report(tmp_path):
    settings = config(env_options={"fault": "raise"})
    assert crash(tmp_path, settings)[1].name == "crash-1.json"
    assert crash(tmp_path, settings)[1].name == "crash-2.json"


def test_a_full_disk_does_not_hide_the_fault(tmp_path, monkeypatch):
    from runners import faults

    monkeypatch.setattr(faults, "_seen", type(faults._seen)())
    monkeypatch.setenv("QLAB_FAULT", "crash.create:1:enospc")
    with pytest.raises(SimulatorError, match=r"ZeroDivisionError.*; no crash report: .*No space"):
        run(config(env_options={"fault": "raise"}), [0], str(tmp_path))


# -- Making and the first reset ------------------------------------------------------------------


def test_a_first_reset_that_raises_fails_before_there_is_a_group(tmp_path, capsys):
    error, path = crash(tmp_path, config(env_options={"fault": "first reset"}))
    assert path.parent.parent == tmp_path  # the run folder
    assert (error.lane, error.step) == (0, 0)
    status, out = replayed(path, capsys)
    assert status == 1
    assert "step 0: reset raised KeyError" in out


def test_making_that_fails_later_than_the_first_time(tmp_path, capsys):
    """The first is made to look at its spaces. The group's first two lanes are next."""
    marker = tmp_path / "licence"
    error, path = crash(tmp_path, config(env_options={"marker": str(marker)}))
    assert error.what.startswith("making it raised RuntimeError: there is no second licence")
    status, out = replayed(path, capsys)
    assert status == 1
    assert "lane 0, step 0: making it raised RuntimeError" in out
    marker.unlink()
    # now one can be made, and the second of two lanes fails
    assert replayed(path, capsys)[0] == 1
    marker.unlink()
    assert replayed(changed(path, lanes=1, actions=packed_rows((0, 1))), capsys)[0] == 0


# -- A run that goes on --------------------------------------------------------------------------


class Killed(Exception):
    pass


class Dies(SilentConsole):
    """Ends the run at a lane step, where nothing is saved."""

    def __init__(self, at):
        self.at = at

    def update(self, progress, *more):
        if progress.lane_steps >= self.at:
            raise Killed


def test_after_a_resume_it_begins_at_the_forced_reset(tmp_path, capsys, monkeypatch):
    """Checkpoints are at rows 100, 200, ...; the environment cannot give its state."""
    settings = config(env_options={"fault": "nan reward"})
    monkeypatch.setattr(Crashing, "well", True)
    with pytest.raises(Killed):
        run(settings, [0], str(tmp_path), console=Dies(500))
    monkeypatch.undo()
    error, path = crash(tmp_path, settings, [0])
    report = json.loads(path.read_text())
    assert report["point"] == "reset"
    assert report["point_seed"] is not None
    # the row of the reset itself is the first one after a checkpoint
    assert report["point_step"] == error.step // 100 * 100 >= 100
    assert report["first_step"] == report["point_step"] + 1
    assert replayed(path, capsys)[0] == 1


def test_a_forced_reset_that_fails(tmp_path, capsys):
    """Its first is at row 100, and all from the first reset on leads to it."""
    _, path = crash(tmp_path, config(env_options={"fault": "second seed"}), [0])
    report = json.loads(path.read_text())
    assert (report["step"], report["point"], report["point_step"]) == (100, "reset", 0)
    assert report["reset_step"] == 100
    assert crash_report.read(path).unpacked_actions().shape == (100, 2)
    status, out = replayed(path, capsys)
    assert status == 1
    assert "step 100: reset raised KeyError" in out
    # without what led to it there is none
    assert replayed(changed(path, actions=packed_rows((0, 2))), capsys)[0] == 0


def test_what_depends_on_more_than_the_last_reset_does_not_come_again(tmp_path, capsys):
    """The object fails at step 250 of its life, which has had resets at rows 100 and 200."""
    error, path = crash(tmp_path, config(env_options={"life": 250}), [0])
    assert error.step > 200
    assert json.loads(path.read_text())["point_step"] == 200
    status, out = replayed(path, capsys)
    assert status == 0
    assert "worn out" in out


@pytest.fixture
def acrobot_breaks(monkeypatch):
    """The lab's own simulator, with a fault in step 150 of lane 1's episode; its words are the bits."""
    advance = classic.ClassicControl.advance

    def faulty(self, actions):
        result = advance(self, actions)
        if self.num_envs > 1 and self.elapsed[1] == 150:
            raise ArithmeticError(f"broken at {self.state[1].tolist()}")
        return result

    monkeypatch.setattr(classic.ClassicControl, "advance", faulty)


def acrobot():
    """Borders of rollouts at each 8th row, a checkpoint at each 96th; 2 lanes."""
    return config("Acrobot-v1", lanes=2, checkpoint_every=192, eval_every=4_000)


@pytest.mark.usefixtures("acrobot_breaks")
def test_a_native_simulator_begins_at_a_saved_state(tmp_path, capsys, monkeypatch):
    """With states after 16 rows: at 16, 32, ..., 144; step 150 is row 149."""
    monkeypatch.setattr(journal, "ROWS_KEPT", 16)
    error, path = crash(tmp_path, acrobot(), [0])
    report = json.loads(path.read_text())
    assert (error.step, report["point"], report["first_step"]) == (149, "state", 144)
    status, out = replayed(path, capsys)
    assert status == 1
    assert "lane 0, step 149: step raised ArithmeticError: broken at [" in out


def test_a_point_is_taken_where_all_before_it_was_looked_at(tmp_path, capsys, monkeypatch):
    """A bad number is found after its rollout: no state from within may be the point."""
    advance = classic.ClassicControl.advance

    def faulty(self, actions):
        obs, reward, *rest = advance(self, actions)
        if self.num_envs > 1 and self.elapsed[1] == 150:
            reward[1] = np.nan
        return obs, reward, *rest

    monkeypatch.setattr(classic.ClassicControl, "advance", faulty)
    monkeypatch.setattr(journal, "ROWS_KEPT", 2)
    _, path = crash(tmp_path, acrobot(), [0])
    report = crash_report.read(path)
    assert (report.lane, report.step, report.first_step) == (1, 149, 144)
    assert report.unpacked_actions().shape == (6, 2)
    assert replayed(path, capsys)[0] == 1


@pytest.mark.usefixtures("acrobot_breaks")
def test_a_resumed_native_simulator_begins_at_the_checkpoint(tmp_path, capsys):
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
    whole, path = crash(tmp_path / "whole", acrobot(), [0])
    assert json.loads(path.read_text())["point"] == "reset"
    with pytest.raises(Killed):
        run(acrobot(), [0], str(tmp_path / "resumed"), console=Dies(2 * 120))
    error, path = crash(tmp_path / "resumed", acrobot(), [0])
    report = json.loads(path.read_text())
    assert report["what"] == whole.what.partition("; replay it")[0]
    assert (error.step, report["point"], report["point_step"]) == (149, "state", 96)
    assert replayed(path, capsys)[0] == 1


@pytest.mark.usefixtures("acrobot_breaks")
def test_a_state_that_is_too_large_to_keep(tmp_path, capsys, monkeypatch):
    """The point before stays; a run that goes on with such a state has none."""
    monkeypatch.setattr(journal, "ROWS_KEPT", 16)
    monkeypatch.setattr(journal, "STATE_BYTES", 100)
    with pytest.raises(Killed):
        run(acrobot(), [0], str(tmp_path), console=Dies(2 * 120))
    with pytest.raises(SimulatorError, match="what is known of it is in"):
        run(acrobot(), [0], str(tmp_path))
    (path,) = tmp_path.rglob("crash-1.json")
    assert replayed(path, capsys)[0] == 3
    (tmp_path / "whole").mkdir()
    _, path = crash(tmp_path / "whole", acrobot(), [0])
    report = json.loads(path.read_text())
    assert (report["point"], report["first_step"]) == ("reset", 0)
    assert replayed(path, capsys)[0] == 1


@pytest.mark.usefixtures("acrobot_breaks")
def test_a_state_that_does_not_fit(tmp_path, capsys):
    _, path = crash(tmp_path, acrobot(), [0])
    other = changed(path, point="state", state=crash_report.packed({"nothing": 1}))
    assert replayed(other, capsys)[0] == 2
    assert replayed(changed(path, actions=packed_rows((3, 2, 1))), capsys)[0] == 2


# -- Bounded memory, seeds that leave, evaluations ------------------------------------------------


def test_a_journal_that_is_full_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(journal, "ACTION_BYTES", 16 * 30)  # 30 rows of 2 int64
    with pytest.raises(SimulatorError, match=r"what is known of it is in .*crash-1\.json"):
        run(config(env_options={"life": 70}), [0], str(tmp_path))
    (path,) = tmp_path.rglob("crash-1.json")
    report = json.loads(path.read_text())
    assert not report["complete"]
    assert len(report["last_actions"]) == 8
    assert crash_report.read(path).unpacked_actions().shape == (30, 2)
    assert replayed(path, capsys)[0] == 3
    assert "last 30 rows" in replay_error(path, capsys)


def replay_error(path, capsys):
    replay_crash.main([str(path)])
    return capsys.readouterr().err


def worker(options, seeds=(0, 1)):
    def make(seed, block):
        return envs.make(ID, 2, seeding.integer(seed, Stream.SIMULATOR, block), **options)

    return RolloutWorker(
        ID, spec_of(envs.make(ID, 1, 0)), seeds, 2, make,
        lambda generators: RandomActor(generators, 2), max_rows=8, reward_dtype=np.float32,
    )  # fmt: skip


@contextlib.contextmanager
def failing():
    """A list with the error that comes."""
    found = []
    with pytest.raises(SimulatorError) as caught:
        yield found
    found.append(caught.value)


def report_to(tmp_path, error, options):
    report = report_of(
        Simulated(ID, "sync", options, "float32"), error.journal, error.what, "", error.lane,
        error.step,
    )  # fmt: skip
    return crash_report.write(tmp_path, report)


def test_a_seed_that_stays_keeps_its_journal(tmp_path, capsys):
    """Seed 1's first lane is the group's first once seed 0 has left; it was lane 4.

    An episode has 20 steps and one row more: the 30th step is row 30.
    """
    options = {"life": 30}
    made = worker(options)
    for _ in range(3):
        made.collect(Plan(8, None), 0)
    made.keep([1])
    with failing() as found:
        made.collect(Plan(8, None), 0)
    path = report_to(tmp_path, found[0], options)
    report = json.loads(path.read_text())
    assert (report["seed"], report["block"], report["first_lane"]) == (1, 0, 0)
    assert (report["lane"], report["step"], report["first_step"]) == (0, 30, 0)
    assert replayed(path, capsys)[0] == 1


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"huge reward"}))  # its sum is finite
def test_an_evaluation_that_fails(fault, tmp_path, capsys):
    options = {"fault": fault, "place": 5.0}
    evaluator = Evaluator(
        ID, spec_of(envs.make(ID, 1, 0)), lambda lanes: envs.make(ID, lanes, 0, **options),
        lambda generators: RandomActor(generators, 2), time_limit=None,
    )  # fmt: skip
    with failing() as found:
        for number in range(100):
            evaluator.returns(None, [3, 4], 2, Purpose.SCHEDULED, number)
    path = report_to(tmp_path, found[0], options)
    report = json.loads(path.read_text())
    assert report["purpose"] == "evaluation"
    assert report["seed"] in (3, 4)
    assert replayed(path, capsys)[0] == 1
    evaluator.close()


def test_a_run_whose_evaluation_fails(tmp_path, capsys):
    """In its second evaluation, before any forced reset. Evaluations have no processes of lanes."""
    settings = config(
        backend="async", lanes=2, eval_every=400, checkpoint_every=4_000,
        env_options={"fault": "second seed"},
    )  # fmt: skip
    _, path = crash(tmp_path, settings, [3])
    report = json.loads(path.read_text())
    assert (report["purpose"], report["backend"], report["seed"]) == ("evaluation", "sync", 3)
    assert (report["lanes"], report["step"], report["reset_step"]) == (2, 0, 0)
    assert replayed(path, capsys)[0] == 1


# -- The command ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_the_command_from_end_to_end(backend, tmp_path):
    flags = [
        f"--{name.replace('_', '-')}={value}" for name, value in DQN.items() if name != "hidden"
    ]
    line = [
        "dqn", "--env", ID, "--env-options", "fault=raise", "--backend", backend, "--seeds", "1",
        "--out", str(tmp_path), *flags,
    ]  # fmt: skip
    train = subprocess.run(
        [sys.executable, "-m", "runners.train", *line], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert train.returncode == 5, train.stderr
    last = train.stderr.splitlines()[-1]
    (path,) = tmp_path.rglob("crash-1.json")
    assert last.endswith(f"; replay it: python -m runners.replay_crash {path}")
    assert json.loads(path.read_text())["backend"] == backend
    again = subprocess.run(
        [sys.executable, *last.split("replay it: python ")[1].split()], cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 1, again.stderr
    assert again.stdout.startswith(f"the same: {ID}: lane ")
    assert "ZeroDivisionError: at " in again.stderr  # the place in the simulator's own code
    assert "crashing.py" in again.stderr
