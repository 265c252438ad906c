import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from runners import learning_curve
from runners.errors import DiskFault
from runners.learning_curve import band_of, curve_of, solved_by, write_curve
from runners.run_folder import create_run

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n"


def records(means, env_steps=None, confirmed=()):
    """Evaluations every 100 steps; those in ``confirmed`` passed their confirmation."""
    steps = env_steps or [100 * (i + 1) for i in range(len(means))]
    rows = [
        {"lane_steps": x, "env_steps": x, "updates": 1, "seconds": 1.0, "returns": [m], "mean": m}
        for x, m in zip(steps, means, strict=True)
    ]
    for i in confirmed:
        rows[i]["confirmation"] = [means[i]] * 100
    return rows


def curves(*seeds, threshold=None):
    return [curve_of(k, rows, threshold) for k, rows in enumerate(seeds)]


def folder(tmp_path, figures, evals):
    """A run folder with these evaluations by seed."""
    config = {"agent": "dqn", "env": "CartPole-v1"}
    run = create_run(str(tmp_path), "dqn-CartPole-v1-0123456789", config)
    for seed, lines in evals.items():
        for line in lines:
            run.seed(seed).add_eval({"lane_steps": line["env_steps"], **line})
    if figures is not None:
        run.write_summary(figures)
    return run


def test_a_seed_is_solved_where_the_bound_of_its_confirmation_holds():
    rows = records([500.0, 480.0, 490.0], confirmed=[1, 2])
    assert solved_by(rows, None) is None
    assert solved_by(rows, 475.0) == 1
    # The mean is above, the bound is not: 490 - 1.66 * 100 / sqrt(100) < 475.
    rows[1]["confirmation"] = [390.0, 590.0] * 50
    assert solved_by(rows, 475.0) == 2
    rows[2]["confirmation"] = [500.0]  # one episode proves nothing
    assert solved_by(rows, 475.0) is None


def test_the_mean_is_taken_on_a_common_grid():
    band = band_of(curves(records([0, 10], [100, 300]), records([0, 20], [120, 280])), points=5)
    assert band.env_steps.tolist() == [120, 160, 200, 240, 280]
    first = [1.0, 3.0, 5.0, 7.0, 9.0]
    second = [0.0, 5.0, 10.0, 15.0, 20.0]
    assert band.mean == pytest.approx([(a + b) / 2 for a, b in zip(first, second, strict=True)])
    # Two values x, y: the half width is t(0.975, 1) * |x - y| / 2, with t = 12.7062.
    assert band.high[-1] - band.mean[-1] == pytest.approx(12.7062 * 11 / 2, rel=1e-4)
    assert band.mean[-1] - band.low[-1] == pytest.approx(12.7062 * 11 / 2, rel=1e-4)


def test_a_solved_seed_is_carried_forward():
    left = records([100, 500], confirmed=[1])
    stayed = records([0, 100, 200, 300])
    band = band_of(curves(left, stayed, threshold=475), points=4)
    assert band.env_steps.tolist() == [100, 200, 300, 400]
    assert band.mean.tolist() == [50, 300, 350, 400]


def test_an_unsolved_seed_that_ends_ends_the_mean():
    band = band_of(curves(records([100, 500]), records([0, 100, 200, 300])), points=2)
    assert band.env_steps.tolist() == [100, 200]


def test_all_solved_goes_to_the_last():
    pair = records([1, 500], confirmed=[1]), records([1, 1, 500], confirmed=[2])
    assert band_of(curves(*pair, threshold=475)).env_steps[-1] == 300


@pytest.mark.parametrize(
    ("evals", "levels"),
    [
        ({0: records([1, 2, 3])}, {}),
        ({0: records([1.0])}, {"threshold": 475.0}),
        ({4: records([5.0, 5.0]), 5: records([5.0, 5.0]), 6: []}, {"optimal": 5.0}),
        ({0: records([1, 500], confirmed=[1]), 1: records([1, 2, 3])}, {"threshold": 475.0}),
        ({0: records([math.nan, 2.0]), 1: records([1.0, math.nan])}, {}),
        ({0: records([0.0], [0])}, {}),
        ({}, {}),
    ],
)
def test_any_run_has_a_picture(evals, levels, tmp_path):
    path = tmp_path / "curve.png"
    path.write_bytes(b"an older one")
    write_curve(evals, path, "a_b on $X^-v1", **levels)  # a name that is no formula
    assert path.read_bytes().startswith(PNG)
    assert os.listdir(tmp_path) == ["curve.png"]


def test_one_evaluation_is_a_dot(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(learning_curve, "save_figure", lambda figure, path: shown.append(figure))
    write_curve({0: records([1.0]), 1: records([1, 2])}, tmp_path / "x.png", "t")
    assert [line.get_marker() for line in shown[0].axes[0].lines[:2]] == ["o", ""]


def test_what_the_picture_holds(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(learning_curve, "save_figure", lambda figure, path: shown.append(figure))
    evals = {3: records([1, 480], confirmed=[1]), 7: records([0, 5, 9])}
    write_curve(evals, tmp_path / "x.png", "dqn on CartPole-v1", threshold=475.0, optimal=500.0)
    (axes,) = shown[0].axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [
        "each seed", "95 % interval", "mean", "solved", "threshold 475", "optimal 500",
    ]  # fmt: skip
    solved = next(line for line in axes.lines if line.get_label() == "solved")
    assert solved.get_xydata().tolist() == [[200, 480]]
    low, high = axes.get_ylim()
    assert -40 < low < 0  # the interval of two seeds reaches far below
    assert 500 < high < 540
    assert axes.get_title(loc="left") == "dqn on CartPole-v1, 2 seeds"


def test_a_full_disk_leaves_the_older_picture(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    path.write_bytes(b"an older one")
    monkeypatch.setenv("QLAB_FAULT", "picture.write:1:enospc")
    monkeypatch.setattr("runners.faults._seen", Counter())
    with pytest.raises(DiskFault, match="No space left"):
        write_curve({0: records([1.0])}, path, "dqn")
    assert path.read_bytes() == b"an older one"
    assert os.listdir(tmp_path) == ["curve.png"]


def test_no_global_state_of_matplotlib(tmp_path):
    code = (
        "import sys; from runners.learning_curve import write_curve\n"
        "assert 'matplotlib' not in sys.modules and 'rich' not in sys.modules\n"
        "write_curve({0: [{'env_steps': 1, 'mean': 1.0}]}, sys.argv[1], 'x')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'scipy.stats' not in sys.modules and 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.png")],
        cwd=ROOT, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("figures", [None, {"optimal_value": 600.0}])
def test_a_run_is_drawn_while_under_way_and_when_done(tmp_path, monkeypatch, figures):
    told = []
    monkeypatch.setattr(learning_curve, "write_curve", lambda *args: told.append(args))
    evals = {0: records([1.0, 2.0]), 3: records([5.0])}
    run = folder(tmp_path, figures, evals)
    learning_curve.draw_curve(run)
    ((shown, path, title, threshold, optimal),) = told
    assert {seed: [r["mean"] for r in lines] for seed, lines in shown.items()} == {
        0: [1.0, 2.0], 3: [5.0]
    }  # fmt: skip
    assert (path, title, threshold) == (run.curve, "dqn on CartPole-v1", 475.0)
    assert optimal == (600.0 if figures else None)


def test_without_an_evaluation_there_is_nothing_to_draw(tmp_path):
    run = folder(tmp_path, None, {0: []})
    learning_curve.draw_curve(run)
    assert not run.curve.exists()
