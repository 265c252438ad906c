import json
import math
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from runners import faults, provenance
from runners.errors import BadInput, DiskFault, RunFailed
from runners.run_folder import Group, RunFolder, create_run, find_run, set_aside

CONFIG = {"agent": "toy", "env": "X-v0", "hyper": {"lr": 0.1}}


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path, "toy-X-v0-0123456789", CONFIG)


def child(program, *arguments, **more):
    """Start a Python process that has the run folder's path as its first argument."""
    code = "import sys\nfrom pathlib import Path\n" + textwrap.dedent(program)
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


# -- JSON lines ------------------------------------------------------------------------------------


def test_lines_come_back_in_order(run):
    seed = run.seed(3)
    for step in range(5):
        seed.add_metrics({"lane_steps": step, "loss": np.float32(0.5), "per": np.arange(2)})
    records, torn = seed.read_metrics()
    assert [record["lane_steps"] for record in records] == list(range(5))
    assert records[0] == {"lane_steps": 0, "loss": 0.5, "per": [0, 1]}
    assert torn == 0


def test_what_json_does_not_know_is_null(run):
    seed = run.seed(0)
    seed.add_eval({"a": math.nan, "b": [np.inf, 1.0], "c": np.array([np.nan])})
    assert seed.read_evals().records == [{"a": None, "b": [None, 1.0], "c": [None]}]
    assert "NaN" not in seed.evals.read_text()


def test_no_file_is_no_lines(run):
    assert run.seed(0).read_metrics() == ([], 0)


@pytest.mark.parametrize("tail", ['{"lane_st', '{"lane_steps": 3}', "\0\0"])
def test_a_torn_last_line_is_dropped_and_counted(run, tail):
    seed = run.seed(0)
    seed.add_metrics({"lane_steps": 1})
    with seed.metrics.open("a") as file:
        file.write(tail)
    assert seed.read_metrics() == ([{"lane_steps": 1}], 1)


@pytest.mark.parametrize("line", ['{"lane_st', "3", ""])
def test_a_damaged_middle_line_is_an_error_with_its_number(run, line):
    path = run.seed(0).metrics
    path.write_text(f'{{"lane_steps": 1}}\n{line}\n{{"lane_steps": 2}}\n')
    with pytest.raises(RunFailed, match=r"metrics\.jsonl: line 2 is damaged"):
        run.seed(0).read_metrics()


def test_cut_goes_back_to_a_checkpoint(run):
    seed = run.seed(0)
    for step in (0, 10, 20, 30):
        seed.add_metrics({"lane_steps": step})
        seed.add_eval({"lane_steps": step, "returns": [1.5]})
    with seed.metrics.open("a") as file:
        file.write('{"torn')
    assert seed.cut(20) == 3
    assert [r["lane_steps"] for r in seed.read_metrics().records] == [0, 10, 20]
    assert [r["lane_steps"] for r in seed.read_evals().records] == [0, 10, 20]
    seed.add_metrics({"lane_steps": 25})
    assert [r["lane_steps"] for r in seed.read_metrics().records] == [0, 10, 20, 25]
    assert seed.cut(25) == 0


def test_sync_makes_every_record_durable(run, monkeypatch):
    seed = run.seed(0)
    seed.add_metrics({"lane_steps": 1})
    seed.add_eval({"lane_steps": 1})  # there is no health
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    seed.sync()
    assert synced == [path.stat().st_ino for path in (seed.metrics, seed.evals)]


def test_acknowledged_lines_survive_kill_9(run):
    process = child(
        """
        from runners.run_folder import RunFolder
        seed = RunFolder(Path(sys.argv[1])).seed(0)
        for step in range(10**9):
            seed.add_metrics({"lane_steps": step, "pad": "x" * 500})
            print(step, flush=True)
        """,
        run.path,
    )
    printed = [process.stdout.readline() for _ in range(200)]
    process.kill()
    printed += process.stdout.readlines()
    process.wait()
    last = int(printed[-1] if printed[-1].endswith("\n") else printed[-2])
    records, torn = run.seed(0).read_metrics()
    assert torn == 0
    assert [record["lane_steps"] for record in records[: last + 1]] == list(range(last + 1))


# -- The folder ------------------------------------------------------------------------------------


def test_a_new_folder_holds_its_configuration(run):
    assert run.config() == CONFIG
    assert run.summary() is None
    assert (run.seeds(), run.groups(), run.provenance()) == ([], [], [])
    again = create_run(run.path.parent, run.name, CONFIG)
    assert again.path == run.path


