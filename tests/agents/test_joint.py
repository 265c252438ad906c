"""The joint between simulator step and gradient step, against a brute-force oracle.

The scripted simulator keeps the true episodes; the worker, the rollouts and the ring never see that
record. Every window that the ring can give is compared with the one read off the record.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.replay.ring import RingReplay
from agents.replay.window import window
from envs.contract import spec_of
from runners.sources import Plan
from runners.worker import RolloutWorker
from tests.scripted import RandomActor, ScriptedEnv, windows

GAMMA = 0.9


class Scene:
    """K seeds of n scripted lanes, a worker and a ring."""

    def __init__(self, seeds, lanes, limit, p_end, n_step, capacity, blocks=1, max_rows=8):
        self.lanes, self.n_step, self.blocks = lanes, n_step, blocks
        self.seeds, self.limit, self.p_end, self.max_rows = seeds, limit, p_end, max_rows
        self.made = 0
        self.envs: list[ScriptedEnv] = []
        self.worker = self.new_worker()
        generators = [np.random.default_rng([seed, 9]) for seed in seeds]
        self.ring = RingReplay(
            self.spec, generators, lanes * blocks,
            capacity=capacity, batch_size=16, n_step=n_step, gamma=GAMMA,
        )  # fmt: skip

    def new_worker(self) -> RolloutWorker:
        self.envs = []

        def make(seed, block):
            self.made += 1
            env = ScriptedEnv(
                self.lanes, seed + 31 * self.made, self.limit, self.p_end, self.made * 10**5
            )
            self.envs.append(env)
            return env

        self.spec = spec_of(ScriptedEnv(1, 0, 1, 0.0))
        return RolloutWorker(
            "scripted", self.spec, self.seeds, self.blocks, make, RandomActor,
            max_rows=self.max_rows, reward_dtype=np.float32,
        )  # fmt: skip

    def histories(self):
        """[column] histories in the order of the rollout's columns."""
        return [history for env in self.envs for history in env.history]

    def check(self, histories) -> int:
        """Every row of the ring against the oracle; returns how many windows were compared."""
        ring, compared = self.ring, 0
        per_seed = self.lanes * self.blocks
        for column, history in enumerate(histories):
            truth = windows(history, self.n_step, GAMMA)
            k, lane = divmod(column, per_seed)
            for row in range(ring.tail, ring.head):
                end, total, discount = window(
                    row, k, lane, ring.head, *ring.options,
                    ring.first, ring.reward, ring.terminated, ring.truncated,
                )  # fmt: skip
                slot = row % ring.slots
                name = float(ring.obs[slot, k, lane, 0])
                expected = truth.get(name)
                if expected is None or not expected[4]:
                    assert end == row, f"row {row} is ignored, cut or incomplete and may not start"
                    continue
                action, reward, factor, bootstrap, _ = expected
                assert end > row, f"row {row} may start a window"
                assert ring.action[slot, k, lane] == action
                assert total == pytest.approx(reward, abs=1e-5)
                assert discount == pytest.approx(factor)
                assert float(ring.obs[end % ring.slots, k, lane, 0]) == bootstrap
                compared += 1
        return compared


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
@pytest.mark.parametrize("n_step", [1, 3])
def test_every_window_is_the_true_one(limit, n_step):
    scene = Scene([0, 1], lanes=3, limit=limit, p_end=0.1, n_step=n_step, capacity=90)
    rng = np.random.default_rng(limit)
    compared = 0
    for _ in range(40):  # about 180 rows through a ring of 31: the seam is crossed several times
        scene.ring.add(scene.worker.collect(Plan(int(rng.integers(1, 9)), None), 0))
        compared += scene.check(scene.histories())
    assert compared > 1000


@settings(max_examples=40, deadline=None)
@given(
    limit=st.sampled_from([1, 2, 3, 5, 100]),
    n_step=st.integers(1, 6),
    lanes=st.integers(1, 4),
    blocks=st.integers(1, 2),
    p_end=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    capacity=st.integers(1, 60),
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=12),
)
def test_any_shape(limit, n_step, lanes, blocks, p_end, capacity, lengths):
    scene = Scene([3], lanes, limit, p_end, n_step, capacity, blocks)
    for rows in lengths:
        scene.ring.add(scene.worker.collect(Plan(rows, None), 0))
        scene.check(scene.histories())


