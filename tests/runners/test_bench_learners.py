"""What is measured of several learners: medians of what is censored, what is trained, the picture."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import pytest

from runners import bench, bench_learners, bench_scaling
from runners.bench_scaling import Outcome, Setting
from runners.command_line import parse_train
from runners.errors import RunFailed


def test_who_was_not_solved_took_longer_than_all_that_were():
    # 30 of a seed that was stopped early counts as more than the 90 of one that got there
    values, solved = [50.0, 30.0, 90.0], [True, False, True]
    assert bench_scaling.median(values, solved) == (90.0, True)
    assert bench_scaling.told(values, solved, "{:.0f}".format) == "90 [50 .. >30]"
    # the greater of two in the middle, and what is only known to be greater says so
    assert bench_scaling.median([1.0, 2.0, 3.0, 4.0], [True] * 4) == (3.0, True)
    assert (
        bench_scaling.told([1.0, 9.0, 9.0], [True, False, False], "{:.0f}".format) == ">9 [1 .. >9]"
    )


def test_every_way_is_the_same_batch_and_lanes_at_one_learner_and_two(monkeypatch, tmp_path):
    seen = set()
    for setting in bench_scaling.settings():
        command = setting.command(str(tmp_path))
        if setting.learners > 1:
            assert command[1:5] == [
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
            ]
            for name, value in {
                "WORLD_SIZE": 2,
                "RANK": 0,
                "MASTER_ADDR": "a",
                "MASTER_PORT": 1,
            }.items():
                monkeypatch.setenv(name, str(value))
        made = parse_train(command[command.index("runners.train") + 1 :])
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        c = made.config
        assert c.learners == setting.learners
        assert c.lanes_of_all == 32
        assert c.hyper.minibatch_size * c.learners == setting.batch
        assert c.hyper.lr_scaling == setting.rule
        assert c.until_solved
        assert len(made.seeds) == 6
        seen.add((setting.batch, setting.rule, setting.learners))
    assert len(seen) == len(bench_scaling.settings()) == 2 * (1 + 3 * 3)


def outcome(setting, solved=True):
    values = [float(10 * (i + 1)) for i in range(6)]
    return Outcome(setting, [1e3 * v for v in values], values, [*[True] * 5, solved])


def test_a_table_and_a_picture(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench_scaling, "train", lambda way: outcome(way, way.batch < 1_024))
    path = tmp_path / "s.png"
    assert bench.main(["scaling", "--picture", str(path)]) == 0
    said = capsys.readouterr().out
    assert "batch 1,024, lr sqrt, 2 learners" in said
    assert "40k [10k .. >60k] env steps" in said
    assert "5 of 6 solved" in said
    assert path.read_bytes().startswith(b"\x89PNG")


def test_what_a_run_came_to(monkeypatch, tmp_path):
    lines = {1: [{"env_steps": 900, "seconds": 9.0}], 2: [{"env_steps": 700, "seconds": 7.0}]}
    run = SimpleNamespace(
        summary=lambda: {
            "seeds": [1, 2], "solved_at": {"env_steps": [500, None], "seconds": [5.0, None]},
        },
        seed=lambda seed: SimpleNamespace(read_evals=lambda: SimpleNamespace(records=lines[seed])),
    )  # fmt: skip
    monkeypatch.setattr("runners.run_folder.RunFolder", lambda path: run)
    done = SimpleNamespace(returncode=0, stdout="x/run\n", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *args, **more: done)
    found = bench_scaling.train(Setting(128, 1, "none"))
    assert found[1:] == ([500, 700], [5.0, 7.0], [True, False])
    done.returncode, done.stderr = 1, "error: no"
    with pytest.raises(RunFailed, match="batch 128, lr as it is, 1 learner: error: no"):
        bench_scaling.train(Setting(128, 1, "none"))


def test_rounds_of_two_learners(monkeypatch):
    rounds = [
        {"alone": 100.0, "together": 190.0, "average": 0.002},
        {"alone": 50.0, "together": 90.0, "average": 0.004},
    ]
    said = "a line of torchrun\n" + "\n".join(map(json.dumps, rounds)) + "\n"
    done = SimpleNamespace(returncode=0, stdout=said, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *args, **more: done)
    one, two, middle, average = bench_learners.parallel()
    assert (one.ratio, two.ratio) == (1.9, 1.8)
    assert middle.ratio == pytest.approx(1.85)  # of ratios, each of one round
    assert average.figure == "3.0 ms"
