"""Deliberate faults: the tests named beside each must notice it.

Every mutant is a copy of the code with one text replaced, and its tests run in a process of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("envs", "agents", "runners", "tests", "pyproject.toml")
TD, VIEW = "tests/agents/test_td.py", "tests/agents/test_view.py"
TABLE, DQN, PQN = (f"tests/agents/test_{name}.py" for name in ("tabular", "dqn", "pqn"))
LINEAR, BOUNDS = "tests/agents/test_linear_q.py", "tests/agents/test_ucb_hoeffding.py"
WINDOWS = "tests/agents/test_multistep.py::test_the_windows_of_the_ring_are_those_of_the_slow_twin"
RING, ROWS, WINDOW = (f"agents/replay/{name}.py" for name in ("ring", "rows", "window"))
KERNELS = "agents/tabular_kernels.py"
PRIORITIZED = "tests/agents/test_prioritized.py"


class Mutant(NamedTuple):
    file: str
    old: str
    new: str
    tests: str


MUTANTS = {
    "the TD error has the wrong sign": Mutant(
        KERNELS, "error = goal - q[table, state, action]", "error = q[table, state, action] - goal",
        f"{TABLE}::test_q_learning_by_hand",
    ),
    "gamma is squared": Mutant(
        "agents/replay/view.py", "gamma * (1.0 - terminated)", "gamma * gamma * (1.0 - terminated)",
        VIEW,
    ),
    "a target carries gradient": Mutant(
        "agents/rules/td.py", "return (r_t + discount_t * v_t).detach()",
        "return r_t + discount_t * v_t",
        f"{TD}::test_no_gradient_goes_through_a_target",
    ),
    "a truncation is taken for a termination": Mutant(
        "agents/replay/view.py", "rollout.reward, ended, hyper.gamma",
        "rollout.reward, rollout.done, hyper.gamma",
        f"{PQN}::test_the_returns_of_a_rollout",
    ),
    "the successor is one row too early": Mutant(
        WINDOW, "return t + 1, total, discount", "return t, total, discount", WINDOWS,
    ),
    "an ignored row is learned": Mutant(
        "agents/pqn.py", "self._seed_major(rollout.valid)",
        "self._seed_major(rollout.valid | True)", f"{PQN}::test_the_returns_of_a_rollout",
    ),
    "epsilon never falls": Mutant(
        "agents/exploration.py", "return start + (end - start) * (lane_steps / steps)",
        "return start", "tests/agents/test_exploration.py::test_a_schedule_at_its_points",
    ),
}  # fmt: skip

MORE = {
    "what earlier looks spent is spent again": Mutant(
        "runners/sequential.py", " - int(np.count_nonzero(~alive))", "",
        "tests/runners/test_sequential.py::test_of_all_signs_a_share_of_alpha_stops",
    ),
    "a run that never reached the threshold is one that did at its end": Mutant(
        "runners/learning_speed.py", "run.reached and run.at <= budget", "run.at <= budget",
        "tests/runners/test_learning_speed.py::test_times_by_hand",
    ),
    "seeds are drawn from all tasks": Mutant(
        "runners/bootstrap.py", "generator.integers(starts, ends, (some, len(starts)))",
        "generator.integers(0, len(starts), (some, len(starts)))",
        "tests/runners/test_bootstrap.py::test_seeds_are_drawn_within_their_task",
    ),
    "a tie counts for neither": Mutant(
        "runners/improvement.py", "0.5 * (np.sign(x[:, None] - y) + 1)",
        "(x[:, None] > y).astype(np.float64)",
        "tests/runners/test_improvement.py::test_a_probability_by_hand",
    ),
    "an overwritten row gets a priority": Mutant(
        ROWS, "sampled[k, b] % ring if sampled[k, b] >= oldest else -1", "sampled[k, b] % ring",
        f"{PRIORITIZED}::test_new_rows_have_the_largest_priority_and_rows_that_are_gone_are_left_alone",
    ),
    "a window that is whole only now is never drawn": Mutant(
        RING, "max(tail, start - n_step), tail, head", "start, tail, head",
        f"{PRIORITIZED}::test_what_may_be_drawn_is_what_the_uniform_replay_draws",
    ),
    "a quantile counts by its complement": Mutant(
        "agents/rules/distributional.py", "taus.unsqueeze(-1) - below", "1.0 - taus.unsqueeze(-1) - below",
        "tests/agents/test_distributional.py::test_quantile_huber_by_hand",
    ),
    "a mass near the support's edge is not shared": Mutant(
        "agents/rules/distributional.py", "(place - left) * weights", "(place - left) * weights * (place < last - 1)",
        "tests/agents/test_distributional.py::test_the_projection_by_hand",
    ),
    "the successor's values are computed with gradient": Mutant(
        "agents/dqn.py", "with torch.no_grad():", "with torch.enable_grad():",
        f"{DQN}::test_gradient_flows_through_the_prediction_only",
    ),
    "double Q-learning chooses by the values": Mutant(
        "agents/dqn.py", "td.greedy_action(chooses, batch", "td.greedy_action(head.values(out_t), batch",
        f"{DQN}::test_the_gradient_by_hand",
    ),
    "the trace is not cut at an end": Mutant(
        "agents/replay/view.py", "hyper.lambda_ * (1.0 - (ended | rollout.truncated))",
        "hyper.lambda_ * (1.0 - 0.0 * ended)", f"{PQN}::test_the_returns_of_a_rollout",
    ),
    "the target network is never updated": Mutant(
        "agents/learner.py", "if self._target_is_due():", "if False:",
        f"{DQN}::test_the_target_is_copied_exactly_at_its_period",
    ),
    "all seeds are clipped by one norm": Mutant(
        "agents/optimizer.py", "self.grad.renorm_(2, 0, self.max_grad_norm)",
        "self.grad.mul_((self.max_grad_norm / self.grad.norm()).clamp(max=1.0))",
        "tests/agents/test_optimizer.py::test_each_seed_is_clipped_by_its_own_norm",
    ),
    "SARSA bootstraps from the action before": Mutant(
        KERNELS, "waiting[lane, 4], s, a,", "waiting[lane, 4], s, taken,",
        f"{TABLE}::test_sarsa_learns_one_row_late_with_the_action_that_was_taken",
    ),
    "the seeds share their generators": Mutant(
        "runners/seeding.py", "np.random.SeedSequence([seed]", "np.random.SeedSequence([0]",
        "tests/agents/test_groups.py::test_the_streams_of_a_seed_all_differ",
    ),
    "gamma is squared in a window": Mutant(
        WINDOW, "discount *= factor", "discount *= factor * factor", WINDOWS
    ),
    "a window bootstraps one row too early": Mutant(
        WINDOW, "return row + n_step, total", "return row + n_step - 1, total", WINDOWS
    ),
    "a window takes a truncation for a termination": Mutant(
        WINDOW, "_view(reward[slot, k, lane], terminated[slot, k, lane],",
        "_view(reward[slot, k, lane], terminated[slot, k, lane] or truncated[slot, k, lane],",
        WINDOWS,
    ),
    "an ignored row starts a window": Mutant(
        WINDOW, "if first[(t + 1) % slots, k, lane]:", "if False and first[0, k, lane]:", WINDOWS
    ),
    "a table learns an ignored row": Mutant(
        KERNELS, "action[t, lane], not first[t + 1, lane]", "action[t, lane], True", TABLE
    ),
    "rows of a new episode are told a row too early": Mutant(
        "runners/worker.py", "            slot.first[t + 1] = done\n            done = slot.terminated[t] | slot.truncated[t]",
        "            done = slot.terminated[t] | slot.truncated[t]\n            slot.first[t + 1] = done", "tests/agents/test_joint.py::test_first_and_valid_by_hand",
    ),
    "lag is not kept": Mutant(
        "runners/sources/local.py", "self._collect(plan, self.published[0])",
        "self._collect(plan, self.published[-1])",
        "tests/runners/test_sources.py::test_a_source_acts_with_the_parameters_that_its_lag_says",
    ),
    "a resumed run forgets its optimizer": Mutant(
        "agents/learner.py", 'self.optimizer.load_state_dict(state["optimizer"])', "pass",
        "tests/runners/test_resume.py::test_a_stop_that_is_asked_for_goes_on_to_the_same_bits",
    ),
    "every tiling takes the whole step": Mutant(
        "agents/linear_q.py", "+= lr / tilings * error", "+= lr * error",
        f"{LINEAR}::test_an_update_by_hand",
    ),
    "tilings are not shifted": Mutant(
        "agents/tiles.py", "int(widths + tiling.offset[i, d])", "int(widths)",
        f"{LINEAR}::test_tiles_of_a_plane_by_hand",
    ),
    "every step is the first of an episode": Mutant(
        "agents/ucb_hoeffding.py", "steps[lane] = (h + 1) % horizon", "steps[lane] = 0",
        f"{BOUNDS}::test_two_episodes_by_hand",
    ),
    "a value may be above the horizon": Mutant(
        "agents/ucb_hoeffding.py", "value = min(value, float(q.shape[0]))", "value = value",
        f"{BOUNDS}::test_no_value_is_above_the_horizon",
    ),
    "a bonus never shrinks": Mutant(
        "agents/ucb_hoeffding.py", "numbers.bonus / np.sqrt(t)", "numbers.bonus",
        f"{BOUNDS}::test_two_episodes_by_hand",
    ),
    "the lowest index wins ties while learning": Mutant(
        KERNELS, "pick, found = int(draw * count), 0", "pick, found = 0, 0", TABLE
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The code in a folder of its own; each test puts back what it changed."""
    folder = tmp_path_factory.mktemp("mutant")
    for name in COPIED:
        if (ROOT / name).is_dir():
            junk = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")
            shutil.copytree(ROOT / name, folder / name, ignore=junk)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def run_tests(folder, *tests):
    environment = {
        **os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "numba"),
        "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def check(folder, mutant):
    path = folder / mutant.file
    source = path.read_text()
    try:
        path.write_text(source.replace(mutant.old, mutant.new))
        done = run_tests(folder, mutant.tests)
    finally:
        path.write_text(source)
    told = done.stdout + done.stderr
    # 1: tests ran and failed; 2 and more: they could not be run at all
    assert done.returncode == 1, f"survived or broken (exit {done.returncode}):\n{told}"
    assert "ERROR" not in told, told


@pytest.mark.parametrize("mutant", [*MUTANTS.values(), *MORE.values()])
def test_there_is_one_place_for_each_fault(mutant):
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1


@pytest.mark.parametrize("name", MUTANTS)
def test_a_fault_is_noticed(name, copy):
    check(copy, MUTANTS[name])


@pytest.mark.slow  # six seconds each, and kernels are compiled anew for some
@pytest.mark.parametrize("name", MORE)
def test_another_fault_is_noticed(name, copy):
    check(copy, MORE[name])


def test_without_a_fault_the_same_tests_pass(copy):
    done = run_tests(copy, *sorted({mutant.tests for mutant in MUTANTS.values()}))
    assert done.returncode == 0, done.stdout + done.stderr
