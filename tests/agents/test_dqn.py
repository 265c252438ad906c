"""DQN: one gradient step by hand, the target network, and when updates are due."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents import dqn
from agents.contract import Batch, NonFiniteLoss, Rollout
from envs.contract import Spec

SPEC = Spec((2,), np.float32, 0, 2)
NO_CLIP = 1e6


def learner(seeds=1, lanes=2, **changes):
    config = dqn.DQNConfig(
        **{"hidden": (), "max_grad_norm": NO_CLIP, "batch_size": 4, "double": True, **changes}
    )
    return dqn.make_learner(
        config,
        SPEC,
        lanes,
        [np.random.SeedSequence([k, 1]) for k in range(seeds)],
        [np.random.default_rng([k, 2]) for k in range(seeds)],
        torch.device("cpu"),
    )


def known(**changes):
    """Q(s) = s for the online network; the target's is (3 s₀, s₀)."""
    made = learner(**changes)
    for network, weight in (
        (made.online.network, [[1.0, 0.0], [0.0, 1.0]]),
        (made.target.network, [[3.0, 1.0], [0.0, 0.0]]),
    ):
        network.head.weight.data[0] = torch.tensor(weight)
        network.head.bias.data.zero_()
    return made


def batch(weight=None):
    return Batch(
        obs=torch.tensor([[[1.0, 2.0], [0.0, 3.0]]]),
        action=torch.tensor([[0, 1]]),
        reward=torch.tensor([[1.0, 0.0]]),
        discount=torch.tensor([[0.5, 0.0]]),
        next_obs=torch.tensor([[[1.0, 3.0], [8.0, 9.0]]]),
        weight=None if weight is None else torch.tensor([weight]),
    )


def rollout(rows, columns, rng, ends=0.0):
    """Any rows at all: for counting and for running."""
    terminated = rng.random((rows, columns)) < ends
    return Rollout(
        obs=rng.normal(size=(rows + 1, columns, 2)).astype(np.float32),
        first=np.zeros((rows + 1, columns), bool),
        action=rng.integers(2, size=(rows, columns)),
        reward=rng.normal(size=(rows, columns)).astype(np.float32),
        terminated=terminated,
        truncated=np.zeros_like(terminated),
    )


# Sample 0: Q(s, 0) = 1. The online network chooses action 1 in (1, 3), the target values it 1:
# goal 1 + ½ * 1 = 1.5, error 0.5, slope -0.5. (Plain: 1 + ½ * 3 = 2.5, error 1.5, slope -1.)
# Sample 1: Q(s, 1) = 3, terminated: goal 0, error -3, slope +1 since Huber's is cut at 1.
# The mean over 2 samples halves both; dW = s slope, db = slope.
DOUBLE = ([[-0.25, 0.0], [-0.5, 1.5]], [-0.25, 0.5])
PLAIN = ([[-0.5, 0.0], [-1.0, 1.5]], [-0.5, 0.5])


@pytest.mark.parametrize(("double", "expected"), [(True, DOUBLE), (False, PLAIN)])
def test_the_gradient_by_hand(double, expected):
    made = known(double=double)
    made.step(batch(), {})
    weight, bias = (made.optimizer.grad_views[i][0] for i in range(2))
    torch.testing.assert_close(weight, torch.tensor(expected[0]))
    torch.testing.assert_close(bias[0], torch.tensor(expected[1]))


def test_one_step_of_adam_by_hand():
    made = known(lr=0.01, adam_eps=1e-8)
    loss = made.step(batch(), {})
    # ½ 0.5² = 0.125 and 3 - ½ = 2.5, their mean
    assert loss.item() == pytest.approx((0.125 + 2.5) / 2)
    # Adam's first step is lr against the sign of the gradient; where that is 0 nothing moves
    head = made.online.network.head
    torch.testing.assert_close(head.weight[0], torch.tensor([[1.01, 0.0], [0.01, 0.99]]))
    torch.testing.assert_close(head.bias[0, 0], torch.tensor([0.01, -0.01]))


def test_metrics_by_hand():
    made = known(reward_scale=0.5)
    made.step(batch(), {})
    found = {name: value.item() for name, value in made.metrics().items()}
    # in raw reward units: errors 0.5 and 3, values 1 and 3, goals 1.5 and 0, all divided by 0.5
    assert found["td_error"] == pytest.approx(3.5)
    assert found["q_mean"] == pytest.approx(4.0)
    assert found["target_mean"] == pytest.approx(1.5)
    assert found["loss"] == pytest.approx(1.3125)


def test_importance_weights_multiply_the_loss():
    made = known()
    made.step(batch(weight=[2.0, 0.0]), {})
    # twice sample 0 and nothing of sample 1: 2 * -0.25 for s = (1, 2)
    torch.testing.assert_close(
        made.optimizer.grad_views[0][0], torch.tensor([[-0.5, 0.0], [-1.0, 0.0]])
    )


