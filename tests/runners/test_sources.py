"""Sources of equal lag give the same bits; the fused one is the loop in a kernel."""

from __future__ import annotations

import numpy as np
import pytest

import envs
from agents import AGENTS
from agents.tabular import QLearningConfig, TabularLearner
from envs.contract import spec_of
from envs.tabular import TabularVectorEnv
from runners import group as groups
from runners import seeding
from runners.resolve import make_config
from runners.seeding import Stream
from runners.sources import Plan
from runners.sources.fused import FusedSource
from runners.state_tree import digest_state
from tests import reference
from tests.agents.test_groups import Training, config_of

TABULAR = [name for name, entry in AGENTS.items() if entry.fused]
COLUMNS = ("obs", "first", "action", "reward", "terminated", "truncated")


def build(name, env, lanes, source, **more):
    if name == "monte_carlo":
        more["longest"] = 200  # without a limit no episode of CliffWalking ends by itself so soon
    config = make_config(
        name, env, steps=10**6, lanes=lanes, source=source, epsilon_steps=1_500,
        lr_end=0.05, lr_steps=2_000, **more,
    )  # fmt: skip
    setting = groups.make_setting(config)
    learner = groups.make_learner(setting, [0, 7])
    made = groups.make_source(setting, [0, 7], learner)
    made.publish(learner.params())
    return made, learner


def rows_of(source, learner, plans):
    """All rows that come, joined: row T of one rollout is row 0 of the next."""
    parts = []
    for rows in plans:
        rollout = source.next(Plan(rows, None))
        learner.observe(rollout)
        source.publish(learner.params())
        parts.append({name: getattr(rollout, name).copy() for name in COLUMNS})
    last = {name: parts[-1][name][-1:] for name in ("obs", "first")}
    joined = {}
    for name in COLUMNS:
        pieces = [part[name][:-1] if name in last else part[name] for part in parts]
        joined[name] = np.concatenate([*pieces, *([last[name]] if name in last else [])])
    return joined


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("env", ["FrozenLake-v1", "Taxi-v4", "CliffWalking-v1"])
@pytest.mark.parametrize("name", TABULAR)
def test_fused_equals_local_bit_for_bit(name, env, lanes):
    rows = 700  # three episodes at least, where the limit is 200
    fused, learner = build(name, env, lanes, "fused", rollout_length=256)
    local, twin = build(name, env, lanes, "local")
    one = rows_of(fused, learner, [256, 1, 187, 256])
    two = rows_of(local, twin, [1] * rows)
    for column in COLUMNS:
        assert np.array_equal(one[column], two[column]), column
    assert np.array_equal(learner.q, twin.q)
    assert learner.q.any()
    for kept, array in learner.memory.items():
        assert np.array_equal(array, twin.memory[kept]), kept
    assert learner.tally.lane_steps == twin.tally.lane_steps
    assert learner.updates == twin.updates
    for ours, theirs in zip(learner.generators, twin.generators, strict=True):
        assert ours.bit_generator.state == theirs.bit_generator.state


@pytest.mark.parametrize("explore", ["boltzmann", "ucb"])
@pytest.mark.parametrize("name", ["expected_sarsa", "double_q", "tree_backup", "q_sigma"])
def test_fused_equals_local_however_it_explores(name, explore):
    more = {"exploration": explore, "temperature_steps": 1_500, "ucb_c": 0.3}
    fused, learner = build(name, "Taxi-v4", 2, "fused", rollout_length=256, **more)
    local, twin = build(name, "Taxi-v4", 2, "local", **more)
    one, two = rows_of(fused, learner, [256, 44]), rows_of(local, twin, [1] * 300)
    for column in COLUMNS:
        assert np.array_equal(one[column], two[column]), column
    assert np.array_equal(learner.q, twin.q)
    assert np.array_equal(learner.visits, twin.visits)
    # 300 rows of two lanes; the first episode ends at its limit, row 200, and row 201 is ignored
    assert learner.visits.sum(axis=(1, 2)).tolist() == (
        [598.0] * 2 if explore == "ucb" else [0.0] * 2
    )


@pytest.mark.parametrize("name", ["sarsa", "double_q"])
def test_the_bits_do_not_depend_on_how_rows_are_cut(name):
    results = []
    for plans in ([600], [1] * 600, [250, 100, 250]):
        source, learner = build(name, "FrozenLake-v1", 2, "fused", rollout_length=600)
        rows_of(source, learner, plans)
        results.append(learner.q.copy())
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_the_fused_rows_keep_the_reset_rule():
    source, learner = build("q_learning", "FrozenLake-v1", 3, "fused", rollout_length=500)
    found = rows_of(source, learner, [500, 500])
    done = found["terminated"] | found["truncated"]
    assert done.sum() > 50
    assert found["first"][0].all()
    assert not found["first"][1].any()
    assert np.array_equal(found["first"][2:], done[:-1])
    ignored = found["first"][1:]
    assert not found["reward"][ignored].any()
    assert not done[ignored].any()


