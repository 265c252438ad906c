"""Prioritized replay: the tree against plain sums, eligibility against the uniform replay's, weights by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import dqn
from agents.contract import Rollout
from agents.replay.prioritized import SMALLEST, Priorities
from agents.replay.ring import RingReplay
from envs.contract import Spec

SPEC = Spec((1,), np.dtype(np.float32), 0, 2)


def priorities(places=6, alpha=1.0, beta=1.0, steps=0):
    made = Priorities(1, places, alpha, beta, steps)
    state = {"leaves": np.array([[1.0, 0.0, 3.0, 0.0, 4.0, 2.0][:places]]), "largest": np.ones(1)}
    made.load_state_dict(state)
    return made


def test_the_tree_by_hand():
    """Leaves 1 0 3 0 4 2 (and two more empty ones): sums 1, 3, 6, 0; 4, 6; 10."""
    tree = priorities().trees[0]
    assert tree[1:8].tolist() == [10.0, 4.0, 6.0, 1.0, 3.0, 6.0, 0.0]


def test_stratified_draws_by_hand():
    """Five parts of 2: masses 0.5, 3, 4.2, 7.9, 9.98 lie in the places 0, 2, 4, 4, 5."""
    places = np.empty(5, np.int64)
    priorities().draw(0, np.array([0.25, 0.5, 0.1, 0.95, 0.99]), places)
    assert places.tolist() == [0, 2, 4, 4, 5]


def test_weights_by_hand():
    """N = 4 rows, P = 0.1, 0.3, 0.4: N P = 0.4, 1.2, 1.6; to the power -½, over the largest, 0.4^-½."""
    out = np.empty(3, np.float32)
    priorities(beta=0.5, steps=10**9).weights(0, np.array([0, 2, 4]), 0, out)
    assert out == pytest.approx([1.0, (0.4 / 1.2) ** 0.5, 0.5], rel=1e-6)
    priorities(beta=0.5, steps=100).weights(0, np.array([0, 2, 4]), 100, out)  # β has come to 1
    assert out == pytest.approx([1.0, 1 / 3, 1 / 4], rel=1e-6)


def test_errors_become_priorities_and_what_is_not_to_be_drawn_stays_so():
    made = priorities(alpha=0.5)
    made.set(0, np.array([0, 1, -1, 5]), np.array([-16.0, 7.0, 7.0, 4.0]))
    leaves = made.trees[0][made.leaves :]
    expected = [(16 + SMALLEST) ** 0.5, 0.0, 3.0, 0.0, 4.0, (4 + SMALLEST) ** 0.5, 0.0, 0.0]
    assert leaves.tolist() == pytest.approx(expected)
    assert made.largest[0] == pytest.approx(16.0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), places=st.integers(1, 40))
def test_a_draw_is_a_search_in_the_sums(seed, places):
    rng = np.random.default_rng(seed)
    leaves = rng.random(places) * (rng.random(places) < 0.6)
    leaves[rng.integers(places)] = 1.0
    made = Priorities(1, places, 1.0, 1.0, 0)
    made.load_state_dict({"leaves": leaves[None], "largest": np.ones(1)})
    for _ in range(20):
        which = rng.integers(places, size=5)
        made.set(0, which, rng.random(5))
        plain = made.trees[0][made.leaves : made.leaves + places]
        assert made.trees[0][1] == pytest.approx(plain.sum())
        uniform, drawn = rng.random(7), np.empty(7, np.int64)
        made.draw(0, uniform, drawn)
        mass = (np.arange(7) + uniform) / 7 * made.trees[0][1]
        assert (plain[drawn] > 0).all()
        ends = np.cumsum(plain)
        near = np.abs(mass[:, None] - ends).min(axis=1) < 1e-9  # rounding may go either way there
        assert (near | (drawn == np.searchsorted(ends, mass, side="right"))).all()


def ring(frames, n_step, prioritized, capacity=40, seeds=2, lanes=3):
    made = (lambda k, places: Priorities(k, places, 0.7, 0.5, 1000)) if prioritized else None
    return RingReplay(
        SPEC, [np.random.default_rng(k) for k in range(seeds)], lanes, capacity=capacity,
        batch_size=64, n_step=n_step, gamma=0.9, frame_stack=frames, priorities=made,
    )  # fmt: skip


def rollouts(rng, count, columns=6):
    """Rows as a simulator gives them, with ends of both kinds, and now and then a lane begun anew."""
    first_next = np.ones(columns, bool)
    done_before = np.zeros(columns, bool)
    obs_next, number = np.arange(columns, dtype=np.float32), columns
    for i in range(count):
        rows = int(rng.integers(1, 9))
        obs = np.zeros((rows + 1, columns, 1), np.float32)
        first = np.zeros((rows + 1, columns), bool)
        ended, cut = rng.random((2, rows, columns)) < 0.15
        obs[0, :, 0], first[0] = obs_next, first_next
        if i and rng.random() < 0.3:
            first[0, rng.integers(columns)] = True  # a replaced lane
        for t in range(rows):
            before = done_before if t == 0 else ended[t - 1] | cut[t - 1]
            ended[t] &= ~before
            cut[t] &= ~before
            first[t + 1] = before
            obs[t + 1, :, 0] = number + np.arange(columns)
            number += columns
        done_before = ended[-1] | cut[-1]
        obs_next, first_next = obs[-1, :, 0], first[-1].copy()
        yield Rollout(
            obs, first, rng.integers(2, size=(rows, columns)),
            rng.normal(size=(rows, columns)).astype(np.float32), ended, cut,
        )  # fmt: skip


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("n_step", [1, 4])
def test_what_may_be_drawn_is_what_the_uniform_replay_draws(frames, n_step):
    """After every rollout, over the ring's seam too: places with a priority, and rows seen in draws."""
    rng = np.random.default_rng(n_step + 10 * frames)
    by_priority, uniform = ring(frames, n_step, True), ring(frames, n_step, False)
    for i, rollout in enumerate(rollouts(rng, 25)):
        by_priority.add(rollout)
        uniform.add(rollout)
        if i < 3:
            continue
        seen = [set() for _ in range(2)]
        for _ in range(40):
            uniform.sample()
            for k in range(2):
                seen[k] |= set(uniform.sampled[k].tolist())
        p = by_priority.priorities
        for k in range(2):
            places = {row % (by_priority.slots * 3) for row in seen[k]}
            assert set(np.flatnonzero(p.trees[k][p.leaves :]).tolist()) == places
            assert p.count[k] == len(places)
        batch = by_priority.sample()
        assert (by_priority.priorities.trees[0][1] > 0).all()
        sampled = by_priority.sampled.copy()
        assert all(set(sampled[k].tolist()) <= seen[k] for k in range(2))
        assert batch.weight.max() == 1.0
        by_priority.set_priorities(sampled, rng.random(sampled.shape) * 3)


