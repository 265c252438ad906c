"""PQN: returns of a rollout and one gradient step by hand; minibatches."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from agents import pqn
from agents.contract import NonFiniteLoss, Rollout
from agents.hyper import BadValue
from agents.sequences import joined_blocks, unrolled
from envs.contract import Spec, spec_of
from runners.worker import Plan, RolloutWorker
from tests.scripted import ScriptedEnv

SPEC = Spec((2,), np.float32, 0, 2)


def learner(seeds=1, lanes=1, **changes):
    config = pqn.PQNConfig(
        **{"hidden": (), "max_grad_norm": 1e6, "epochs": 1, "gamma": 0.5, "lambda_": 0.5, **changes}
    )
    made = pqn.make_learner(
        config,
        SPEC,
        lanes,
        [np.random.SeedSequence([k, 1]) for k in range(seeds)],
        [np.random.default_rng([k, 2]) for k in range(seeds)],
        torch.device("cpu"),
    )
    for k in range(seeds):  # Q(s) = s
        made.network.head.weight.data[k] = torch.eye(2)
        made.network.head.bias.data[k].zero_()
    return made


def rollout(obs, action, reward, terminated=(), truncated=()):
    """Rows of one lane."""
    ends = np.zeros((2, len(action), 1), bool)
    ends[0, list(terminated)], ends[1, list(truncated)] = True, True
    done = ends.any(axis=0)
    return Rollout(
        obs=np.array(obs, np.float32)[:, None],
        first=np.concatenate([[[True], [False]], done[:-1]]),
        action=np.array(action)[:, None],
        reward=np.array(reward, np.float32)[:, None],
        terminated=ends[0],
        truncated=ends[1],
    )


OBS = [[1, 0], [2, 1], [0, 4], [6, 0], [0, 8]]  # values max: 1, 2, 4, 6, 8


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        # γ = λ = ½. G3 = 4 + ½ 8 = 8; G2 = 3 + ½ (½ 6 + ½ 8) = 6.5; G1 = 2 + ½ (½ 4 + ½ 6.5) = 4.625;
        # G0 = 1 + ½ (½ 2 + ½ 4.625) = 2.65625
        ({}, [2.65625, 4.625, 6.5, 8.0]),
        # Row 1 truncated: G1 = 2 + ½ 4 = 4, G0 = 1 + ½ (½ 2 + ½ 4) = 2.5; row 2 is the ignored one
        ({"truncated": [1]}, [2.5, 4.0, None, 8.0]),
        # Row 1 terminated: G1 = 2, G0 = 1 + ½ (½ 2 + ½ 2) = 2
        ({"terminated": [1]}, [2.0, 2.0, None, 8.0]),
        # Both at once is a termination
        ({"terminated": [1], "truncated": [1]}, [2.0, 2.0, None, 8.0]),
    ],
)
def test_the_returns_of_a_rollout(ends, expected):
    made = learner()
    made.observe(rollout(OBS, [0, 1, 1, 0], [1, 2, 3, 4], **ends))
    weight, found = (made._rows[name][0].tolist() for name in ("weight", "returns"))
    assert weight == [0.0 if g is None else 1.0 for g in expected]
    for g, value in zip(found, expected, strict=True):
        assert value is None or g == pytest.approx(value)


def test_the_gradient_of_one_minibatch_by_hand():
    made = learner(minibatch_size=4)
    made.observe(rollout(OBS, [0, 1, 1, 0], [1, 2, 3, 4], truncated=[1]))
    assert made.updates_due() == 1
    made.update()
    # Q(s, a): 1, 1, (4), 6; errors G - Q: 1.5, 3, ignored, 2. Slopes -error / 4, the mean being over
    # all 4 rows, the ignored one too. Action 0: -(1.5 (1, 0) + 2 (6, 0)) / 4; action 1: -3 (2, 1) / 4
    weight, bias = (view[0] for view in made.optimizer.grad_views[:2])
    torch.testing.assert_close(weight, torch.tensor([[-13.5, -6.0], [0.0, -3.0]]) / 4)
    torch.testing.assert_close(bias[0], torch.tensor([-3.5, -3.0]) / 4)
    # over the three rows that count
    assert made.metrics()["loss"][0] == pytest.approx((1.125 + 4.5 + 2.0) / 3)
    assert made.metrics()["loss"][0] == pytest.approx((1.125 + 4.5 + 2.0) / 3)


def test_a_minibatch_that_counts_for_nothing_has_metrics():
    made = learner(minibatch_size=1)
    # the only row is the ignored one behind an end in the rollout before
    made.observe(
        Rollout(
            obs=np.zeros((2, 1, 2), np.float32), first=np.array([[False], [True]]),
            action=np.zeros((1, 1), np.int64), reward=np.zeros((1, 1), np.float32),
            terminated=np.zeros((1, 1), bool), truncated=np.zeros((1, 1), bool),
        )
    )  # fmt: skip
    before = made.online.flat.clone()
    made.update()
    assert torch.equal(made.online.flat, before)
    assert [value.tolist() for value in made.metrics().values()] == [[0.0]] * 4


def test_no_gradient_goes_through_the_returns():
    made = learner()
    made.observe(rollout(OBS, [0, 1, 1, 0], [1, 2, 3, 4]))
    assert not made._rows["returns"].requires_grad


def test_the_returns_stay_those_of_the_parameters_that_acted():
    made = learner(minibatch_size=1, epochs=2)
    made.observe(rollout(OBS, [0, 1, 1, 0], [1, 2, 3, 4]))
    before = made._rows["returns"].clone()
    for _ in range(made.updates_due()):
        made.update()
    assert torch.equal(made._rows["returns"], before)


def test_every_row_is_fitted_once_an_epoch():
    made = learner(seeds=2, lanes=4, minibatch_size=5, epochs=2)
    minibatches = made._minibatches(5)
    assert len(minibatches) == 8
    for k in range(2):
        for epoch in (minibatches[:4], minibatches[4:]):
            rows = np.concatenate([rows[k] for rows in epoch])
            assert sorted(rows) == list(range(20))
    assert (minibatches[0][0] != minibatches[0][1]).any()  # each seed has its own order


def test_updates_are_due_after_a_rollout_only():
    made = learner(minibatch_size=2, epochs=3)
    assert made.updates_due() == 0
    made.observe(rollout(OBS, [0, 1, 1, 0], [1, 2, 3, 4]))
    counts = []
    while made.updates_due():
        counts.append(made.updates_due())
        made.update()
    assert counts == [6, 5, 4, 3, 2, 1]


def test_the_learning_rate_falls_with_the_clock():
    # From 0.1 to 0.02 over 8 lane steps; after a rollout of 4 it is 0.06. Adam's first step is lr.
    made = learner(minibatch_size=4, lr=0.1, lr_end=0.02, lr_steps=8)
    made.observe(rollout(OBS, [0, 1, 1, 0], [1, 2, 3, 4], truncated=[1]))
    made.update()
    moved = (made.network.head.bias[0, 0]).tolist()
    assert moved == pytest.approx([0.06, 0.06], abs=1e-6)


def test_epsilon_falls_with_the_clock():
    made = learner(epsilon_start=1.0, epsilon_end=0.2, epsilon_steps=8)
    assert made.params().scalars["epsilon"] == 1.0
    made.observe(rollout(OBS, [0, 1, 1, 0], [1, 2, 3, 4]))
    assert made.params().scalars["epsilon"] == pytest.approx(0.6)


def test_rewards_are_clipped_for_the_learner():
    made = learner(reward_clip=1.0, lambda_=0.0)
    made.observe(rollout(OBS, [0, 1, 1, 0], [1, 2, 3, -4]))
    # min(r, 1) + ½ max Q(s')
    assert made._rows["returns"][0].tolist() == [2.0, 3.0, 4.0, 3.0]


def test_a_loss_that_is_not_finite_is_reported():
    made = learner(minibatch_size=4)
    made.observe(rollout(OBS, [0, 1, 1, 0], [1, 2, np.inf, 4]))
    with pytest.raises(NonFiniteLoss, match="update 1"):
        made.update()


# With a memory: lanes as they went, from what the actor remembered.


def recurrent(lanes=6, rows=5, blocks=2, minibatch=10):
    """A learner that has observed a rollout of a recurrent actor, the rollout, and the actor's values."""
    spec = spec_of(ScriptedEnv(1, 0, 1, 0.0))
    config = pqn.PQNConfig(memory="lstm", memory_size=4, hidden=(5,), minibatch_size=minibatch)
    seeds = [0, 1]
    made = pqn.make_learner(
        config, spec, lanes, [np.random.SeedSequence([k]) for k in seeds],
        [np.random.default_rng(k) for k in seeds], torch.device("cpu"),
    )  # fmt: skip
    worker = RolloutWorker(
        "scripted", spec, seeds, blocks,
        lambda seed, block: ScriptedEnv(lanes // blocks, seed + 7 * block, 4, 0.1, 1_000 * block),
        functools.partial(pqn.make_actor, config, spec), max_rows=8, reward_dtype=np.float32,
    )  # fmt: skip
    worker.load_params(made.params())
    worker.collect(Plan(7, None), 0)  # so that something is remembered before row 0
    seen = []
    for actor in worker.actors.values():
        recall = actor._recall

        def spy(*args, recall=recall):
            found = recall(*args)
            seen.append(found[0].copy())
            return found

        actor._recall = spy
    rollout = worker.collect(Plan(rows, None), 0)
    made.observe(rollout)
    values = np.stack(seen).reshape(rows, blocks, 2, lanes // blocks, -1)
    return made, rollout, values.transpose(2, 0, 1, 3, 4).reshape(2, rows, lanes, -1)


def test_a_minibatch_is_whole_lanes_as_the_actor_saw_them():
    made, rollout, values = recurrent()
    lanes, rows = 6, 5
    assert made.updates_due() == 4 * 3  # epochs of 6 lanes, two a minibatch of ten rows
    numbers = made._pending[0]
    batch = made._gather(numbers)
    memory = joined_blocks(rollout.actor_state)
    assert np.abs(memory["h"]).max() > 0
    out = unrolled(made.network, batch, 0, {})(batch.obs).detach().numpy()
    for k in range(2):
        for b in range(2):
            lane = numbers[k, b]
            assert numbers[k].reshape(rows, 2)[:, b].tolist() == [
                t * lanes + lane for t in range(rows)
            ]
            column = k * lanes + lane
            obs = rollout.obs[:-1, column]
            assert (batch.extras["sequence"][k, :, b].numpy() == obs).all()
            assert (
                batch.extras["sequence_first"][k, :, b].numpy() == rollout.first[:-1, column]
            ).all()
            for name, value in memory.items():
                assert (batch.extras["state." + name][k, b].numpy() == value[k, lane]).all()
            np.testing.assert_allclose(
                out[k].reshape(rows, 2, -1)[:, b], values[k, :, lane], atol=1e-5
            )
            taken = batch.action[k].view(rows, 2)[:, b].numpy()
            assert (taken == rollout.action[:, column]).all()


def test_every_lane_is_fitted_once_an_epoch():
    made, _, _ = recurrent()
    for epoch in range(4):
        part = np.concatenate(made._pending[3 * epoch : 3 * epoch + 3], 1)
        assert (np.sort(part, 1) == np.arange(30)).all()


def test_a_rollout_longer_than_a_minibatch_is_fitted_lane_by_lane():
    made, _, _ = recurrent(minibatch=3)
    assert [part.shape for part in made._pending] == [(2, 5)] * 24


def test_a_memory_has_no_stack():
    with pytest.raises(BadValue, match="frame_stack: got 4, takes 1 with a memory"):
        pqn.PQNConfig(memory="lstm", frame_stack=4)
