"""Action masks reach the choice and the maximum over next actions; lost lives end what is expected."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from agents import dqn, pqn
from agents.contract import Batch, Rollout
from agents.exploration import epsilon_greedy, greedy
from agents.replay.ring import RingReplay
from agents.replay.sequence import SequenceReplay
from agents.rules import td
from envs.contract import Spec

CPU = torch.device("cpu")
SPEC = Spec((1,), np.dtype(np.float32), 0, 3, action_mask=True, life_loss=True)


def test_the_choice_is_legal_and_uniform_over_the_legal():
    values = np.broadcast_to(np.array([5.0, 1.0, 2.0, 3.0]), (1, 30_000, 4))
    mask = np.broadcast_to(np.array([0, 1, 0, 1]), values.shape)
    assert (greedy(values, mask) == 3).all()
    chosen = epsilon_greedy(values, 1.0, [np.random.default_rng(0)], mask)
    shares = np.bincount(chosen[0], minlength=4) / 30_000
    assert shares[0] == shares[2] == 0
    assert abs(shares[1] - 0.5) < 5 * np.sqrt(0.25 / 30_000)  # five standard deviations


def test_one_legal_action_is_always_the_choice():
    rng = np.random.default_rng(1)
    values, only = rng.normal(size=(2, 500, 5)), rng.integers(5, size=(2, 500))
    mask = np.eye(5, dtype=bool)[only]
    for epsilon in (0.0, 0.5, 1.0):
        generators = [np.random.default_rng(k) for k in range(2)]
        assert (epsilon_greedy(values, epsilon, generators, mask) == only).all()


def test_a_mask_of_all_actions_changes_no_choice():
    values = np.random.default_rng(0).normal(size=(1, 1000, 3))
    free = epsilon_greedy(values, 0.3, [np.random.default_rng(7)])
    masked = epsilon_greedy(values, 0.3, [np.random.default_rng(7)], np.ones(values.shape, bool))
    assert (free == masked).all()


def test_where_no_action_is_legal_a_rescaled_target_stays_finite():
    config = dqn.DQNConfig(double=False, value_rescale=True)
    network = lambda obs, noise: torch.tensor([[[1.0, 2.0]]])  # noqa: E731
    rows = Batch(
        torch.zeros(1, 1, 1), torch.tensor([[1]]), torch.tensor([[3.0]]), torch.tensor([[0.0]]),
        torch.zeros(1, 1, 1), torch.zeros(1, 1, 2, dtype=torch.bool),
    )  # fmt: skip
    assert config.loss(network, network, rows, {}).metrics["target_mean"].item() == pytest.approx(
        3.0
    )


def test_where_no_action_is_legal_a_target_stays_finite():
    q, mask = torch.tensor([[1.0, 2.0]]), torch.tensor([[False, False]])
    values = td.select(q, td.greedy_action(q, mask))
    assert td.bootstrap(torch.tensor([3.0]), torch.tensor([0.0]), values).tolist() == [3.0]


@pytest.mark.parametrize("double", [False, True])
def test_dqn_takes_the_maximum_over_legal_next_actions(double):
    """r = 1, γ = 0.5. Legal next actions 1 and 2, target values (9, 4, 6), online (9, 5, 3).

    Plain: 1 + 0.5 · 6 = 4. Double: the online network chooses action 1, 1 + 0.5 · 4 = 3. Without
    the mask both would take action 0: 1 + 0.5 · 9 = 5.5.
    """
    config = dqn.DQNConfig(double=double, huber=100.0)
    batch = Batch(
        obs=torch.zeros(1, 1, 1), action=torch.tensor([[0]]), reward=torch.tensor([[1.0]]),
        discount=torch.tensor([[0.5]]), next_obs=torch.ones(1, 1, 1),
        next_action_mask=torch.tensor([[[False, True, True]]]),
    )  # fmt: skip

    def online(obs, noise):
        return torch.tensor([[[9.0, 5.0, 3.0]]]) * obs

    def target(obs, noise):
        return torch.tensor([[[9.0, 4.0, 6.0]]]) * obs

    out = config.loss(online, target, batch, {})
    assert out.metrics["target_mean"].item() == (3.0 if double else 4.0)


def rollout(masks, life_loss=None):
    """Five rows of one lane, observations 0..5, reward 1, no ends."""
    rows = len(masks) - 1
    none = np.zeros((rows, 1), bool)
    lost = none if life_loss is None else np.array(life_loss)[:, None]
    return Rollout(
        np.arange(rows + 1, dtype=np.float32)[:, None, None], np.eye(rows + 1, 1, dtype=bool),
        np.zeros((rows, 1), int), np.ones((rows, 1), np.float32), none, none,
        {"action_mask": np.array(masks)[:, None]}, {"life_loss": lost},
    )  # fmt: skip


MASKS = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]]


def ring(n_step, end_on_life_loss=False):
    return RingReplay(
        SPEC, [np.random.default_rng(0)], 1, capacity=5, batch_size=64, n_step=n_step, gamma=0.5,
        end_on_life_loss=end_on_life_loss,
    )  # fmt: skip


@pytest.mark.parametrize("n_step", [1, 2])
def test_the_ring_gives_the_mask_of_the_observation_that_is_bootstrapped_from(n_step):
    made = ring(n_step)
    made.add(rollout(MASKS))
    restored = ring(n_step)
    restored.load_state_dict(made.state_dict())
    restored.load_rows(made.tail, made.rows(made.tail, made.head))
    for one in (made, restored):
        batch = one.sample()
        rows = batch.obs[0, :, 0].int().tolist()
        assert set(rows) == set(range(6 - n_step))
        for row, here, mask in zip(
            rows,
            batch.action_mask[0].int().tolist(),
            batch.next_action_mask[0].int().tolist(),
            strict=True,
        ):
            assert here == MASKS[row]
            assert mask == MASKS[row + n_step]


@pytest.mark.parametrize("n_step", [1, 2])
def test_sequences_give_the_masks_of_both_observations(n_step):
    """One row of burn-in, three learned: they are 1 to 3, and the fourth has no window."""
    made = SequenceReplay(
        SPEC, [np.random.default_rng(0)], 1, capacity=5, batch_size=2, burn_in=1, length=3, n_step=n_step,
        gamma=0.5,
    )  # fmt: skip
    made.add(rollout(MASKS))
    batch = made.sample()
    here, after = (
        mask[0].view(4, 2, 3).int().tolist() for mask in (batch.action_mask, batch.next_action_mask)
    )
    ends = [min(row + n_step, 4) for row in (1, 2, 3)]  # none goes beyond the sequence
    assert here == [[MASKS[row]] * 2 for row in (1, 2, 3, 4)]
    assert after[:3] == [[MASKS[row]] * 2 for row in ends]


def test_munchausens_policies_are_of_legal_actions():
    """τ = 1, α = ½, l₀ = -9, r = 1, γ = ½, action 0; the last action is never legal.

    Before: values (0, ln 3, 50) give π = (¼, ¾): the bonus is ½ ln ¼. After: (ln 2, 0, 50) are worth ln 3.
    """
    for head in ({}, {"distributional": "qr", "atoms": 1}):
        config = dqn.DQNConfig(
            munchausen=True, munchausen_tau=1.0, munchausen_alpha=0.5, munchausen_floor=-9.0, **head
        )
        legal = torch.tensor([[[True, True, False]]])
        before, after = [0.0, math.log(3), 50.0], [math.log(2), 0.0, 50.0]
        both = [torch.tensor(values).view(1, 1, 3, *[1] * bool(head)) for values in (before, after)]
        network = lambda obs, noise, both=both: both[int(obs[0, 0, 0])]  # noqa: E731
        batch = Batch(
            torch.zeros(1, 1, 1), torch.tensor([[0]]), torch.tensor([[1.0]]), torch.tensor([[0.5]]),
            torch.ones(1, 1, 1), legal, action_mask=legal,
        )  # fmt: skip
        out = config.loss(network, network, batch, {})
        goal = 1.0 + 0.5 * math.log(0.25) + 0.5 * math.log(3)
        assert out.metrics["target_mean"].item() == pytest.approx(goal)
        assert out.loss.item() == pytest.approx(0.5 * goal**2 * (0.5 if head else 1.0))


def test_a_lost_life_ends_the_window_and_nothing_else():
    """γ = 0.5, two steps, a life lost in row 2: rows 1 and 2 have discount 0, row 1 two rewards."""
    made = ring(2, end_on_life_loss=True)
    made.add(rollout(MASKS, life_loss=[False, False, True, False, False]))
    batch = made.sample()
    expected = {0: (1.5, 0.25), 1: (1.5, 0.0), 2: (1.0, 0.0), 3: (1.5, 0.25)}
    found = {
        int(obs): (float(r), float(d))
        for obs, r, d in zip(batch.obs[0, :, 0], batch.reward[0], batch.discount[0], strict=True)
    }
    assert found == expected
    assert not made.first[1:].any()


def test_pqn_bootstraps_from_legal_actions_and_stops_at_a_lost_life():
    """γ = 0.5, λ = 1, V(s') = the largest legal of (10, 20, 40) times the observation's number.

    From behind: row 4 → 1 + 0.5 · 5 · 40 = 101 (actions 0 and 2 are legal), row 3 → 1 + 0.5 · 101 =
    51.5, row 2 loses a life → 1, row 1 → 1 + 0.5 · 1 = 1.5, row 0 → 1.75. Without the mask at the
    end of the rollout nothing would change here, so the mask of row 5 forbids action 2 in turn: 1 +
    0.5 · 5 · 20 = 51 with actions 0 and 1.
    """
    config = pqn.PQNConfig(
        gamma=0.5, lambda_=1.0, hidden=(), layer_norm=False, end_on_life_loss=True
    )
    seed = [np.random.SeedSequence(0)]
    learner = pqn.make_learner(config, SPEC, 1, seed, [np.random.default_rng(0)], CPU)
    weight, bias = learner.online.leaves
    weight.data.copy_(torch.tensor([[[10.0, 20.0, 40.0]]]))
    bias.data.zero_()
    for last, tail in (([1, 0, 1], 101.0), ([1, 1, 0], 51.0)):
        learner.observe(rollout([*MASKS[:5], last], life_loss=[False, False, True, False, False]))
        expected = [1.75, 1.5, 1.0, 1 + tail / 2, tail]
        assert learner._rows["returns"][0].tolist() == expected