def test_new_rows_have_the_largest_priority_and_rows_that_are_gone_are_left_alone():
    rng = np.random.default_rng(0)
    made, made_rollouts = ring(1, 1, True, capacity=12), rollouts(rng, 40)
    made.add(next(made_rollouts))
    while made.head < 3:
        made.add(next(made_rollouts))
    made.sample()
    old = made.sampled.copy()
    made.set_priorities(old, np.full(old.shape, 9.0))
    head = made.head
    while made.tail < head:
        made.add(next(made_rollouts))
    p = made.priorities
    leaves = p.trees[0][p.leaves :]
    assert set(leaves[leaves > 0].tolist()) == {(9 + SMALLEST) ** 0.7}
    before = p.trees.copy()
    made.set_priorities(old, np.full(old.shape, 100.0))  # none of them is there any more
    assert (p.trees == before).all()


def test_draws_are_in_proportion_to_priorities():
    made = ring(1, 1, True, seeds=1, lanes=6)
    made.add(next(iter(rollouts(np.random.default_rng(3), 1))))
    p = made.priorities
    eligible = np.flatnonzero(p.trees[0][p.leaves :])
    p.set(0, eligible, np.arange(1.0, 1 + len(eligible)))
    counts = np.zeros(made.slots * 6)
    for _ in range(500):
        made.sample()
        counts += np.bincount(made.sampled[0], minlength=len(counts))
    share = p.trees[0][p.leaves :][: len(counts)] / p.trees[0][1]
    assert np.abs(counts / counts.sum() - share).max() < 0.01