@pytest.mark.parametrize("n_step", [1, 3])
def test_a_replaced_worker_cuts_windows_and_joins_no_episodes(n_step):
    scene = Scene([0], lanes=3, limit=5, p_end=0.1, n_step=n_step, capacity=120)
    rng = np.random.default_rng(5)
    past = [[] for _ in range(3)]
    for _ in range(12):
        for _ in range(3):
            scene.ring.add(scene.worker.collect(Plan(int(rng.integers(1, 8)), None), 0))
        for column, history in enumerate(scene.histories()):
            # The last observation of the old worker is overwritten by the new one's first: a row
            # that led to it has lost its successor, even where it ended its episode.
            episode = history[-1]
            reset_row_came = (episode.terminated or episode.truncated) and not scene.envs[0].done[
                column
            ]
            episode.cut = not reset_row_came
            past[column] += history
        scene.worker = scene.new_worker()  # its first row opens new episodes with no end before
        scene.ring.add(scene.worker.collect(Plan(2, None), 0))
        joined = [old + new for old, new in zip(past, scene.histories(), strict=True)]
        assert scene.check(joined) > 0


def test_samples_are_windows_of_the_record():
    scene = Scene([0, 1], lanes=3, limit=5, p_end=0.1, n_step=3, capacity=90)
    for _ in range(30):
        scene.ring.add(scene.worker.collect(Plan(8, None), 0))
    truth = [windows(history, 3, GAMMA) for history in scene.histories()]
    for _ in range(20):
        batch = scene.ring.sample()
        for k in range(2):
            for b in range(16):
                number, lane = (int(x) for x in batch.obs[k, b])
                action, reward, discount, bootstrap, _ = truth[k * 3 + lane][float(number)]
                assert batch.action[k, b] == action
                assert batch.reward[k, b].item() == pytest.approx(reward, abs=1e-5)
                assert batch.discount[k, b].item() == pytest.approx(discount)
                assert batch.next_obs[k, b, 0].item() == bootstrap


def test_sampling_is_uniform_over_the_rows_that_may_start():
    scene = Scene([0], lanes=2, limit=4, p_end=0.2, n_step=2, capacity=40)
    for _ in range(10):
        scene.ring.add(scene.worker.collect(Plan(8, None), 0))
    counts: dict[float, int] = {}
    for _ in range(2000):
        for number in scene.ring.sample().obs[0, :, 0].tolist():
            counts[number] = counts.get(number, 0) + 1
    complete = set()
    for history in scene.histories():
        complete |= {name for name, w in windows(history, 2, GAMMA).items() if w[4]}
    held = {float(x) for x in scene.ring.obs[..., 0].ravel()}
    assert set(counts) <= complete & held
    # 32,000 draws over m rows: chi-square with m - 1 degrees of freedom, mean m - 1, variance 2(m - 1).
    m, expected = len(counts), 32_000 / len(counts)
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    assert m > 20
    assert abs(chi2 - (m - 1)) < 5 * np.sqrt(2 * (m - 1))


def test_first_and_valid_by_hand():
    """Limit 2, no random ends: rows go step, step (truncated), ignored, step, step, ignored, ...

    row        0  1  2  3  4  5
    truncated  .  T  .  .  T  .
    first      T  .  .  T  .  .  T     first[t + 1] = done[t - 1]
    valid      1  1  0  1  1  0        valid[t] = not first[t + 1]
    """
    scene = Scene([0], lanes=1, limit=2, p_end=0.0, n_step=1, capacity=50, max_rows=6)
    rollout = scene.worker.collect(Plan(6, None), 0)
    assert rollout.truncated[:, 0].tolist() == [False, True, False, False, True, False]
    assert rollout.first[:, 0].tolist() == [True, False, False, True, False, False, True]
    assert rollout.valid[:, 0].tolist() == [True, True, False, True, True, False]


def test_a_scheduled_reset_is_an_end_like_any_other():
    """Row 3 of 4 is truncated by the checkpoint; the next rollout begins with an ignored row."""
    scene = Scene([7], lanes=2, limit=100, p_end=0.0, n_step=3, capacity=50, max_rows=4)
    one = scene.worker.collect(Plan(4, 1), 0)
    assert one.truncated[:, 0].tolist() == [False, False, False, True]
    last = one.obs[4].copy()
    scene.ring.add(one)
    two = scene.worker.collect(Plan(4, None), 0)
    assert (two.obs[0] == last).all()
    assert two.first[:, 0].tolist() == [False, True, False, False, False]
    assert two.valid[:, 0].tolist() == [False, True, True, True]
    assert two.reward[0].tolist() == [0.0, 0.0]
    scene.ring.add(two)
    # Rows 2 and 3 bootstrap from the true last observation (row 4), with discounts 0.9² and 0.9.
    for row, steps in ((1, 3), (2, 2), (3, 1)):
        end, _, discount = window(
            row, 0, 0, scene.ring.head, *scene.ring.options, scene.ring.first, scene.ring.reward,
            scene.ring.terminated, scene.ring.truncated,
        )  # fmt: skip
        assert (end, discount) == (4, pytest.approx(0.9**steps))
