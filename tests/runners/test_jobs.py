"""Jobs that end in every way there is, and the ends of who supervises them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from runners import train
from runners.config import run_name, to_json
from runners.jobs import Job, Supervisor, run_jobs
from runners.jobs_panel import trained_share
from runners.processes import read_tail
from runners.resolve import make_config
from runners.run_folder import RunFolder
from tests.runners.jobs import SAVES, Seen, job, until


def test_long_names_that_begin_alike_have_logs_of_their_own(tmp_path):
    # as of an agent with many flags on two environments
    flags = "dqn " + "--replay-ratio 0.25 " * 10
    jobs = [job(f"{flags}on {env}", f"print('{env}')") for env in "AB"]
    assert [o.tail for o in run_jobs(jobs, 2, logs=tmp_path)] == ["A\n", "B\n"]


# -- How jobs end --------------------------------------------------------------------------------


def test_outcomes_come_in_the_order_of_the_jobs_and_each_ran_once(tmp_path):
    jobs = [
        job(f"j{i}", f"import time; time.sleep({0.05 * (3 - i)}); print({i})") for i in range(4)
    ]
    seen = Seen()
    outcomes = run_jobs(jobs, 2, logs=tmp_path / "logs", watcher=seen)
    assert [o.job.name for o in outcomes] == ["j0", "j1", "j2", "j3"]
    assert [(o.status, o.code, o.attempts, o.tail) for o in outcomes] == [
        ("done", 0, 1, f"{i}\n") for i in range(4)
    ]
    assert sorted(e for e in seen.events if e[0] == "started") == [
        ("started", f"j{i}", 1) for i in range(4)
    ]
    # they begin in the order in which they were submitted
    assert [name for kind, name, _ in seen.events if kind == "started"] == ["j0", "j1", "j2", "j3"]


def test_no_more_run_at_once_than_may(tmp_path):
    # each leaves its start and its end on one clock, CLOCK_MONOTONIC, for all processes
    code = "import time; a = time.monotonic(); time.sleep(0.15); print(a, time.monotonic())"
    outcomes = run_jobs([job(f"j{i}", code) for i in range(7)], 3, logs=tmp_path)
    spans = [tuple(map(float, o.tail.split())) for o in outcomes]
    together = [sum(a <= start < b for a, b in spans) for start, _ in spans]
    assert max(together) <= 3
    assert max(together) > 1  # and they do run side by side


@pytest.mark.parametrize(
    ("code", "status", "exit_code", "attempts", "line"),
    [
        ("import sys; print('x'); sys.exit('error: the loss is nan')", "failed", 1, 1, "the loss is nan"),
        ("import sys; print('error: lr: got -1', file=sys.stderr); sys.exit(2)", "failed", 2, 1, "lr: got -1"),
        ("import sys; sys.exit(3)", "failed", 3, 1, "exit status 3"),
        ("import sys; print('error: no workers'); sys.exit(5)", "failed", 5, 3, "no workers"),
        ("import sys; sys.exit(143)", "failed", 143, 3, "exit status 143"),
        ("import os; os.kill(os.getpid(), 9)", "failed", -9, 3, "killed by SIGKILL"),
        ("import os; os.kill(os.getpid(), 11)", "failed", -11, 3, "killed by SIGSEGV"),
        ("1/0", "failed", 1, 1, "ZeroDivisionError: division by zero"),
    ],
)  # fmt: skip
def test_every_status_has_its_outcome_and_the_others_go_on(
    tmp_path, code, status, exit_code, attempts, line
):
    ended, other = run_jobs([job("bad", code), job("good", "print(1)")], 1, logs=tmp_path)
    assert (ended.status, ended.code, ended.attempts) == (status, exit_code, attempts)
    assert line in ended.line
    assert other.status == "done"


def test_a_command_that_is_not_there_fails_and_the_others_go_on(tmp_path):
    missing = Job("missing", [str(tmp_path / "no-such-program")])
    ended, other = run_jobs([missing, job("good", "pass")], 2, logs=tmp_path)
    assert ended.status == "failed"
    assert ended.attempts == 1
    assert "no-such-program cannot be started: No such file" in ended.line
    assert other.status == "done"


@pytest.mark.parametrize("ends", ["os.kill(os.getpid(), 9)", "os._exit(5)"])
def test_what_was_killed_is_begun_again_and_goes_on(tmp_path, ends):
    mark = tmp_path / "mark"
    code = (
        f"import os, pathlib; p = pathlib.Path({str(mark)!r})\n"
        f"print('life', p.exists(), flush=True)\n"
        f"if not p.exists(): p.touch(); {ends}\n"
    )
    seen = Seen()
    (outcome,) = run_jobs([job("j", code)], logs=tmp_path, watcher=seen)
    assert (outcome.status, outcome.code, outcome.attempts) == ("done", 0, 2)
    assert outcome.tail == "life True\n"  # of the last attempt alone
    assert (tmp_path / "j.log").read_text() == "life False\nlife True\n"  # the log has all
    assert seen.events == [
        ("started", "j", 1), ("again", "j", 1), ("started", "j", 2), ("ended", "j", 2),
    ]  # fmt: skip


def test_a_job_killed_from_outside_is_begun_again(tmp_path):
    mark = tmp_path / "mark"
    code = (
        f"import pathlib, time; p = pathlib.Path({str(mark)!r})\n"
        "import os\n"
        "if not p.exists(): p.write_text(str(os.getpid())); time.sleep(60)\n"
    )
    killed = []

    def kill(running):
        if mark.exists() and (text := mark.read_text()) and not killed:
            killed.append(int(text))
            os.kill(int(text), signal.SIGKILL)

    (outcome,) = run_jobs([job("j", code)], logs=tmp_path, watcher=Seen(kill))
    assert killed
    assert (outcome.status, outcome.attempts) == ("done", 2)


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_one_that_is_not(tmp_path):
    """``kill -9`` of a training run under way: the next attempt goes on to the same result."""
    config = make_config("q_learning", "Taxi-v4", steps=4_000_000, eval_every=200_000)
    whole = train.run(config, [3], tmp_path / "whole")
    file, run = tmp_path / "config.json", tmp_path / "killed" / run_name(config)
    file.write_text(json.dumps(to_json(config)))
    killed = []

    def kill(running):
        if not killed and trained_share(run, [3], config.steps) > 0.3:
            killed.append(running[0].pid)
            os.kill(running[0].pid, signal.SIGKILL)

    argv = [
        sys.executable,
        "-m",
        "runners.train",
        "--config",
        str(file),
        "--seed",
        "3",
        "--seeds",
        "1",
    ]
    (outcome,) = run_jobs(
        [Job("train", [*argv, "--out", str(tmp_path / "killed")])],
        logs=tmp_path / "logs", watcher=Seen(kill),
    )  # fmt: skip
    assert killed
    assert (outcome.status, outcome.attempts) == ("done", 2)
    assert outcome.tail.splitlines()[-1] == str(run)
    assert trained_share(run, [3], config.steps) == 1
    for name in ("final_return", "best_return", "env_steps", "updates"):
        assert RunFolder(run).summary()[name] == whole.summary()[name]


def test_no_retries_where_none_are_wanted(tmp_path):
    (outcome,) = run_jobs([job("j", "import os; os._exit(5)")], logs=tmp_path, retries=0)
    assert (outcome.status, outcome.attempts) == ("failed", 1)


# -- What they say -------------------------------------------------------------------------------


def test_the_tail_is_bounded_and_the_log_is_whole(tmp_path):
    code = "for i in range(20000): print(i)\nraise SystemExit(1)"
    (outcome,) = run_jobs([job("j", code)], logs=tmp_path)
    assert len(outcome.tail) == 8192
    assert outcome.line == "19999"
    assert (tmp_path / "j.log").read_text() == "".join(f"{i}\n" for i in range(20000))


def test_bytes_that_are_no_text_are_no_trouble(tmp_path):
    code = "import os; os.write(1, bytes(range(256)) + b'\\xff\\xfe\\xed\\xa0\\x80\\n'); os.write(2, 'Größe ∞\\n'.encode()); os._exit(1)"
    (outcome,) = run_jobs([job("j", code)], logs=tmp_path)
    assert outcome.line == "Größe ∞"
    assert "�" in outcome.tail
    assert (tmp_path / "j.log").read_bytes()[:256] == bytes(range(256))


def test_a_tail_that_begins_within_a_letter(tmp_path):
    path = tmp_path / "log"
    path.write_bytes("∞".encode() * 3)  # 9 bytes; the last 4 begin with the third of a letter's
    assert read_tail(path, 0, 4) == "�∞"
    assert read_tail(path, 6, 4) == "∞"
    assert read_tail(tmp_path / "none") == ""


def test_jobs_have_one_thread_no_input_and_a_session_of_their_own(tmp_path):
    code = (
        "import os, sys\n"
        "print([os.environ[n + '_NUM_THREADS'] for n in ('OMP', 'MKL', 'OPENBLAS')],\n"
        "      repr(sys.stdin.read()), os.getsid(0) == os.getpid())"
    )
    (outcome,) = run_jobs([job("j", code)], logs=tmp_path)
    assert outcome.tail == "['1', '1', '1'] '' True\n"


def test_arguments_reach_no_shell(tmp_path):
    odd = ["a b", "$(touch x)", "*", "", "; ls", "\n", "ünï"]
    code = "import sys; print(sys.argv[1:])"
    (outcome,) = run_jobs(
        [Job("a/b: c*", [sys.executable, "-I", "-S", "-c", code, *odd])], logs=tmp_path
    )
    assert outcome.tail == f"{odd}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a-b-c-.log"]


# -- One by one ----------------------------------------------------------------------------------


def test_jobs_may_be_added_as_results_come(tmp_path):
    with Supervisor(tmp_path, 2) as supervisor:
        supervisor.submit(job("1", "print(1)"))
        total = []
        while (outcome := supervisor.wait_any()) is not None:
            total.append(int(outcome.tail))
            if total[-1] < 4:
                supervisor.submit(job(str(total[-1] + 1), f"print({total[-1] + 1})"))
        assert supervisor.unfinished == 0
        assert supervisor.wait_any() is None
    assert total == [1, 2, 3, 4]


def test_one_job_may_be_stopped_and_the_others_go_on(tmp_path):
    saved = tmp_path / "saved"
    with Supervisor(tmp_path, 1, grace=10) as supervisor:
        for one in (job("a", SAVES.format(str(saved))), job("b", "pass"), job("c", "pass")):
            supervisor.submit(one)
        until(lambda: supervisor.wait_any(0.05) is None and read_tail(tmp_path / "a.log"))
        supervisor.stop("a")
        supervisor.stop("c")
        ended = {}
        while (outcome := supervisor.wait_any()) is not None:
            ended[outcome.job.name] = outcome.status, outcome.attempts
    assert ended == {"a": ("stopped", 1), "b": ("done", 1), "c": ("stopped", 0)}
    assert saved.read_text() == "saved"


def test_two_jobs_of_one_name_are_refused_while_the_first_goes_on(tmp_path):
    with Supervisor(tmp_path, 1) as supervisor:
        supervisor.submit(job("a/b", "pass"))
        with pytest.raises(ValueError, match="one of that name"):
            supervisor.submit(job("a:b", "pass"))  # the same log
        assert supervisor.wait_any().status == "done"
        supervisor.submit(job("a/b", "pass"))
        assert supervisor.wait_any().status == "done"


def test_a_wait_ends_when_its_time_is_up(tmp_path):
    with Supervisor(tmp_path, 1, grace=0.1) as supervisor:
        supervisor.submit(job("j", "import time; time.sleep(60)"))
        began = time.monotonic()
        assert supervisor.wait_any(0.1) is None
        assert 0.1 <= time.monotonic() - began < 2
        assert supervisor.unfinished == 1


def test_as_many_at_once_as_there_are_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5})
    assert Supervisor(tmp_path).at_once == 3


def test_twenty_jobs_cost_little_more_than_their_processes(tmp_path):
    """150 ms a job are allowed beyond its own start; it takes about 20."""
    count, argv = 20, [sys.executable, "-I", "-S", "-c", "pass"]
    began = time.perf_counter()
    for _ in range(count):
        subprocess.run(argv, check=True)
    alone = time.perf_counter() - began
    began = time.perf_counter()
    run_jobs([Job(f"j{i}", argv) for i in range(count)], 1, logs=tmp_path)
    assert time.perf_counter() - began - alone < 0.15 * count
