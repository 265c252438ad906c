import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

import envs
from envs import check as checker
from envs import probes
from envs.check import check, check_id, main
from envs.tabular import TabularVectorEnv
from envs.trace import draws, record
from tests.envs import faulty

TABULAR = [env_id for env_id, module in envs.SIMULATORS.items() if module == "tabular"]
GYMNASIUM = (
    "CartPole-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
)


def faults(factory, **kwargs):
    kwargs = {"steps": 400, "time_limit": faulty.LIMIT, **kwargs}
    return [finding for finding in check(factory, **kwargs) if finding.fault]


@pytest.mark.parametrize("env_id", [*TABULAR, *GYMNASIUM])
def test_simulators_are_in_order(env_id):
    findings = check_id(env_id)
    assert [str(finding) for finding in findings if finding.fault] == []
    # make promises that returned arrays are the caller's
    assert "aliasing" not in {finding.probe for finding in findings}


@pytest.mark.parametrize("env_id", ["Taxi-v4", "FrozenLake-v1", "CartPole-v1", "CliffWalking-v1"])
def test_sync_backend_is_in_order(env_id):
    assert [str(f) for f in check_id(env_id, "sync", steps=300) if f.fault] == []


def test_async_backend_does_what_sync_does():
    one, two = (envs.make("MountainCar-v0", 2, 0, backend) for backend in ("sync", "async"))
    uniform = draws(one, 210, 0)  # past the time limit of 200
    with closing(two):
        assert probes.difference(record(one, uniform), record(two, uniform)) is None


def test_correct_environment_has_no_findings_beyond_what_cannot_be_probed():
    findings = check(faulty.Walk, steps=400, time_limit=faulty.LIMIT)
    assert {finding.probe for finding in findings} == {"transitions", "scalar twin", "seed"}
    assert not any(finding.fault for finding in findings)


def test_ends_that_look_like_beginnings_are_no_fault_where_all_steps_do():
    assert faults(faulty.Still) == []


# fault, probe that names it, words of the message, lane and step where they are certain
NAMED = [
    (faulty.WrongDtype, "arrays", "obs has dtype float64, not float32", None, 0),
    (faulty.WrongShape, "arrays", "reward has shape (3, 1), not (3,)", None, 4),
    (faulty.NaNInObs, "numbers", "obs is nan", 1, 7),
    (faulty.OutOfRange, "range", "obs has 11, outside of Box", 2, 9),
    (faulty.Raises, "runs", "IndexError('out of maps')", None, 6),
    (faulty.FactComesAndGoes, "facts", "'action_mask' is missing", None, 6),
    (faulty.SameStep, "spaces", "SAME_STEP", None, None),
    (faulty.TupleObs, "spaces", "neither Discrete nor Box", None, None),
    (faulty.FixedSeed, "seed", "the seed is ignored", None, None),
    (faulty.GlobalGenerator, "determinism", "the same seed gives other steps", 0, 0),
    (faulty.KeptSeedUnused, "seed", "does not use the seed", None, None),
    (faulty.KeptSeedForEver, "seed", "second bare reset", None, None),
    (faulty.EqualLanes, "lanes", "all lanes do the same", None, None),
    (faulty.StateIsView, "state", "later steps changed it", None, None),
    (faulty.StateIsTaken, "state", "keeps the given arrays", None, None),
    (faulty.StateOfObjects, "state", "['rngs'][0] is a Generator", None, None),
]


@pytest.mark.parametrize(("env", "probe", "words", "lane", "step"), NAMED)
def test_fault_is_named(env, probe, words, lane, step):
    found = faults(env)
    assert probe in [finding.probe for finding in found]
    first = next(finding for finding in found if finding.probe == probe)
    assert words in first.what
    assert (first.lane, first.step) == (lane, step)


def ends(env_class, of):
    """(lane, step) of the first row of a trace, as the checker records it, where ``of`` holds."""
    env = env_class(3, 0)
    t, lane = np.argwhere(of(record(env, draws(env, 400, 0))))[0]
    return lane, t + 1


# faults that show at the first end of an episode, or in the row behind it
AT_ENDS = [
    (faulty.EarlyTruncation, "time limit", "truncated after 15 steps", lambda t: t.truncated),
    (faulty.ResetObsAtTheEnd, "final observation", "terminated", lambda t: t.terminated),
    (
        faulty.ResetObsAtTruncation,
        "final observation",
        "truncated",
        lambda t: t.truncated & ~t.terminated,
    ),
    (faulty.RewardOnReset, "reset rule", "reward is 1", lambda t: t.ignored),
    (faulty.FlagOnReset, "reset rule", "terminated is True", lambda t: t.ignored),
    (faulty.ActionOnReset, "reset rule", "does not ignore its action", lambda t: t.ignored),
]


