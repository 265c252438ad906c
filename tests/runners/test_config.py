"""Configurations: their identity, as JSON, resolved, and the presets."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import AGENTS
from agents.hyper import kinds
from envs.contract import Spec
from runners import presets
from runners.config import (
    RUN_KINDS,
    RunConfig,
    config_id,
    difference,
    from_json,
    hyper_class,
    is_path_safe,
    load_file,
    run_name,
    to_json,
)
from runners.errors import BadInput
from runners.flags import field_docs
from runners.resolve import check_fit, make_config
from tests.runners.toys import REFUSED, ToyConfig, toy, toys  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("toys")

VERSIONS = {"torch": "2.13.0", "gymnasium": "1.4.0", "mujoco": "3.17.0"}


# -- The identity of a configuration ---------------------------------------------------------------

CHANGES = {
    "lr": 0.5, "n_step": 2, "lambda_": 0.5, "double": False, "rule": "max", "hidden": (64,),
    "env": "Acrobot-v1", "env_options": {"x": 1}, "steps": 1001, "until_solved": True,
    "eval_every": 999, "eval_episodes": 7, "final_episodes": 8, "checkpoint_every": 998, "rollout_length": 3, "lanes": 4,
    "block_size": 2, "backend": "sync", "lag": 1, "async_": True, "threads": 2, "fast_matmul": True,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_id(name):
    assert config_id(toy(**{name: CHANGES[name]})) != config_id(toy())


def test_changes_cover_every_setting():
    # a fused source, a GPU, a compiled step, a bound without async and several learners cannot be had for
    # the toy; they go the same way
    assert set(CHANGES) | {
        "source",
        "device",
        "actor_device",
        "compile",
        "max_lag",
        "learners",
    } == {
        *RUN_KINDS,
        *kinds(ToyConfig),
        "env_options",
    } - {"agent"}


def test_the_id_is_stable_and_short():
    assert config_id(toy(), VERSIONS) == config_id(toy(), VERSIONS)
    assert len(config_id(toy())) == 10
    assert int(config_id(toy()), 16) >= 0


@pytest.mark.parametrize("package", ["torch", "gymnasium", "mujoco"])
def test_major_versions_change_the_id_and_minor_ones_do_not(package):
    base = config_id(toy(), VERSIONS)
    minor = VERSIONS[package].replace(".1", ".2", 1)
    assert config_id(toy(), VERSIONS | {package: minor}) == base
    assert config_id(toy(), VERSIONS | {package: "99.0"}) != base
    assert config_id(toy(), VERSIONS | {package: None}) != base


def test_equal_numbers_give_one_id():
    assert config_id(toy(lr=1)) == config_id(toy(lr=1.0))
    assert config_id(toy(lambda_=0.0)) == config_id(toy(lambda_=-0.0))
    direct = dataclasses.replace(toy(), hyper=ToyConfig(lr=1))
    assert config_id(direct) == config_id(toy(lr=1.0))


@pytest.mark.parametrize("env", ["ALE/Pong-v5", "module:Id", "../../etc", "x" * 300, "a b\0c", "ü"])
def test_run_names_are_safe_parts_of_paths(env):
    name = run_name(dataclasses.replace(toy(), env=env), VERSIONS)
    assert is_path_safe(name)
    assert name.startswith("toy-")
    assert name.endswith(config_id(dataclasses.replace(toy(), env=env), VERSIONS))


@pytest.mark.parametrize("name", ["", "..", ".x", "a/b", "a\0", "a\n", "x" * 101, "-a"])
def test_unsafe_names(name):
    assert not is_path_safe(name)


def test_difference_names_the_setting():
    here, there = to_json(toy(lr=0.001)), to_json(toy(lr=0.0005, steps=2000, eval_every=100))
    assert "lr: 0.001 here, 0.0005 there" in difference(here, there)
    assert "steps: 1000 here, 2000 there" in difference(here, there)
    assert difference(here, here) == []
    assert difference({"hyper": {}}, {"hyper": {"lr": 1}}) == ["lr: absent here, 1 there"]


# -- JSON ------------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers() | finite | st.text()
configs = st.builds(
    lambda run, hyper, options, block, blocks: RunConfig(
        agent="toy", hyper=ToyConfig(**hyper), env_options=options, lanes=block * blocks,
        block_size=block, backend="native", source="local", device="cpu", **run,
    ),
    st.fixed_dictionaries(
        {
            **dict.fromkeys(["steps", "eval_every", "eval_episodes"], st.integers(1, 10**20)),
            **dict.fromkeys(["checkpoint_every", "rollout_length"], st.integers(1, 10**6)),
            "until_solved": st.booleans(),
            "lag": st.sampled_from([0, 1]),
            "env": st.text(),
        }
    ),
    st.fixed_dictionaries(
        {
            "lr": st.floats(0, exclude_min=True, allow_infinity=False),
            "n_step": st.integers(14, 10**6),
            "lambda_": st.floats(0, 1),
            "double": st.booleans(),
            "rule": st.sampled_from(["mean", "max"]),
            "hidden": st.lists(st.integers(1, 4096), max_size=4).map(tuple),
        }
    ),
    st.dictionaries(st.text(), scalars, max_size=3),
    st.integers(1, 64),
    st.integers(1, 8),
)  # fmt: skip


@given(configs)
@settings(max_examples=150, deadline=None)
def test_json_round_trip(config):
    back = from_json(json.loads(json.dumps(to_json(config), allow_nan=False)))
    assert back == config
    assert config_id(back, VERSIONS) == config_id(config, VERSIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepz": 1}, "stepz: no such setting; did you mean steps?"),
        ({"lr": 1}, "lr: no such setting; hyperparameters belong under hyper"),
        ({"hyper": {"lrr": 1}}, "lrr: toy has no such hyperparameter; did you mean lr?"),
        ({"hyper": {"lr": math.nan}}, "lr: got nan, takes a number"),
        ({"hyper": {"lr": "3e-4"}}, "lr: got '3e-4', takes a number"),
        ({"hyper": {"lr": 10**400}}, "lr: got inf, takes a number"),
        ({"hyper": {"n_step": 13}}, "n_step: got 13, takes anything else"),
        ({"hyper": {"hidden": [64, -1]}}, "hidden: got -1, takes a number of at least 1"),
        ({"hyper": 3}, "hyper: got 3, takes a table"),
        ({"steps": -1}, "steps: got -1, takes a number of at least 1"),
        ({"steps": 1.5}, "steps: got 1.5, takes a whole number"),
        ({"agent": "ttoy"}, "agent 'ttoy': unknown; did you mean toy?"),
        ({"agent": ["toy"]}, "agent: got ['toy'], takes a text"),
        ({"env": 3}, "env: got 3, takes a text"),
        ({"env_options": {"x": math.inf}}, "env_options.x: got inf, takes a text or a finite"),
        ({"env_options": {"x": [1]}}, "env_options.x: got [1], takes a text or a finite number"),
        ({"device": "auto"}, "device: got 'auto', takes one of cpu, cuda"),
        ({"lag": True}, "lag: got True, takes one of 0, 1"),
        ({"block_size": 3}, "block_size: got 3, takes a divisor of lanes = 8"),
        ({"source": "fused"}, "source: fused is for tabular agents; toy takes local"),
    ],
    ids=str,
)
def test_bad_json_is_one_line(changes, message):
    data = to_json(toy()) | changes
    with pytest.raises(REFUSED) as caught:
        from_json(data)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_json_with_a_setting_missing():
    data = to_json(toy())
    del data["steps"]
    with pytest.raises(BadInput, match="steps: missing"):
        from_json(data)
    with pytest.raises(BadInput, match="a table of settings, not list"):
        from_json([])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "not valid .json"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", "[1]", "a table of settings, not list"),
        ("a.toml", "lr = ", "not valid .toml"),
        ("a.toml", "stepz = 3", "did you mean steps"),
        ("a.json", '{"hyper": {}, "x": 1e999}', "x: no such setting"),
        ("a.json", " " * 1_000_001, "larger than"),
        ("a.json", "\udcff", "not valid .json"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput, match=message) as caught:
        load_file(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).count(str(path)) == 1


@pytest.mark.parametrize("name", ["missing.json", ".", "a\0b"])
def test_files_that_cannot_be_read(tmp_path, name):
    with pytest.raises(BadInput):
        load_file(f"{tmp_path}/{name}")


# -- Resolving -------------------------------------------------------------------------------------


def test_make_config_leaves_nothing_open():
    config = make_config("toy", steps=100_000, lanes=8)
    assert config.block_size == 8
    assert config.backend == "native"
    assert config.source == "local"
    assert config.device in ("cpu", "cuda")
    assert config.eval_every % (8 * config.rollout_length) == 0
    assert config.eval_every >= 5_000
    assert config.checkpoint_every == 2 * config.eval_every


def test_a_tabular_agent_on_an_array_mdp_is_fused():
    config = make_config("toytable", "FrozenLake-v1", steps=1000)
    assert (config.source, config.backend, config.device) == ("fused", "tabular", "cpu")
    assert config.rollout_length == 16_384
    local = make_config("toytable", "FrozenLake-v1", steps=1000, source="local")
    assert local.rollout_length == 1


@pytest.mark.parametrize(
    ("agent", "changes", "message"),
    [
        ("toytable", {"source": "fused", "backend": "sync"}, "source: fused needs backend tabular"),
        ("toytable", {"lag": 1}, "lag: got 1, takes 0"),
        ("toytable", {"source": "local", "rollout_length": 5}, "rollout_length: got 5, takes 1"),
        ("toytable", {"device": "cuda"}, "device: a tabular agent computes on the cpu"),
        ("toy", {"backend": "tabularr"}, "tabularr"),
        ("toy", {"steps": 0}, "steps: there is no preset of toy on FrozenLake-v1"),
        ("toy", {"steps": "auto"}, "steps: got 'auto', takes a whole number"),
        ("toy", {"until_solved": 0}, "until_solved: got 0, takes true or false"),
        ("toy", {"lanes": 0}, "lanes: got 0, takes a number of at least 1"),
        ("toy", {"lanes": -8}, "lanes: got -8, takes a number of at least 1"),
        ("toy", {"eval_every": 0.0}, "eval_every: got 0.0, takes a whole number"),
        ("toy", {"lrr": 1}, "lrr: no such setting of toy; did you mean lr?"),
        ("toy", {"env_options": 3}, "env_options: got 3, takes a table"),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_refused(agent, changes, message):
    with pytest.raises(REFUSED) as caught:
        make_config(agent, "FrozenLake-v1", **{"steps": 1000, "device": "cpu", **changes})
    assert message in str(caught.value)


def test_rows_between_two_sequences_are_refused():
    with pytest.raises(REFUSED) as caught:
        make_config("r2d2", "CartPole-v1", steps=1000, rollout_length=90, sequence_length=80)
    assert "rollout_length: got 90, takes at most sequence_length = 80" in str(caught.value)
    short = {"lanes": 8, "rollout_length": 16, "burn_in": 8, "sequence_length": 16, "batch_size": 4}
    make_config("r2d2", "CartPole-v1", steps=1000, replay_size=320, **short)  # 8 · (8 + 16 + 16)
    with pytest.raises(BadInput, match="replay_size: got 319, takes at least 320"):
        make_config("r2d2", "CartPole-v1", steps=1000, replay_size=319, **short)
    make_config("r2d2", "CartPole-v1", steps=1000, rollout_length=80, sequence_length=80)
    make_config("dqn", "CartPole-v1", rollout_length=80, sequence_length=8)  # it takes no sequences


def test_until_solved_needs_a_threshold():
    make_config("toy", "CartPole-v1", steps=1000, until_solved=True)
    make_config("toytable", "CliffWalking-v1", steps=1000, until_solved=True)
    with pytest.raises(BadInput, match="has no reward threshold"):
        make_config("toy", "Pendulum-v1", steps=1000, until_solved=True)


def test_agents_have_to_fit_the_environment():
    grid, box = Spec((), np.int64, 16, 4), Spec((4,), np.float32, 0, 2)
    continuous = Spec((3,), np.float32, 0, 0, (1,), np.float32)
    table = make_config("toytable", "FrozenLake-v1", steps=1000)
    check_fit(toy(), grid)
    check_fit(toy(), box)
    check_fit(table, grid)
    with pytest.raises(BadInput, match="keeps a table of states"):
        check_fit(table, box)
    with pytest.raises(BadInput, match="takes discrete actions"):
        check_fit(toy(), continuous)


@pytest.mark.parametrize(
    ("agent", "env", "name", "value"),
    [
        ("redq", "Hopper-v5", "target_entropy", 1 / 3),  # 1 for its three numbers
        ("droq", "HalfCheetah-v5", "target_entropy", 1 / 2),  # 3 for six
        ("sac", "HalfCheetah-v5", "target_entropy", 1.0),
        ("tqc", "HalfCheetah-v5", "dropped", 0),
        ("tqc", "Hopper-v5", "dropped", 5),
        ("tqc", "Ant-v5", "dropped", 2),
        ("td3", "Swimmer-v5", "gamma", 0.9999),
        ("crossq", "Hopper-v5", "gamma", 0.99),
    ],
)
def test_presets_of_mujoco_are_the_authors_task_by_task(agent, env, name, value):
    assert getattr(make_config(agent, env).hyper, name) == value


@pytest.mark.parametrize("agent", ["q_learning", "linear_q"])
def test_a_step_size_stays_unless_steps_are_told_over_which_it_falls(agent):
    env = "FrozenLake-v1" if agent == "q_learning" else "CartPole-v1"
    still = make_config(agent, env, steps=1000, lr=0.4, lr_end=0.1, lr_steps=0).hyper
    falls = make_config(agent, env, steps=1000, lr=0.4, lr_end=0.1, lr_steps=100).hyper
    assert still.step_sizes() == (0.4, 0.4, 0)
    assert falls.step_sizes() == (0.4, 0.1, 100)


def test_prioritized_sweeping_learns_by_its_plan_alone():
    with pytest.raises(BadInput, match="planning_steps: got 0, takes"):
        make_config("prioritized_sweeping", "FrozenLake-v1", planning_steps=0)
    make_config("dyna_q", "FrozenLake-v1", planning_steps=0)


def box_of_actions(
    low=-1.0, high=1.0, dtype=np.float32, obs_shape=(3,), num_states=0, action_shape=(1,)
):
    bounds = np.full(action_shape, low, dtype), np.full(action_shape, high, dtype)
    obs_dtype = np.int64 if num_states else np.float32
    return Spec(obs_shape, obs_dtype, num_states, 0, action_shape, dtype, *bounds)


def test_continuous_agents_take_rows_of_bounded_numbers():
    config = make_config("sac", "Pendulum-v1")
    check_fit(config, box_of_actions())
    for spec, message in (
        (Spec((4,), np.float32, 0, 2), "sac takes continuous actions; Pendulum-v1's are discrete"),
        (box_of_actions(-np.inf), "actions within bounds; Pendulum-v1's have none"),
        (box_of_actions(0, 3, np.int32), "actions of floats"),
        (box_of_actions(obs_shape=(96, 96, 3)), "shows observations of shape (96, 96, 3)"),
        (box_of_actions(obs_shape=()), "shows observations of shape ()"),
        (box_of_actions(obs_shape=(0,)), "shows observations of shape (0,)"),
        (box_of_actions(action_shape=()), "have shape ()"),
        (box_of_actions(action_shape=(0,)), "have shape (0,)"),
        (box_of_actions(high=-1.0), "number 0 is within -1 .. -1"),
        (box_of_actions(-1e300, 1e300, np.float64), "number 0 is within -1e+300 .. 1e+300"),
        (box_of_actions(obs_shape=(), num_states=5), "states by number"),
    ):
        with pytest.raises(BadInput, match=re.escape(message)):
            check_fit(config, spec)


# -- Presets ---------------------------------------------------------------------------------------


ONE_OF = {
    "ALE/*": "ALE/Pong-v5", "MinAtar/*": "MinAtar/Breakout", "MiniGrid-*": "MiniGrid-Empty-5x5-v0"
}  # fmt: skip


@pytest.mark.parametrize("pair", presets.PRESETS, ids=" on ".join)
def test_presets_are_settings_that_can_be_run(pair):
    agent, env = pair
    known = {*RUN_KINDS, "env_options", *kinds(hyper_class(agent))} - {"env"}
    assert set(presets.PRESETS[pair]) <= known
    # a preset without a length is one that asks for --steps
    length = {} if "steps" in presets.PRESETS[pair] else {"steps": 10_000}
    config = make_config(agent, ONE_OF.get(env, env), device="cpu", **length)
    assert config.steps > 0
    assert from_json(to_json(config)) == config


def test_defaults_belong_to_agents_and_settings():
    assert set(presets.RUN_DEFAULTS) == {*RUN_KINDS} - {"env"}
    for agent, defaults in presets.AGENT_DEFAULTS.items():
        assert set(defaults) <= {*RUN_KINDS, *kinds(hyper_class(agent))}


@pytest.mark.parametrize("agent", [name for name in AGENTS if not name.startswith("toy")])
def test_every_hyperparameter_has_a_line_of_help(agent):
    docs = field_docs(hyper_class(agent))
    for name in kinds(hyper_class(agent)):
        assert docs.get(name), f"{agent}: {name} has no docstring"
        assert len(docs[name]) < 90
