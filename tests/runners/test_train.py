"""Which groups are trained, what a second start does, and whether --verify-resume would notice."""

import errno
import gc
import json
import subprocess

import pytest
import torch

from runners import files, train, verify
from runners.config import to_json
from runners.console import SilentConsole
from runners.errors import BadInput, RunFailed
from runners.options import Options
from runners.resolve import make_config
from runners.run_folder import Group, RunFolder

SMALL = {"steps": 3_000, "rollout_length": 100, "eval_every": 1_000, "eval_episodes": 2}


def config():
    return make_config("q_learning", "FrozenLake-v1", **SMALL)


@pytest.mark.parametrize(
    ("begun", "seeds", "size", "expected"),
    [
        ([], range(5), 8, [(0, 4)]),
        ([], range(5), 2, [(0, 1), (2, 3), (4, 4)]),
        ([(0, 2)], range(5), 8, [(0, 2), (3, 4)]),  # begun together, go on together
        ([(2, 3)], range(6), 8, [(2, 3), (0, 1), (4, 5)]),  # no group reaches across another
        ([(0, 2), (7, 9)], [0, 1], 8, [(0, 2)]),  # groups nobody asked for are left alone
    ],
)
def test_groups(tmp_path, begun, seeds, size, expected):
    folder = RunFolder(tmp_path)
    for first, last in begun:
        folder.group(Group(first, last))
    assert [tuple(group) for group in train.plan_groups(folder, seeds, size)] == expected


def test_a_finished_run_is_not_trained_twice_and_seeds_can_be_added(tmp_path):
    folder = train.run(config(), [0], str(tmp_path))
    lines = folder.seed(0).metrics.read_bytes()
    again = train.run(config(), [0, 1], str(tmp_path))
    assert again.seed(0).metrics.read_bytes() == lines  # seconds included: nothing was run
    assert again.summary()["seeds"] == [0, 1]
    assert len(again.provenance()) == 2


def test_a_seed_that_another_process_ends_while_we_summarise_is_in_the_summary(
    tmp_path, monkeypatch
):
    write, results = RunFolder.write_summary, []

    def late(folder, summary):
        write(folder, summary)
        if not results:  # seed 1 of another process is done now, and its summary already written
            results.append(folder.seed(1).path / "result.json")
            text = (folder.seed_path(0) / "result.json").read_text()
            results[0].write_text(json.dumps({**json.loads(text), "seed": 1}))

    monkeypatch.setattr(RunFolder, "write_summary", late)
    folder = train.run(config(), range(1), str(tmp_path))
    assert folder.summary()["seeds"] == [0, 1]
    assert train.finished_run(config(), range(2), str(tmp_path))


def test_a_finished_run_is_shown_even_where_nothing_can_be_written(tmp_path, monkeypatch, capsys):
    folder = train.run(config(), [0, 1], str(tmp_path))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_json(config())))
    command = ["--config", str(path), "--seeds", "2", "--out", str(tmp_path)]
    assert train.main(command) == 0  # draws the curve
    starts = len(folder.provenance())

    def full(*_):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(files, "replace", full)
    monkeypatch.setattr(files, "append_line", full)
    assert train.main(command) == 0
    told = capsys.readouterr()
    assert "finished before; --fresh trains it anew" in told.err
    assert told.out.splitlines()[-1] == str(folder.path)
    assert len(folder.provenance()) == starts
    assert train.main([*command[:-4], "--seeds", "3", "--out", str(tmp_path)]) == 4


def test_seeds_that_are_refused_leave_no_folder(tmp_path):
    folder = train.run(config(), [0, 1, 2], str(tmp_path))
    with pytest.raises(BadInput, match="were begun together"), folder.lock(Group(2, 3)):
        pass
    from runners.run_group import is_done

    assert not is_done(folder, Group(2, 3))
    assert folder.seeds() == [0, 1, 2]


