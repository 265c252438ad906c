import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from runners import compare, comparison, comparison_report, files, run_report
from runners.references import ATARI
from runners.report import main
from runners.run_folder import RunFolder, create_run
from runners.scores import field_of
from tests.runners.pages import Html, markdown_tables

ROOT = Path(__file__).parents[2]
START = {
    "time": "2026-01-02T03:04:05Z", "command": ["train", "dqn"], "commit": None,
    "versions": {"python": "3.11", "numpy": "2.4"}, "machine": {"cpu": "x", "cores": 2},
}  # fmt: skip


def make_run(
    out, agent="dqn", env="CartPole-v1", seeds=3, level=100.0, points=4, digits="0123456789"
):
    """A run folder as training leaves it, without any training."""
    config = {"agent": agent, "env": env, "env_options": {}, "steps": 1000 * points,
              "hyper": {"lr": level / 1e5, "double": level > 100}}  # fmt: skip
    run = create_run(out, f"{agent}-{env.replace('/', '-')}-{digits}", config)
    finals = []
    for seed in range(seeds):
        noise = np.random.default_rng(seed).normal(0, 10, points + 1)
        returns = (level + noise).tolist()
        finals.append(returns[-1])
        lines = [
            {"lane_steps": 1000 * p, "env_steps": 1000 * p, "updates": p, "seconds": 1.5 * p,
             "mean": value, "returns": [value] * 5}
            for p, value in enumerate(returns[:-1], 1)
        ]  # fmt: skip
        folder = run.seed(seed)
        folder.evals.write_bytes(b"".join(map(files.dump, lines)))
        result = {"seed": seed, "final_returns": [returns[-1]] * 5}
        (folder.path / "result.json").write_bytes(files.dump(result))
    (run.path / "provenance.jsonl").write_bytes(files.dump(START))
    figures = {"mean": float(np.mean(finals)), "interval": [1.0, 2.0], "per_seed": finals}
    run.write_summary(
        {
            "agent": agent, "env": env, "seeds": list(range(seeds)), "env_steps": 4000 * seeds,
            "lane_steps": 4000 * seeds, "updates": 4, "wall_s": 6.0, "env_steps_per_s": 2000.0,
            "updates_per_s": 1.0, "final_return": figures, "best_return": figures,
            "time_shares": {"learn": 0.7, "simulate": 0.3}, "advice": "learning-bound: x",
            "alarms": {"values run away": [0, 2]}, "complete": True,
        }
    )  # fmt: skip
    return run


def last_line(capsys):
    return capsys.readouterr().out.splitlines()[-1]


# -- One run -------------------------------------------------------------------------------------