def test_the_fused_source_takes_arrays_only():
    env = envs.make("CartPole-v1", 1, 0)
    with pytest.raises(TypeError, match="steps arrays"):
        FusedSource([0], [env], _learner(TabularVectorEnv(_mdp(), 1, 0)), 8, 1)
    env.close()


def _mdp():
    return envs.make("FrozenLake-v1", 1, 0).mdp


def _learner(env, epsilon=0.3, lr=0.1):
    config = QLearningConfig(lr=lr, lr_end=lr, epsilon_start=epsilon, epsilon_end=epsilon)
    return TabularLearner(config, spec_of(env), 1, [np.random.default_rng(0)])


# The speed bound of the bench computes what the fused source computes.


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "Taxi-v4", "CliffWalking-v1"])
def test_the_bare_kernel_ends_with_the_same_table(env_id):
    steps, seed, sim_seed, epsilon, lr = 20_000, 5, 11, 0.3, 0.1
    env = envs.make(env_id, 1, sim_seed)
    learner = _learner(env, epsilon, lr)
    source = FusedSource([seed], [env], learner, steps, 1)
    source.next(Plan(steps, None))

    twin = envs.make(env_id, 1, sim_seed)
    tables, shape = twin.tables, (twin.mdp.num_states, twin.mdp.num_actions)

    def run(loop, count):
        q, fresh = np.zeros(shape), envs.make(env_id, 1, sim_seed)
        fresh.reset()
        fresh.np_random.bit_generator.state = _before_reset(env_id, sim_seed)
        actor = seeding.generator(seed, Stream.ACTOR, 0)
        loop(count, tables, fresh.np_random, actor, q, lr, learner.config.gamma, epsilon)
        return q

    assert np.array_equal(run(reference.fused_q_learning, steps), learner.q[0, 0])
    slow, fast = (run(loop, 3_000) for loop in (reference.q_learning, reference.fused_q_learning))
    assert np.array_equal(slow, fast)
    assert fast.any()


def _before_reset(env_id, seed):
    """The simulator's generator as the first reset finds it: the loops draw that number themselves."""
    from gymnasium.utils import seeding as gymnasium_seeding

    return gymnasium_seeding.np_random(seed)[0].bit_generator.state


# Lag and blocks.


def acted_with(lag, rollouts=4):
    training = Training(config_of("dqn", lag=lag, learning_starts=0), [0])
    published, acted = [training.learner.params()], []
    for _ in range(rollouts):
        rollout = training.source.next(Plan(8, None))
        acted.append((rollout.version, training.source.worker.actors[0].parameters.flat.clone()))
        training.learner.observe(rollout)
        for _ in range(training.learner.updates_due()):
            training.learner.update()
        published.append(training.learner.params())
        training.source.publish(published[-1])
    return published, acted


@pytest.mark.parametrize("lag", [0, 1])
def test_a_source_acts_with_the_parameters_that_its_lag_says(lag):
    published, acted = acted_with(lag)
    assert [version for version, _ in acted] == [max(0, i - lag) for i in range(4)]
    for version, flat in acted:
        assert flat.equal(published[version].tensors["flat"])
    assert not published[0].tensors["flat"].equal(published[-1].tensors["flat"])


def test_the_same_version_published_again_changes_nothing():
    training = Training(config_of("dqn", lag=1), [0]).go(3)
    before = digest_state(training.source.state_dict())
    training.source.publish(training.learner.params())
    assert digest_state(training.source.state_dict()) == before


@pytest.mark.parametrize("name", ["dqn", "sarsa"])
def test_a_block_does_not_depend_on_the_blocks_beside_it(name):
    """Blocks 0 and 1 of a seed with two blocks; block 0 acts as the whole of a seed with one."""
    env = {"env": "CartPole-v1"} if name == "dqn" else {"source": "local"}
    two = Training(config_of(name, lanes=4, block_size=2, **env), [3])
    one = Training(config_of(name, lanes=2, block_size=2, **env), [3])
    a = two.source.next(Plan(two.rows, None))
    b = one.source.next(Plan(one.rows, None))
    for column in COLUMNS:
        assert np.array_equal(getattr(a, column)[:, :2], getattr(b, column)), column
    if name == "dqn":
        assert not np.array_equal(a.obs[:, :2], a.obs[:, 2:])


def test_the_size_of_blocks_is_part_of_the_bits():
    whole = Training(config_of("dqn", block_size=4), [3]).go(3)
    halves = Training(config_of("dqn", block_size=2), [3]).go(3)
    assert not np.array_equal(whole.obs, halves.obs)
