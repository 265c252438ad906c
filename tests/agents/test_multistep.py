"""Returns over several steps: λ-returns by hand and against the forward view, n-step windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.contract import Rollout
from agents.replay.ring import RingReplay
from agents.replay.window import window
from agents.rules.multistep import lambda_returns
from envs.contract import Spec
from tests import reference

GAMMA = 0.5


def returns(reward, discount, value, lambda_):
    columns = (torch.tensor(x, dtype=torch.float64) for x in (reward, discount, value, lambda_))
    return lambda_returns(*columns).tolist()


def test_by_hand():
    # G2 = 3 + ½ 30 = 18; G1 = 2 + ½ (½ 20 + ½ 18) = 11.5; G0 = 1 + ½ (½ 10 + ½ 11.5) = 6.375
    assert returns([1, 2, 3], [GAMMA] * 3, [10, 20, 30], [0.5] * 3) == [6.375, 11.5, 18.0]


def test_lambda_0_is_the_one_step_target():
    # 1 + ½ 10, 2 + ½ 20, 3 + ½ 30
    assert returns([1, 2, 3], [GAMMA] * 3, [10, 20, 30], [0.0] * 3) == [6.0, 12.0, 18.0]


def test_lambda_1_is_monte_carlo_up_to_the_last_row():
    # G2 = 3 + ½ 30 = 18, G1 = 2 + ½ 18 = 11, G0 = 1 + ½ 11 = 6.5: only the last value is used
    assert returns([1, 2, 3], [GAMMA] * 3, [10, 20, 30], [1.0] * 3) == [6.5, 11.0, 18.0]


def test_a_termination_inside_a_rollout_ends_the_return():
    # Row 1 terminates: discount 0, λ 0. G1 = 2, G0 = 1 + ½ (½ 10 + ½ 2) = 4.
    # Row 2 is the ignored one, row 3 begins the next episode: neither reaches rows 0 and 1.
    found = returns([1, 2, 0, 7], [GAMMA, 0, GAMMA, GAMMA], [10, 99, 20, 30], [0.5, 0, 0.5, 0.5])
    assert found[:2] == [4.0, 2.0]
    assert found[3] == 7 + 0.5 * 30


def test_a_truncation_inside_a_rollout_bootstraps_from_the_final_observation():
    # Row 1 is truncated: discount ½, λ 0. G1 = 2 + ½ 40 = 22, G0 = 1 + ½ (½ 10 + ½ 22) = 9.
    found = returns([1, 2, 0, 7], [GAMMA] * 4, [10, 40, 20, 30], [0.5, 0, 0.5, 0.5])
    assert found[:2] == [9.0, 22.0]


def test_the_targets_carry_no_gradient():
    columns = [torch.rand(4, 2, requires_grad=True) for _ in range(4)]
    assert not lambda_returns(*columns).requires_grad


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 9), lanes=st.integers(1, 3))
def test_backward_and_forward_view_agree(seed, rows, lanes):
    rng = np.random.default_rng(seed)
    reward, value = rng.normal(size=(2, rows, lanes))
    terminated, truncated = rng.random((2, rows, lanes)) < 0.2
    discount = 0.9 * ~terminated
    lambda_ = 0.8 * ~(terminated | truncated)
    fast = lambda_returns(*(torch.tensor(x) for x in (reward, discount, value, lambda_))).numpy()
    for lane in range(lanes):
        slow = reference.lambda_returns(*(x[:, lane] for x in (reward, discount, value, lambda_)))
        np.testing.assert_allclose(fast[:, lane], slow, atol=1e-12)


def random_rows(rng, rows):
    """One lane's rows that keep the reset rule, with ends of both kinds."""
    first, done = np.zeros(rows + 1, bool), np.zeros((2, rows), bool)
    reward = rng.normal(size=rows).astype(np.float32)
    first[0] = True
    for t in range(rows):
        first[t + 1] = t > 0 and done[:, t - 1].any()
        if first[t + 1]:
            reward[t] = 0.0
        else:
            done[:, t] = rng.random(2) < 0.15
    return first, reward, done[0], done[1]


@pytest.mark.parametrize("n_step", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_the_windows_of_the_ring_are_those_of_the_slow_twin(n_step, seed):
    rows, gamma = 60, 0.9
    first, reward, terminated, truncated = random_rows(np.random.default_rng(seed), rows)
    ring = RingReplay(
        Spec((), np.int64, rows + 1, 2), [np.random.default_rng(0)], 1,
        capacity=rows, batch_size=4, n_step=n_step, gamma=gamma,
    )  # fmt: skip
    ring.add(
        Rollout(
            obs=np.arange(rows + 1)[:, None],
            first=first[:, None],
            action=np.zeros((rows, 1), np.int64),
            reward=reward[:, None],
            terminated=terminated[:, None],
            truncated=truncated[:, None],
        )
    )
    starts = 0
    for t in range(rows):
        slow = reference.n_step_window(t, n_step, gamma, first, reward, terminated, truncated)
        fast = window(
            t, 0, 0, ring.head, *ring.options,
            ring.first, ring.reward, ring.terminated, ring.truncated,
        )  # fmt: skip
        if slow is None:
            assert fast[0] == t
            continue
        starts += 1
        assert fast[0] == slow[0]
        assert fast[1:] == pytest.approx(slow[1:], abs=1e-5)
    assert starts > 20