@pytest.mark.parametrize("seeds", [[], [-1], [True]])
def test_seeds_are_whole_numbers(tmp_path, seeds):
    with pytest.raises(BadInput, match="seeds: got"):
        train.run(config(), seeds, str(tmp_path))


def test_verify_resume_finds_the_same_bits(tmp_path, capsys):
    assert verify.verify_resume(config(), Options(seeds=2, seed=5)) == 0
    assert "same bits" in capsys.readouterr().out


def test_verify_resume_trains_with_the_workers_that_were_asked_for(monkeypatch):
    asked = []

    def refuses(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(verify.subprocess, "run", refuses)
    with pytest.raises(RunFailed):
        verify.verify_resume(config(), Options(workers=2))
    assert asked[0][asked[0].index("--workers") + 1] == "2"


def test_verify_resume_of_async_workers_is_refused():
    loose = make_config("dqn", "CartPole-v1", async_=True, steps=1_000)
    with pytest.raises(BadInput, match="at their own pace"):
        verify.verify_resume(loose, Options(workers=1))


def test_verify_resume_would_notice_one_different_number(tmp_path):
    a, b = (train.run(config(), [0], str(tmp_path / name)) for name in "ab")
    assert verify.compare(a, b) == []
    path = b.seed(0).evals
    first, *rest = path.read_text().splitlines()
    record = json.loads(first)
    record["seconds"] += 1.0  # a clock may differ
    path.write_text("\n".join([json.dumps(record), *rest]) + "\n")
    assert verify.compare(a, b) == []
    record["returns"][0] += 1.0
    path.write_text("\n".join([json.dumps(record), *rest]) + "\n")
    assert verify.compare(a, b) == ["seed 0's evals.jsonl"]
    other = train.run(
        make_config("q_learning", "FrozenLake-v1", **SMALL, lr=0.4), [0], str(tmp_path)
    )
    assert verify.compare(a, other)[0] == "the last checkpoint of seeds 0-0"


def test_garbage_is_collected_again_after_the_imports():
    """Also where what was asked for is refused; a run of hours must not do without."""
    with train.importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(BadInput), train.importing():
        raise BadInput("x")
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ("none", 0, "checker: no fault in 200 steps"),
        ("float64", 5, "checker: FAULT runs, lane 0, step 4: the observation is float64(1,)"),
    ],
)
def test_an_environment_of_ones_own_is_checked_first(fault, status, said, tmp_path, capsys):
    line = ["dqn", "--env", "tests.envs.test_lanes:FaultyLane-v0", "--steps", "100", "--seeds", "1"]
    assert train.main([*line, "--env-options", f"fault={fault}", "--out", str(tmp_path)]) == status
    assert said in capsys.readouterr().err


def test_what_is_set_for_torch_is_set_for_the_run_alone_and_keeps_float32s_accuracy():
    from runners.train import torch_set

    x, w = (torch.randn(n, 512, generator=torch.Generator().manual_seed(n)) for n in (32, 256))
    exact = x.double() @ w.double().T
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    for fast, name in ((False, before[1]), (True, "medium")):
        with torch_set(2, fast):
            assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (2, name)
            error = (x @ w.T - exact).norm() / exact.norm()
            # a processor with units for bfloat16 matrices may take them: then it is three digits
            assert error < (1e-5 if not (fast and torch.cpu._is_amx_tile_supported()) else 1e-2)
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before


@pytest.mark.parametrize(("steps", "told"), [(1_000, True), (1_008, False)])
def test_a_run_that_ends_before_it_learns_says_so(steps, told, tmp_path):
    lines = []

    class Listening(SilentConsole):
        def message(self, text):
            lines.append(text)

    config = make_config("dqn", "CartPole-v1", steps=steps, learning_starts=1_000, final_episodes=1)
    train.run(config, [0], str(tmp_path), console=Listening())
    said = "nothing will be learned: learning starts at lane step 1,000, the run ends at 1,000"
    assert (said in lines) == told