def test_a_run_has_a_report(tmp_path, capsys):
    run = make_run(tmp_path)
    assert main([str(run.path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "dqn on CartPole-v1"
    assert out[-1] == str(run.path / "report.html")
    text = (run.path / "report.html").read_text("utf-8")
    shown = Html(text)
    assert not shown.errors
    assert shown.said("h2") == [
        "Result", "Learning curve", "Time", "Alarms", "Settings", "Origins"
    ]  # fmt: skip
    rows = {row[0]: row[1:] for rows in shown.tables for row in rows}
    assert rows["mean"][0] == f"{run.summary()['final_return']['mean']:.4g}"
    assert rows["learn"][0] == "70.0%"
    assert rows["lr"] == ["0.001"]
    assert rows["2026-01-02T03:04:05Z"][1] == "python 3.11, numpy 2.4"
    assert any(item.startswith("values run away (seeds 0, 2): ") for item in shown.said("li"))
    assert {path.name for path in run.path.glob("*.png")} == {"curve.png", "times.png"}
    plain = [[" ".join(cell.split()) for cell in row] for table in shown.tables for row in table]
    told = (run.path / "report.md").read_text("utf-8")
    assert plain == [row for table in markdown_tables(told) for row in table]


def test_what_a_run_does_not_tell_is_no_obstacle(tmp_path, capsys):
    run = make_run(tmp_path, seeds=1)
    summary = {
        name: value
        for name, value in run.summary().items()
        if name not in ("time_shares", "alarms", "advice")
    }
    run.write_summary(summary)
    (run.path / "provenance.jsonl").unlink()
    assert main([str(run.path), "--quiet"]) == 0
    assert capsys.readouterr().out == f"{run.path / 'report.html'}\n"
    assert "Where the time went was not kept." in (run.path / "report.md").read_text("utf-8")


def test_a_real_run_has_a_report(lake, tmp_path):
    own = shutil.copytree(lake.path, tmp_path / lake.name)
    path = run_report.write(RunFolder(own))
    shown = Html(path.read_text("utf-8"))
    assert not shown.errors
    assert "policy value" in [cell for row in shown.tables[0] for cell in row]
    assert len(shown.of("svg")) == len(shown.of("figcaption")) >= 2


# -- Several -------------------------------------------------------------------------------------


def test_several_runs_are_compared(tmp_path, capsys):
    for agent, level in (("dqn", 100.0), ("pqn", 160.0)):
        make_run(tmp_path, agent, level=level, seeds=6)
    assert main(["dqn", "pqn", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("pqn is better than dqn: IQM higher by ")
    path = Path(out[-1])
    assert path.parent.parent == tmp_path
    assert json.loads((path.parent / "compare.json").read_text())["verdict"] == [out[0]]
    shown = Html(path.read_text("utf-8"))
    assert shown.said("li")[0].replace("\u00a0", " ") == out[0]
    assert ["lr", "0.001", "0.0016"] in [row for rows in shown.tables for row in rows]
    assert main(["dqn", "pqn", "--out", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr().out == f"{path}\n"


def test_a_table_is_compared(tmp_path, capsys):
    path = tmp_path / "scores.csv"
    path.write_text(
        "agent,env,seed,score\n" + "".join(f"{a},E,{k},{k}\n" for a in "ab" for k in range(5))
    )
    assert main([str(path), "--out", str(tmp_path)]) == 0
    assert last_line(capsys).endswith("report.html")


# -- Bad input -----------------------------------------------------------------------------------


def break_config(run, **more):
    config = run.config()
    (run.path / "config.json").write_bytes(files.dump({**config, **more}))


def newer(run):
    break_config(run, tomorrow=1)


def no_agent(run):
    config = run.config()
    del config["agent"]
    (run.path / "config.json").write_bytes(files.dump(config))


def not_done(run):
    for seed in run.seeds():
        (run.seed(seed).path / "result.json").unlink()


def no_evals(run):
    run.seed(1).evals.unlink()


def old_evals(run):
    run.seed(1).evals.write_bytes(files.dump({"lane_steps": 1, "mean": 1.0}))


def torn_result(run):
    (run.seed(1).path / "result.json").write_text('{"seed": 1, "fin')


def damaged_evals(run):
    run.seed(1).evals.write_text('{"a": \n{}\n')


def no_summary(run):
    (run.path / "summary.json").unlink()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (newer, "config.json is of another version: tomorrow: no such setting"),
        (no_agent, "config.json is damaged: it has no agent"),
        (not_done, "no seed is done; the command that began it goes on"),
        (no_evals, "seed 1 is half written: it is done, but evals.jsonl is not whole"),
        (old_evals, "seed 1 is half written: it is done, but evals.jsonl is not whole"),
        (torn_result, "seed 1 is damaged: "),
        (damaged_evals, "seed 1 is damaged: "),
        (no_summary, "has no summary yet"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_folder_that_is_not_whole_is_refused_in_one_line(broken, words, tmp_path, capsys):
    run = make_run(tmp_path)
    broken(run)
    before = sorted(run.path.iterdir())
    assert main([str(run.path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert words in told.err
    assert told.err.count("\n") == 1
    assert sorted(run.path.iterdir()) == before


def test_one_of_several_that_is_not_whole_is_named(tmp_path, capsys):
    good, bad = make_run(tmp_path), make_run(tmp_path, "pqn")
    no_evals(bad)
    assert main([str(good.path), str(bad.path)]) == 2
    assert str(bad.path) in capsys.readouterr().err


def test_a_run_that_there_is_not_is_answered_with_the_nearest(tmp_path, capsys):
    make_run(tmp_path, "dqn")
    make_run(tmp_path, "q_learning", "FrozenLake-v1")
    assert main(["q_lerning-FrozenLake", "--out", str(tmp_path)]) == 2
    assert "did you mean q_learning-FrozenLake-v1-0123456789?" in capsys.readouterr().err
    assert main([str(tmp_path / "dqn-CartPole-v1-012345678")]) == 2
    assert "did you mean dqn-CartPole-v1-0123456789?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "the following arguments are required: RUN"),
        (["--colour", "red"], "unrecognized arguments: --colour"),
        (["x.csv"], "x.csv: cannot be read as a table"),
    ],
)
def test_a_wrong_command_line_is_one_line(argv, words, capsys):
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_help_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys; from runners.report import main\n"
        "assert main(['--help']) == 0\n"
        "assert not {'torch', 'matplotlib', 'scipy', 'gymnasium'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "python -m runners.report last" in done.stdout


def many_runs(out, envs, seeds):
    """Runs of four agents on so many environments; their paths."""
    for a, agent in enumerate(("dqn", "pqn", "c51", "iqn")):
        for env in [f"ALE/{game}-v5" for game in ATARI][:envs]:
            make_run(out, agent, env, seeds=seeds, level=100.0 + 30 * a, points=20)
    return sorted(str(path) for path in out.iterdir())


@pytest.mark.slow
def test_two_hundred_runs_are_compared_and_reported_in_ten_seconds(tmp_path):
    """Twenty folders of ten seeds, from the command's start to its end."""
    runs = many_runs(tmp_path, envs=5, seeds=10)
    before = time.process_time()  # of our own: the machine may be busy
    assert main([*runs, "--out", str(tmp_path), "--quiet"]) == 0
    assert time.process_time() - before < 10


@pytest.mark.slow
def test_two_hundred_folders_are_reported_in_ten_seconds(tmp_path):
    """A thousand seeds on fifty environments; what is compared is known already."""
    runs = many_runs(tmp_path, envs=50, seeds=5)
    assert len(runs) == 200
    made = comparison.compare(field_of(compare.read(runs, str(tmp_path))))
    before = time.process_time()
    path = comparison_report.write(made, tmp_path)
    assert time.process_time() - before < 10
    assert path.stat().st_size < 3_000_000
