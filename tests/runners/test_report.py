import io
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from runners import report
from runners.errors import DiskFault
from runners.report import band_of, curve_of, print_summary, solved_by, summary_lines, write_curve
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


def returns(values, interval):
    return {"mean": float(np.mean(values)), "interval": interval, "per_seed": values}


def summary(seeds=2, **more):
    values = [100.0 + 50 * k for k in range(seeds)]
    interval = [80.5, 230.25] if seeds > 1 else None
    return {
        "agent": "dqn", "env": "CartPole-v1", "seeds": list(range(seeds)),
        "env_steps": 1_234_567, "lane_steps": 1_300_000, "updates": 4000, "wall_s": 10.0,
        "env_steps_per_s": 123_456.7, "updates_per_s": 400.0,
        "final_return": returns(values, interval), "best_return": returns(values, interval),
        "solved_at": {"threshold": None, "env_steps": [None] * seeds, "seconds": [None] * seeds},
        "forced_resets": 0, "reproducible": True, "complete": True, **more,
    }  # fmt: skip


def printed(figures):
    stream = io.StringIO()
    print_summary(figures, stream)
    return stream.getvalue()


def cells(text, first):
    """The cells of the row that begins with ``first``."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in row.strip("|").split(" | ")][1:]


# -- Curves --------------------------------------------------------------------------------------


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
    monkeypatch.setattr(report, "save_figure", lambda figure, path: shown.append(figure))
    write_curve({0: records([1.0]), 1: records([1, 2])}, tmp_path / "x.png", "t")
    assert [line.get_marker() for line in shown[0].axes[0].lines[:2]] == ["o", ""]


def test_what_the_picture_holds(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path: shown.append(figure))
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
        "import sys; from runners.report import write_curve\n"
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


# -- Tables --------------------------------------------------------------------------------------


def test_a_row_a_seed_and_the_mean():
    text = printed(summary(2))
    assert text.splitlines()[0] == "dqn on CartPole-v1"
    assert cells(text, "0") == ["100", "100"]
    assert cells(text, "mean") == ["125", "125"]
    assert cells(text, "95 %") == ["80.5 .. 230.2", "80.5 .. 230.2"]
    assert "1.23M env steps in 10.0 s: 123k env steps/s, 400 updates/s" in text
    assert "solved" not in text  # nothing to solve


def test_what_was_solved_and_what_was_not():
    solved = {"threshold": 150.0, "env_steps": [None, 90_000], "seconds": [None, 61.0]}
    text = printed(summary(2, solved_at=solved))
    assert cells(text, "0")[2:] == ["-", "-"]
    assert cells(text, "1")[2:] == ["90k", "1:01"]
    assert cells(text, "mean")[2:] == ["90k (of 1)", "1:01 (of 1)"]
    assert "1 of 2 seeds solved (threshold 150)" in text


def test_one_seed_has_no_mean():
    text = printed(summary(1))
    assert "mean" not in text
    assert "95 %" not in text


def test_finite_mdps_show_the_distance_to_the_truth():
    figures = summary(2, optimal_value=0.74, policy_value=[0.74, 0.7], max_q_error=[0.01, 0.5])
    text = printed(figures)
    assert cells(text.replace("|Q-Q*|", "Q"), "1")[2:] == ["0.7", "0.5"]
    assert cells(text, "optimal") == ["", "", "0.74", ""]
    assert cells(text, "95 %")[2] == "0.4659 .. 0.9741"  # 0.72 +- 12.7062 * 0.02
    clipped = printed(summary(2, optimal_value=1, policy_value=[1, 1], max_q_error=[None, None]))
    assert "Q-Q*" not in clipped


def test_many_seeds_are_aggregated():
    text = printed(summary(11))
    assert cells(text, "lowest") == ["100", "100"]
    assert cells(text, "median") == ["350", "350"]
    assert cells(text, "highest") == ["600", "600"]
    assert len(text.splitlines()) < 14
    assert cells(printed(summary(10)), "9") == ["550", "550"]


def test_what_went_wrong_is_said():
    lines = summary_lines(
        summary(2, reproducible=False, workers_replaced=2, complete=False, eval_limit=1000)
    )
    assert lines[1:] == [
        "evaluation episodes end after 1,000 steps",
        "not complete: some seeds are not done; the same command goes on",
        "not reproducible: workers replaced: 2",
    ]


def test_where_the_time_went_is_said():
    """One line of shares, those that round to nothing left out, and one of advice."""
    time_shares = {"simulate": 0.256, "learn": 0.7, "save": 0.004, "act": 0.04}
    figures = summary(2, time_shares=time_shares, bound="learning", advice="learning-bound: x")
    assert summary_lines(figures)[1:] == [
        "time: learn 70 %, simulate 26 %, act 4 %", "learning-bound: x",
    ]  # fmt: skip


def test_a_pipe_gets_aligned_ascii():
    text = printed(summary(3, env="[red]X[/red]"))
    assert text.isascii()
    table = [line for line in text.splitlines() if line[0] in "|+"]
    assert len({len(line) for line in table}) == 1
    assert text.splitlines()[0] == "dqn on [red]X[/red]"


def test_a_terminal_gets_a_drawn_table(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = io.StringIO()
    stream.isatty = lambda: True
    print_summary(summary(3), stream)
    assert "╭" in stream.getvalue()


def test_the_c_locale_is_no_obstacle():
    code = f"import runners.report as r; r.print_summary({summary(2)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert done.stdout.decode("ascii").startswith("dqn on CartPole-v1\n+--")
    assert done.stderr == b""


# -- Everything at the end of a run --------------------------------------------------------------


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


def test_the_path_is_the_last_line(tmp_path, capsys):
    run = folder(tmp_path, summary(2), {})
    report.show(run)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "dqn on CartPole-v1"
    assert lines[-1] == str(run.path)


def test_quiet_leaves_only_the_path(tmp_path, capsys):
    run = folder(tmp_path, summary(2), {})
    report.show(run, quiet=True)
    assert capsys.readouterr().out == f"{run.path}\n"


@pytest.mark.parametrize("figures", [None, {"optimal_value": 600.0}])
def test_a_run_is_drawn_while_under_way_and_when_done(tmp_path, monkeypatch, figures):
    told = []
    monkeypatch.setattr(report, "write_curve", lambda *args: told.append(args))
    evals = {0: records([1.0, 2.0]), 3: records([5.0])}
    run = folder(tmp_path, figures, evals)
    report.draw_curve(run)
    ((shown, path, title, threshold, optimal),) = told
    assert {seed: [r["mean"] for r in lines] for seed, lines in shown.items()} == {
        0: [1.0, 2.0], 3: [5.0]
    }  # fmt: skip
    assert (path, title, threshold) == (run.curve, "dqn on CartPole-v1", 475.0)
    assert optimal == (600.0 if figures else None)


def test_without_an_evaluation_there_is_nothing_to_draw(tmp_path):
    run = folder(tmp_path, None, {0: []})
    report.draw_curve(run)
    assert not run.curve.exists()