def test_seeds_and_groups_are_found_in_order(run):
    for seed in (10, 9, 0):
        run.seed(seed)
    run.group(Group(9, 10))
    run.group(Group(0, 0))
    assert run.seeds() == [0, 9, 10]
    assert run.groups() == [Group(0, 0), Group(9, 10)]


def test_another_configuration_in_the_folder_is_named(run):
    with pytest.raises(BadInput, match=r"lr: 0\.2 here, 0\.1 there"):
        create_run(run.path.parent, run.name, CONFIG | {"hyper": {"lr": 0.2}})


@pytest.mark.parametrize("text", ["{", "[]", "\0"])
def test_a_damaged_configuration_is_named(run, text):
    (run.path / "config.json").write_text(text)
    with pytest.raises(BadInput, match=r"config\.json: damaged"):
        run.config()


def test_summary_is_replaced_whole(run):
    run.write_summary({"mean": 1.0})
    run.write_summary({"mean": np.float64(math.nan), "seeds": [0]})
    assert run.summary() == {"mean": None, "seeds": [0]}
    assert not list(run.path.glob(".tmp*"))


def test_provenance_is_a_line_a_start(run):
    run.record_start(["train", "toy"], seeds=[0, 1])
    run.record_start(["train", "toy"])
    first, second = run.provenance()
    assert first["command"] == ["train", "toy"]
    assert first["seeds"] == [0, 1]
    assert first["versions"]["torch"]
    assert first["machine"]["cores"] >= 1
    assert set(second) >= {"time", "command", "versions", "commit", "machine"}


