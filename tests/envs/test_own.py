"""Environments from a file or module of one's own; each bad one is one line that says where."""

import os
import sys
from contextlib import closing

import gymnasium
import numpy as np
import pytest

import envs
from envs import probes
from envs.check import check_id, main
from envs.contract import Resumable, UnsupportedEnv, spec_of
from envs.trace import draws, record

SOURCE = '''
"""A noisy walk on a line, and other things."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode


@dataclass
class Noise:  # a dataclass looks its module up in sys.modules
    scale: float = 0.1


class Walk(gymnasium.Env):
    observation_space = spaces.Box(-10, 10, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, far=3.0):
        assert far < 100, "too far"
        self.far, self.noise = far, Noise()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1)
        return np.array([self.x], np.float32), {}

    def step(self, action):
        self.x += (2 * int(action) - 1) * 0.5 + self.np_random.normal() * self.noise.scale
        return np.array([self.x], np.float32), 1.0, bool(abs(self.x) > self.far), False, {}


class Poles(CartPoleVectorEnv):
    pass


class Saved(CartPoleVectorEnv):
    def get_state(self):
        arrays = {"state": self.state, "steps": self.steps, "done": self.prev_done}
        rng = self.np_random.bit_generator.state
        return {**{key: value.copy() for key, value in arrays.items()}, "rng": rng}

    def set_state(self, state):
        self.low, self.high = -0.05, 0.05
        self.state, self.steps = state["state"].copy(), state["steps"].copy()
        self.prev_done = state["done"].copy()
        self.np_random.bit_generator.state = state["rng"]


class SameStep(CartPoleVectorEnv):
    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}


class Other:
    pass


number = 3
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder, in which one is, with walk.py; what it registers is forgotten."""
    (tmp_path / "walk.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    known, modules = set(gymnasium.registry), set(sys.modules)
    yield tmp_path
    for name in set(gymnasium.registry) - known:
        del gymnasium.registry[name]
    for name in set(sys.modules) - modules:
        if name.startswith("own_environment"):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["Walk", "Poles"])
def test_the_contract_is_kept(folder, name):
    found = check_id(f"walk.py:{name}", steps=200)
    assert [str(finding) for finding in found if finding.fault] == []


def test_a_vector_class_may_have_a_state_of_its_own(folder):
    found = {finding.probe for finding in check_id("walk.py:Poles", steps=200)}
    assert "state" in found  # it has none
    found = {finding.probe for finding in check_id("walk.py:Saved", steps=200)}
    assert "state" not in found
    assert isinstance(envs.make("walk.py:Saved", 2, 0), Resumable)


def test_a_class_in_a_file_steps_as_it_does_by_hand(folder):
    env = envs.make("walk.py:Walk", 1, 0, far=2.0)
    (seed,) = envs.simulator.lane_seeds(0, 1)
    inner = vars(sys.modules[type(env.unwrapped.envs[0].unwrapped).__module__])["Walk"](far=2.0)
    obs, _ = env.reset()
    assert (obs[0] == inner.reset(seed=seed)[0]).all()
    for _ in range(30):
        obs, reward, terminated, truncated, _ = env.step(np.array([1]))
        expected = inner.step(1)
        assert (obs[0] == expected[0]).all()
        assert (reward[0], terminated[0], truncated[0]) == expected[1:4]
        if terminated[0]:
            break
    assert abs(obs[0, 0]) > 2


@pytest.mark.parametrize("relative", [True, False])
def test_the_path_may_have_folders_and_be_absolute(folder, relative):
    deep = folder / "a b" / "c"
    deep.mkdir(parents=True)
    (folder / "walk.py").rename(deep / "walk it.py")
    path = "a b/c/walk it.py" if relative else str(deep / "walk it.py")
    assert envs.registered(f"{path}:Walk") == f"{path}:Walk"
    assert spec_of(envs.make(f"{path}:Walk", 2, 0)).num_actions == 2


def test_a_process_a_lane_loads_the_file_itself(folder):
    one, two = (
        envs.make("walk.py:Walk", 2, 0, backend, max_episode_steps=6, far=2.5)
        for backend in ("sync", "async")
    )
    uniform = draws(one, 40, 0)
    with closing(two):
        trace = record(one, uniform)
        assert probes.difference(trace, record(two, uniform)) is None
    assert trace.terminated.any()
    assert trace.truncated.any()


def test_backends(folder):
    assert envs.backends("walk.py:Walk") == ["sync", "async"]
    assert envs.backends("walk.py:Poles") == ["native"]


def test_limits(folder):
    assert envs.time_limit("walk.py:Walk") == 0
    assert envs.time_limit("walk.py:Walk", max_episode_steps=4) == 4
    env = envs.make("walk.py:Walk", 1, 0, far=50.0, max_episode_steps=4)
    env.reset()
    assert [bool(env.step(np.array([1]))[3][0]) for _ in range(6)] == [0, 0, 0, 1, 0, 0]
    assert envs.time_limit("walk.py:Poles", max_episode_steps=3) == 3
    poles = envs.make("walk.py:Poles", 1, 0, max_episode_steps=3)
    poles.reset()
    assert [bool(poles.step(np.array([k % 2]))[3][0]) for k in range(4)] == [0, 0, 1, 0]
    assert envs.reward_threshold("walk.py:Walk") is None


def test_two_files_of_one_name_are_two_environments(folder):
    (folder / "b").mkdir()
    (folder / "b" / "walk.py").write_text(SOURCE.replace("1.0, bool", "2.0, bool"))
    rewards = []
    for path in ("walk.py", "b/walk.py"):
        env = envs.make(f"{path}:Walk", 1, 0)
        env.reset()
        rewards.append(env.step(np.array([0]))[1][0])
    assert rewards == [1, 2]


def test_a_file_is_run_once(folder):
    (folder / "once.py").write_text(SOURCE + "\nopen('runs', 'a').write('x')\n")
    envs.make("once.py:Walk", 2, 0)
    envs.make("once.py:Poles", 2, 0)
    assert (folder / "runs").read_text() == "x"


def test_the_checker_takes_a_file(folder, capsys):
    assert main(["walk.py:Walk", "--steps", "30"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("walk.py:Walk: backend sync, 3 lanes, 30 steps a run, seed 0")
    assert "ok     scalar twin" in out
    assert main(["walk.py:Wlk"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


RAISES = "x = 1\n\ndef f():\n    raise RuntimeError('no\\n  luck')\n\nf()\n"


@pytest.mark.parametrize(
    ("source", "env_id", "message"),
    [
        (None, "wlk.py:Walk", "wlk.py:Walk: there is no file 'wlk.py'; did you mean 'walk.py'?"),
        (None, "no/walk.py:Walk", "no/walk.py:Walk: there is no file 'no/walk.py'"),
        (None, "walk.py", "walk.py: write which of its classes, as walk.py:MyEnv"),
        (
            None,
            "walk.py:Wlk",
            "walk.py:Wlk: the file has no class 'Wlk'; did you mean 'Walk'?",
        ),
        (
            None,
            "walk.py:Zzzzz",
            "walk.py:Zzzzz: the file has no class 'Zzzzz'; its environments are Walk, Poles, Saved, SameStep",
        ),
        (
            None,
            "walk.py:Other",
            "walk.py:Other: 'Other' is neither a gymnasium.Env nor a gymnasium.vector.VectorEnv; "
            "its environments are Walk, Poles, Saved, SameStep",
        ),
        (
            None,
            "walk.py:number",
            "walk.py:number: 'number' is neither a gymnasium.Env nor a gymnasium.vector.VectorEnv; "
            "its environments are Walk, Poles, Saved, SameStep",
        ),
        ("x = 1", "bad.py:A", "bad.py:A: the file has no class 'A'; its environments are none"),
        (
            "import sys\nx = (1,\n",
            "bad.py:A",
            "bad.py:A: the file raises SyntaxError: '(' was never closed (bad.py, line 2)",
        ),
        (
            RAISES,
            "bad.py:A",
            "bad.py:A: the file raises RuntimeError: no luck (bad.py, line 4)",
        ),
        (
            "\nimport no_such_package",
            "bad.py:A",
            "bad.py:A: the file raises ModuleNotFoundError: No module named 'no_such_package' "
            "(bad.py, line 2)",
        ),
        ("raise SystemExit", "bad.py:A", "bad.py:A: the file raises SystemExit (bad.py, line 1)"),
    ],
)
def test_a_bad_file_is_one_line(folder, source, env_id, message):
    if source is not None:
        (folder / "bad.py").write_text(source)
    for _ in range(2):  # a failed import leaves nothing behind
        with pytest.raises(UnsupportedEnv) as error:
            envs.make(env_id, 1, 0)
        assert str(error.value) == message


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("walk.py:Walk", {"fra": 1.0}, "walk.py:Walk has no option 'fra'; did you mean 'far'?"),
        (
            "walk.py:Walk",
            {"far": 200.0},
            "walk.py:Walk cannot be made with {'far': 200.0}: AssertionError('too far')",
        ),
        ("walk.py:Walk", {"backend": "native"}, "walk.py:Walk has no backend 'native'; it has sync, async"),
        (
            "walk.py:SameStep",
            {},
            "the vector class of walk.py:SameStep resets in mode AutoresetMode.SAME_STEP; it has to be "
            "AutoresetMode.NEXT_STEP",
        ),
    ],
)  # fmt: skip
def test_what_a_class_cannot_is_one_line(folder, env_id, options, message):
    with pytest.raises(UnsupportedEnv) as error:
        envs.make(env_id, 1, 0, **options)
    assert str(error.value) == message


def test_a_vector_class_has_no_single_lane_to_draw(folder):
    with pytest.raises(UnsupportedEnv, match="nothing simulates a single lane"):
        envs.scalar("walk.py:Poles")


# -- Modules -------------------------------------------------------------------------------------


def test_a_module_registers_its_ids(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    tail = "\ngymnasium.register('Own-v0', Walk, max_episode_steps=9)\n"
    (folder / "own_module.py").write_text(SOURCE + tail)
    assert envs.registered("own_module:Own-v0") == "Own-v0"
    assert envs.time_limit("own_module:Own-v0") == 9
    assert envs.make("own_module:Own-v0", 2, 0).reset()[0].shape == (2, 1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            RAISES,
            "bad_module:A-v0: 'bad_module' cannot be imported: RuntimeError: no luck "
            "(bad_module.py, line 4)",
        ),
        (
            "x = (1,\n",
            "bad_module:A-v0: 'bad_module' cannot be imported: SyntaxError: '(' was never closed "
            "(bad_module.py, line 1)",
        ),
        (
            None,
            "bad_module:A-v0: 'bad_module' cannot be imported: ModuleNotFoundError: No module named "
            "'bad_module'",
        ),
    ],
)
def test_a_bad_module_is_one_line(folder, monkeypatch, source, message):
    monkeypatch.syspath_prepend(str(folder))
    if source is not None:
        (folder / "bad_module.py").write_text(source)
    with pytest.raises(UnsupportedEnv) as error:
        envs.make("bad_module:A-v0", 1, 0)
    assert str(error.value) == message
    assert os.getcwd() == str(folder)