@pytest.mark.parametrize(("env", "probe", "words", "of"), AT_ENDS)
def test_fault_at_an_end_is_named_where_it_happens(env, probe, words, of):
    first = next(finding for finding in faults(env) if finding.probe == probe)
    assert words in first.what
    assert (first.lane, first.step) == ends(env, of)


def test_late_truncation_is_named_one_step_after_the_limit_at_the_latest():
    first = next(f for f in faults(faulty.LateTruncation) if f.probe == "time limit")
    assert "not truncated after 20 steps" in first.what


@pytest.mark.parametrize("env", [faulty.StateWithoutGenerator, faulty.StateWithoutDone])
def test_state_that_is_not_restored_is_named_at_the_first_other_step(env):
    (found,) = faults(env)
    assert found.probe == "state"
    assert "set_state" in found.what
    assert found.step == 1
    assert found.lane is not None


def test_reused_arrays_are_no_fault_but_are_mentioned():
    findings = check(faulty.ReusedArrays, steps=400, time_limit=faulty.LIMIT)
    assert not any(finding.fault for finding in findings)
    assert "obs is written to" in next(f.what for f in findings if f.probe == "aliasing")


def test_no_limit_means_no_truncation():
    first = next(f for f in faults(faulty.Walk, time_limit=0) if f.probe == "time limit")
    assert "there is no limit" in first.what


class OtherReward(TabularVectorEnv):
    """FrozenLake whose steps pay what its FiniteMDP does not say."""

    def __init__(self, num_envs, seed):
        super().__init__(envs.make("FrozenLake-v1", 1, 0).mdp, num_envs, seed)

    def step(self, actions):
        obs, reward, *rest = super().step(actions)
        return obs, np.where((obs == 5) & ~rest[0], 1.0, np.where(obs == 4, 0.5, reward)), *rest


def test_step_that_the_table_does_not_allow_is_named():
    first = next(f for f in faults(OtherReward, time_limit=100) if f.probe == "transitions")
    assert "led to state 4 with reward 0.5" in first.what
    assert first.step is not None


class WrongFinal(TabularVectorEnv):
    """CliffWalking that shows state 0 as its final observation."""

    def __init__(self, num_envs, seed):
        mdp = envs.make("FrozenLake-v1", 1, 0).mdp
        super().__init__(mdp, num_envs, seed)
        self.mdp = None

    def step(self, actions):
        obs, reward, terminated, truncated, infos = super().step(actions)
        return np.where(terminated, 3, obs), reward, terminated, truncated, infos


def test_scalar_twin_finds_a_false_final_observation():
    from envs import native

    scalar = (lambda: native.scalar("FrozenLake-v1", {}), 0)
    found = faults(WrongFinal, time_limit=100, scalar=scalar)
    assert [finding.probe for finding in found] == ["final observation"]
    assert "obs is 3, the scalar environment gives" in found[0].what


def test_command_line_says_what_it_found(capsys):
    assert main(["FrozenLake-v1", "--steps", "50"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("FrozenLake-v1: backend tabular, 3 lanes, 50 steps a run, seed 0")
    assert "ok     reset rule" in out


def test_command_line_exits_with_1_where_there_are_faults(capsys, monkeypatch):
    monkeypatch.setattr(checker, "check_id", lambda *_: check(faulty.NaNInObs, steps=50))
    assert main(["FrozenLake-v1", "--steps", "50"]) == 1
    assert "FAULT  numbers, lane 1, step 7: obs is nan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["CartPol-v1"], "did you mean 'CartPole-v1'?"),
        (["CartPole-v1", "--backend", "tabular"], "it has native, sync, async"),
    ],
)
def test_command_line_names_the_nearest_right_word(arguments, words, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "envs.check", "--help"], capture_output=True, text=True, check=True
    )
    assert "exit status: 0 no fault, 1 faults, 2 bad input" in done.stdout


@pytest.mark.parametrize(
    "line", [[], ["CartPole-v1", "--lanes", "0"], ["CartPole-v1", "--lens", "1"]]
)
def test_a_wrong_command_line_is_one_line(line, capsys):
    assert main(line) == 2
    assert capsys.readouterr().err.count("\n") == 1