@pytest.mark.parametrize("double", [True, False])
def test_gradient_flows_through_the_prediction_only(double):
    made = known(double=double)
    made.target.network.requires_grad_(True)
    seen = []

    def online(obs, noise):
        seen.append(made.online.network(obs))
        return seen[-1]

    made.hyper.loss(online, made.target.network, batch(), {}).loss.sum().backward()
    assert all(leaf.grad is None for leaf in made.target.network.parameters())
    assert [q.requires_grad for q in seen] == ([True, False] if double else [True])


def test_a_step_leaves_the_target_network_alone():
    made = known()
    before = made.target.flat.clone()
    made.step(batch(), {})
    assert torch.equal(made.target.flat, before)


def filled(**changes):
    made = learner(**{"learning_starts": 0, **changes})
    made.observe(rollout(20, 2, np.random.default_rng(0), ends=0.1))
    return made


def test_the_target_is_copied_exactly_at_its_period():
    # ½ update per lane step and a period of 8 lane steps: after every fourth update
    made = filled(replay_ratio=0.5, target_period=8)
    equal = []
    for _ in range(12):
        made.update()
        equal.append(torch.equal(made.target.flat, made.online.flat))
    assert [u for u, same in enumerate(equal, 1) if same] == [4, 8, 12]


def test_a_period_that_no_update_hits_is_taken_at_the_first_after_it():
    # 0.3 updates a lane step and a period of 5: due at 1.5, 3, 4.5, 6, 7.5 updates
    made = filled(replay_ratio=0.3, target_period=5)
    equal = []
    for _ in range(8):
        made.update()
        equal.append(torch.equal(made.target.flat, made.online.flat))
    assert [u for u, same in enumerate(equal, 1) if same] == [2, 3, 5, 6, 8]


def test_the_period_goes_by_the_clock_of_the_run():
    # Update u belongs to lane step 10 + 2 u; multiples of 8 are passed at 16, 24, 32: u = 3, 7, 11
    made = filled(replay_ratio=0.5, target_period=8, learning_starts=10)
    equal = []
    for _ in range(12):
        made.update()
        equal.append(torch.equal(made.target.flat, made.online.flat))
    assert [u for u, same in enumerate(equal, 1) if same] == [3, 7, 11]


def test_a_soft_target_moves_by_tau():
    made = filled(replay_ratio=1.0, target_period=1, target_tau=0.25)
    before = made.target.flat.clone()
    made.update()
    torch.testing.assert_close(made.target.flat, 0.75 * before + 0.25 * made.online.flat)


@pytest.mark.parametrize("lengths", [[1] * 40, [16, 16, 8], [40], [3, 5, 7, 11, 14]])
def test_as_many_updates_are_due_for_any_rollout_length(lengths):
    # 40 rows of 2 lanes are 80 lane steps; from step 10 on 0.3 a step: floor(70 * 0.3) = 21
    made, rng, done = learner(learning_starts=10, replay_ratio=0.3), np.random.default_rng(0), []
    for rows in lengths:
        made.observe(rollout(rows, 2, rng))
        due = made.updates_due()
        for _ in range(due):
            made.update()
        done.append((made.lane_steps, made.updates))
    assert done[-1] == (80, 21)
    for lane_steps, updates in done:
        assert updates == max(0, int((lane_steps - 10) * 0.3 + 1e-9))


def test_nothing_is_due_before_learning_starts():
    made = learner(learning_starts=30, replay_ratio=1.0)
    made.observe(rollout(15, 2, np.random.default_rng(0)))
    assert made.updates_due() == 0
    made.observe(rollout(1, 2, np.random.default_rng(0)))
    assert made.updates_due() == 2


def test_epsilon_falls_with_the_clock():
    made = learner(epsilon_start=1.0, epsilon_end=0.0, epsilon_steps=80)
    seen = []
    for _ in range(5):
        seen.append(made.params().scalars["epsilon"])
        made.observe(rollout(10, 2, np.random.default_rng(0)))
    assert seen == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_published_parameters_are_a_copy():
    made = filled()
    params = made.params()
    before = params.tensors["flat"].clone()
    made.update()
    assert torch.equal(params.tensors["flat"], before)
    assert not torch.equal(made.online.flat, before)


def test_a_loss_that_is_not_finite_is_reported_with_its_batch():
    made = learner(learning_starts=0)
    bad = rollout(20, 2, np.random.default_rng(0))
    bad.reward[:] = np.inf
    made.observe(bad)
    with pytest.raises(NonFiniteLoss) as caught:
        made.update()
    assert caught.value.update == 1
    assert torch.isinf(caught.value.batch.reward).all()


def test_the_replay_clips_what_the_loss_sees():
    made = learner(learning_starts=0, reward_clip=1.0, reward_scale=2.0)
    rows = rollout(20, 2, np.random.default_rng(0))
    rows.reward[:] = 0.4
    rows.reward[10:] = -7.0
    made.observe(rows)
    seen = {x for _ in range(20) for x in made.replay.sample().reward.flatten().tolist()}
    assert sorted(seen) == pytest.approx([-1.0, 0.8])


def test_a_replay_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="at least batch_size"):
        dqn.DQNConfig(batch_size=64, replay_size=32)