def test_commit_is_null_without_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.commit() is None
    # somebody else's checkout around an installed copy
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "provenance.py").write_text("")
    assert provenance.commit() is None


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", "", "x" * 101, "a\0b", "-rf"])
def test_names_that_leave_the_parent_are_refused(tmp_path, name):
    with pytest.raises(BadInput, match="no name for a run folder"):
        create_run(tmp_path / "runs", name, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_links_are_refused(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (run.path / "seed-0").symlink_to(elsewhere)
    (run.path / "groups").symlink_to(elsewhere)
    (run.path / "summary.json").symlink_to(elsewhere / "x")
    (run.path.parent / "linked").symlink_to(run.path)
    for touch in (
        lambda: run.seed(0),
        lambda: run.group(Group(0, 1)),
        lambda: run.write_summary({}),
        lambda: find_run(str(run.path.parent / "linked")),
        lambda: create_run(run.path.parent, "linked", CONFIG),
    ):
        with pytest.raises(BadInput, match="symbolic link"):
            touch()
    assert list(elsewhere.iterdir()) == []
    run.seed(1).metrics.symlink_to(elsewhere / "metrics")
    with pytest.raises(OSError, match="symbolic"):
        run.seed(1).add_metrics({"lane_steps": 0})


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(BadInput, match="no folder can be made here"):
        create_run(tmp_path / "runs", "toy", CONFIG)
    with pytest.raises(BadInput, match="no folder can be made here"):
        create_run("/proc/runs", "toy", CONFIG)


def test_a_folder_that_cannot_be_written_is_a_disk_fault(tmp_path, monkeypatch):
    def refuse(self, data):
        raise PermissionError(13, "Permission denied", str(self))

    # the tests may run as root, whom permissions do not stop
    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    with pytest.raises(DiskFault, match="Permission denied"):
        create_run(tmp_path, "toy", CONFIG)


def test_a_full_disk_while_writing_lines(run, monkeypatch):
    monkeypatch.setenv("QLAB_FAULT", "line.write:1:enospc")
    monkeypatch.setattr(faults, "_seen", type(faults._seen)())
    with pytest.raises(DiskFault, match="No space left"):
        run.seed(0).add_metrics({"lane_steps": 0})


def test_a_full_disk_while_replacing_leaves_the_old_file(run, monkeypatch):
    run.write_summary({"a": 1})
    for point in ("create", "write", "sync", "rename"):
        monkeypatch.setenv("QLAB_FAULT", f"summary.{point}:1:enospc")
        monkeypatch.setattr(faults, "_seen", type(faults._seen)())
        with pytest.raises(DiskFault):
            run.write_summary({"a": 2})
        assert run.summary() == {"a": 1}
        assert not list(run.path.glob(".tmp*"))


# -- Locks -----------------------------------------------------------------------------------------

HOLD = """
from runners.run_folder import Group, RunFolder
with RunFolder(Path(sys.argv[1])).lock(Group(0, 4)):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_who_has_the_lock(run):
    process = child(HOLD, run.path)
    assert process.stdout.readline() == "held\n"
    with (
        pytest.raises(BadInput, match=f"trained by process {process.pid} on"),
        run.lock(Group(0, 4)),
    ):
        pass
    with run.lock(Group(5, 9)):  # other seeds are free
        pass
    with pytest.raises(BadInput, match=str(process.pid)):
        run.set_aside()
    process.communicate("")
    with run.lock(Group(0, 4)):
        pass


def test_a_dead_process_frees_its_lock(run):
    process = child(HOLD, run.path)
    assert process.stdout.readline() == "held\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with run.lock(Group(0, 4)):
        owner = json.loads((run.group(Group(0, 4)) / "lock").read_text())
        assert owner["pid"] == os.getpid()


def test_groups_do_not_overlap(run):
    with run.lock(Group(0, 4)):
        pass
    with pytest.raises(BadInput, match="go on with --seed 0 --seeds 5"), run.lock(Group(4, 6)):
        pass
    assert run.groups() == [Group(0, 4)]


# -- Finding and setting aside ---------------------------------------------------------------------


def test_set_aside_keeps_everything(run):
    run.write_summary({"a": 1})
    aside = run.set_aside()
    assert aside.name == f"{run.name}.old-1"
    assert RunFolder(aside).summary() == {"a": 1}
    assert not run.path.exists()
    create_run(run.path.parent, run.name, CONFIG)
    assert run.set_aside().name == f"{run.name}.old-2"


def test_set_aside_by_name(run):
    assert set_aside(run.path.parent, "nothing-here") is None
    assert set_aside(run.path.parent, "..") is None
    assert set_aside(run.path.parent, run.name) == run.path.with_name(f"{run.name}.old-1")
    assert set_aside(run.path.parent, run.name) is None


def test_finding_runs(tmp_path):
    for name in ("dqn-A-1", "dqn-B-2", "pqn-A-3"):
        create_run(tmp_path, name, CONFIG)
    os.utime(tmp_path / "dqn-B-2" / "config.json", (2e9, 2e9))
    (tmp_path / "not-a-run").mkdir()
    assert find_run("p", tmp_path).name == "pqn-A-3"
    assert find_run("dqn-A", tmp_path).name == "dqn-A-1"
    assert find_run("dqn-A-1", tmp_path).name == "dqn-A-1"
    assert find_run("last", tmp_path).name == "dqn-B-2"
    assert find_run(str(tmp_path / "dqn-A-1")).name == "dqn-A-1"
    with pytest.raises(BadInput, match=r"2 runs begin so; there are dqn-A-1, dqn-B-2$"):
        find_run("dqn", tmp_path)
    with pytest.raises(BadInput, match=r"no run begins so; there are dqn-A-1, dqn-B-2, pqn-A-3$"):
        find_run("sac", tmp_path)
    with pytest.raises(BadInput, match="no run folder"):
        find_run("not-a-run", tmp_path)
    with pytest.raises(BadInput, match="there are no runs"):
        find_run("last", tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no run folder"):
        find_run("../dqn-A-1", tmp_path)


def test_an_exact_name_wins_and_old_runs_do_not_count(tmp_path):
    create_run(tmp_path, "dqn-A-1", CONFIG).set_aside()
    create_run(tmp_path, "dqn-A-1", CONFIG)
    assert find_run("dqn", tmp_path).name == "dqn-A-1"
    assert find_run("dqn-A-1.old-1", tmp_path).name == "dqn-A-1.old-1"
    assert find_run("last", tmp_path).name == "dqn-A-1"


def test_last_is_the_latest_start(tmp_path):
    first, second = (create_run(tmp_path, name, CONFIG) for name in ("a", "b"))
    second.record_start(["train"])
    os.utime(second.path / "provenance.jsonl", (1e9, 1e9))
    first.record_start(["train"])
    assert find_run("last", tmp_path).name == "a"


def test_many_candidates_are_not_all_listed(tmp_path):
    for number in range(20):
        create_run(tmp_path, f"run-{number:02}", CONFIG)
    with pytest.raises(BadInput, match="run-07 and 12 more"):
        find_run("run", tmp_path)


def test_what_a_kill_or_a_full_disk_left_behind(tmp_path):
    run = create_run(tmp_path, "dqn-CartPole-v1-0123456789", {"lr": 1})
    run.record_start(["train"])
    with (run.path / "provenance.jsonl").open("a") as file:
        file.write('{"time": "2026')  # the disk was full here
    run.record_start(["train", "again"])
    assert [start["command"] for start in run.provenance()] == [["train"], ["train", "again"]]
    seed = run.seed(0)
    seed.best.mkdir()
    (seed.best / ".tmp-123-weights.safetensors").write_bytes(b"half")
    seed.cut(0)
    assert list(seed.best.iterdir()) == []