def test_the_learner_writes_its_errors_back():
    """Sampled rows get |error|^α; the weights of a batch multiply its loss."""
    config = dqn.DQNConfig(
        prioritized=True, hidden=(4,), batch_size=8, learning_starts=0, priority_alpha=1.0
    )
    made = dqn.make_learner(
        config,
        SPEC,
        6,
        [np.random.SeedSequence(0)],
        [np.random.default_rng(0)],
        torch.device("cpu"),
    )
    for rollout in rollouts(np.random.default_rng(3), 3):
        made.observe(rollout)
    made.update()
    p, sampled = made.replay.priorities, made.replay.sampled[0]
    errors = made._priority[0].numpy()
    last = {int(place): error for place, error in zip(sampled, errors, strict=True)}
    for place, error in last.items():
        assert p.trees[0][p.leaves + place] == pytest.approx(error + SMALLEST)


# First priorities by the values that acted.


def acted_rollout(q, v, reward, terminated=(), truncated=(), first=None):
    """One lane, rows as long as ``q``."""
    rows = len(q)
    flags = np.zeros((2, rows, 1), bool)
    flags[0, list(terminated), 0] = True
    flags[1, list(truncated), 0] = True
    opened = np.zeros((rows + 1, 1), bool)
    opened[[0] if first is None else list(first), 0] = True
    column = [np.array(x, np.float32)[:, None] for x in (q, v, reward)]
    return Rollout(
        np.zeros((rows + 1, 1, 1), np.float32), opened, np.zeros((rows, 1), np.int64), column[2],
        flags[0], flags[1], extras={"q": column[0], "v": column[1]},
    )  # fmt: skip


def test_first_priorities_by_hand():
    """γ = ½, two steps, α = 1; rows 0 to 4, row 3 terminates, so row 4 is ignored and row 5 opens.

    row 0: 1 + ½·2 + ¼ v(2) - q(0) = 2 + ¼·8 - 1 = 3
    row 1: 2 + ½·3 + ¼ v(3) - q(1) = 3.5 + ¼·4 - 2 = 2.5
    row 2: 3 + ½·4 (ends) - q(2) = 5 - 3 = 2
    row 3: 4 - q(3) = 4 - 9 = -5
    row 5: its window is whole at row 7, which is the newest observation: the largest so far, 1
    row 6: not whole
    Then row 7 comes, and rows 6 has 1 + ½·1 + ¼ v(8)?, the newest again: 1. Row 5 keeps what it had.
    """
    made = RingReplay(
        SPEC, [np.random.default_rng(0)], 1, capacity=30, batch_size=4, n_step=2, gamma=0.5,
        priorities=lambda k, places: Priorities(k, places, 1.0, 0.5, 1000), acted_values=True,
    )  # fmt: skip
    q, v = [1, 2, 3, 9, 0, 6, 7], [0, 0, 8, 4, 0, 0, 0]
    made.add(acted_rollout(q, v, [1, 2, 3, 4, 0, 1, 1], terminated=[3], first=[0, 5]))
    p = made.priorities
    leaves = p.trees[0][p.leaves : p.leaves + 8]
    assert leaves.tolist() == pytest.approx([3, 2.5, 2, 5, 0, 1, 0, 0], abs=1e-5)
    made.add(acted_rollout([4], [5], [1], first=[]))
    assert leaves.tolist() == pytest.approx([3, 2.5, 2, 5, 0, 1, 1, 0], abs=1e-5)
    # three rows at once: row 7 ends at row 9, which is there by now: 1 + ½·1 + ¼·2 - 4 = -2
    made.add(acted_rollout([0, 0, 0], [0, 2, 0], [1, 1, 1], first=[]))
    assert leaves[7] == pytest.approx(2, abs=1e-5)


def test_the_actor_tells_what_it_thought_of_a_row():
    """Values 1, 5, 3 of which action 1 is not legal: the best legal one is worth 3."""
    from agents.q_actor import _told

    values = np.array([[[1.0, 5.0, 3.0], [1.0, 5.0, 3.0]]], np.float32)
    mask = np.array([[[True, False, True], [True, True, True]]])
    found = _told(values, np.array([[0, 2]]), mask)
    assert found["q"].tolist() == [[1.0, 3.0]]
    assert found["v"].tolist() == [[3.0, 5.0]]
