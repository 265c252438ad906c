import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from runners import report
from runners.report import print_summary, summary_lines
from tests.runners.test_learning_curve import folder

ROOT = Path(__file__).parents[2]


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
