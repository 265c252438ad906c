"""Jobs that end in every way there is, and the ends of who supervises them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runners import train
from runners.config import run_name, to_json
from runners.errors import BadInput, DiskFault, Stopped
from runners.jobs import Job, Supervisor, run_jobs
from runners.jobs_panel import trained_share
from runners.processes import read_tail
from runners.resolve import make_config
from runners.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
FAST = {"grace": 0.5}


def job(name, code, **more):
    return Job(name, [sys.executable, "-I", "-S", "-c", code], **more)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def until(happened, seconds=10.0):
    limit = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.01)


class Seen:
    """A watcher that keeps what it is told."""

    def __init__(self, at_tick=None):
        self.events, self.most = [], 0
        self.at_tick = at_tick or (lambda running: None)

    def event(self, event):
        self.events.append((event.kind, event.job.name, event.attempt))

    def tick(self, running, waiting):
        self.most = max(self.most, len(running))
        self.at_tick(running)


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


# -- Time, disk and signals ----------------------------------------------------------------------

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(60)"
SAVES = (
    "import signal, sys, time, pathlib\n"
    "def leave(*_): time.sleep(0.2); pathlib.Path({!r}).write_text('saved'); sys.exit(143)\n"
    "signal.signal(signal.SIGTERM, leave); print('here', flush=True); time.sleep(60)"
)


def test_a_job_that_hangs_is_ended_though_it_ignores_sigterm(tmp_path):
    began = time.monotonic()
    hanging, other = run_jobs(
        [job("hang", STUBBORN, timeout=0.5), job("good", "pass")], 1, logs=tmp_path, grace=0.3
    )
    assert (hanging.status, hanging.code, hanging.attempts) == ("timeout", -9, 1)
    assert hanging.line == "timed out after 1 s"
    assert hanging.tail == "here\n"
    assert other.status == "done"
    assert 0.8 <= hanging.seconds < 5
    assert time.monotonic() - began < 8


def test_a_stopped_process_times_out_too(tmp_path):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    (outcome,) = run_jobs([job("j", code, timeout=0.2)], logs=tmp_path, grace=0.2)
    assert (outcome.status, outcome.code) == ("timeout", -9)


def test_a_job_may_save_when_its_time_is_up(tmp_path):
    saved = tmp_path / "saved"
    (outcome,) = run_jobs(
        [job("j", SAVES.format(str(saved)), timeout=0.5)], logs=tmp_path, grace=10
    )
    assert (outcome.status, outcome.code) == ("timeout", 143)
    assert saved.read_text() == "saved"


def test_all_attempts_share_the_time(tmp_path):
    code = "import os, time; time.sleep(0.3); os._exit(5)"
    (outcome,) = run_jobs([job("j", code, timeout=0.8)], logs=tmp_path, retries=100, grace=1)
    assert outcome.status == "timeout"
    assert outcome.attempts <= 3


def test_a_full_disk_ends_it_all_gently(tmp_path):
    saved = tmp_path / "saved"
    jobs = [
        job("saves", SAVES.format(str(saved))),
        job("full", f"import os, time\nwhile not open({str(tmp_path / 'saves.log')!r}).read(): pass\n"
                    "print('error: x: No space left on device'); raise SystemExit(4)"),
        job("never", f"open({str(tmp_path / 'never')!r}, 'w')"),
    ]  # fmt: skip
    with pytest.raises(DiskFault, match="full: x: No space left"):
        run_jobs(jobs, 2, logs=tmp_path, grace=10)
    assert saved.read_text() == "saved"
    assert not (tmp_path / "never").exists()


def test_where_no_logs_can_be_nothing_begins(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="no folder can be made here"):
        run_jobs([job("j", "pass")], logs=tmp_path / "file" / "logs")


def test_asked_to_stop_it_lets_the_jobs_save(tmp_path):
    saved, log = tmp_path / "saved", tmp_path / "j.log"

    def asked():
        return signal.SIGTERM if log.exists() and log.read_text() else 0

    jobs = [job("j", SAVES.format(str(saved))), job("next", "open('x')")]
    with pytest.raises(Stopped) as stopped:
        run_jobs(jobs, 1, logs=tmp_path, stop_asked=asked, grace=10)
    assert stopped.value.signum == signal.SIGTERM
    assert saved.read_text() == "saved"
    assert not (tmp_path / "next.log").exists()


def test_asked_to_stop_a_job_that_is_deaf_is_killed(tmp_path):
    log = tmp_path / "j.log"
    began = time.monotonic()
    with pytest.raises(Stopped):
        run_jobs(
            [job("j", STUBBORN)], logs=tmp_path, grace=0.3,
            stop_asked=lambda: 2 if log.exists() and log.read_text() else 0,
        )  # fmt: skip
    assert time.monotonic() - began < 5


PARENT = """
import sys
from pathlib import Path
from runners.jobs import Job, run_jobs
code = '''import os, signal, time
for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(100)'''
jobs = [Job(f"j{i}", [sys.executable, "-I", "-S", "-c", code]) for i in range(3)]
run_jobs(jobs, 3, logs=Path(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_job_outlives_a_supervisor_that_is_killed(tmp_path, number):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], cwd=ROOT)
    try:
        logs = [tmp_path / f"j{i}.log" for i in range(3)]
        until(lambda: all(log.exists() and log.read_text().endswith("\n") for log in logs))
        pids = [int(log.read_text()) for log in logs]
        assert all(map(alive, pids))
        parent.send_signal(number)
        parent.wait(10)
        until(lambda: not any(map(alive, pids)), seconds=5)
    finally:
        parent.kill()
        parent.wait()


def test_what_a_job_leaves_behind_is_ended(tmp_path):
    inner = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(100)"
    code = (
        "import subprocess, sys\n"
        f"print(subprocess.Popen([sys.executable, '-I', '-S', '-c', {inner!r}]).pid)"
    )
    (outcome,) = run_jobs([job("j", code)], logs=tmp_path)
    assert outcome.status == "done"
    until(lambda: not alive(int(outcome.tail)))


def test_an_error_in_between_leaves_no_job(tmp_path):
    pids = []

    def fail(running):
        if (text := read_tail(tmp_path / "j.log")).endswith("\n"):
            pids.append(int(text))
            raise RuntimeError("on purpose")

    code = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
    with pytest.raises(RuntimeError, match="on purpose"):
        run_jobs([job("j", code)], logs=tmp_path, watcher=Seen(fail))
    assert not alive(pids[0])


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
