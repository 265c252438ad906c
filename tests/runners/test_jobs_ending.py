"""Jobs that hang, a full disk, signals: whatever ends them, none is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runners.errors import BadInput, DiskFault, Stopped
from runners.jobs import run_jobs
from runners.processes import read_tail
from tests.runners.jobs import SAVES, STUBBORN, Seen, alive, job, until

ROOT = Path(__file__).parents[2]


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
