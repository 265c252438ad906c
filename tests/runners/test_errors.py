import errno
import os
import signal
import subprocess
import sys

import pytest

from agents.hyper import BadValue
from envs.contract import LaneError, SimulatorError, UnsupportedEnv
from runners.errors import (
    BadInput,
    DiskFault,
    NoCheckpoint,
    RunFailed,
    Stopped,
    command,
    disk,
    line_of,
    nearest,
)

ENDINGS = [
    (BadInput("lr: got -1"), 2),
    (BadValue("lr: got -1"), 2),
    (UnsupportedEnv("no such space"), 2),
    (NoCheckpoint("none left"), 3),
    (DiskFault("full"), 4),
    (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 4),
    (OSError(errno.EROFS, "Read-only file system", "runs/x"), 4),
    (PermissionError(errno.EACCES, "Permission denied", "runs/x"), 4),
    (OSError(errno.EDQUOT, "Disk quota exceeded", "runs/x"), 4),
    (SimulatorError("CartPole-v1", 3, 17, "reward is nan"), 5),
    (RunFailed("the check said no"), 1),
    (KeyboardInterrupt(), 130),
    (Stopped(signal.SIGTERM, "step 100 is saved"), 143),
    (Stopped(signal.SIGINT), 130),
]


@pytest.mark.parametrize(("error", "status"), ENDINGS, ids=lambda x: type(x).__name__)
def test_foreseen_errors_are_one_line_and_a_status(error, status, capsys):
    @command
    def main(argv):
        raise error

    assert main([]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_what_a_simulator_raised_is_shown_where_it_happened(capsys):
    def inside():
        raise ZeroDivisionError("of its author's")

    @command
    def main(argv):
        try:
            try:
                inside()
            except ZeroDivisionError as error:
                raise LaneError("step raised ZeroDivisionError", 1) from error
        except LaneError as error:
            raise SimulatorError("X-v0", 1, 7, error.what) from error

    assert main([]) == 5
    err = capsys.readouterr().err
    assert "in inside\n" in err
    assert err.endswith("\nerror: X-v0: lane 1, step 7: step raised ZeroDivisionError\n")
    assert err.count("Traceback") == 1


def test_a_message_of_several_lines_becomes_one():
    assert line_of(BadInput("a\n  b\n\nc")) == "a b c"


@pytest.mark.parametrize("error", [KeyError("x"), FileNotFoundError(2, "no"), ValueError("x")])
def test_unforeseen_errors_keep_their_traceback(error, capsys):
    @command
    def main(argv):
        raise error

    assert main([]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_status_of_a_main_that_returns():
    assert command(lambda argv: None)([]) == 0
    assert command(lambda argv: 1)([]) == 1
    assert command(lambda argv: sys.exit(0))([]) == 0
    assert command(lambda argv: sys.exit("no"))([]) == 1


def test_stopped_passes_through_except_exception():
    @command
    def main(argv):
        try:
            raise Stopped(signal.SIGTERM)
        except Exception:
            return 0

    assert main([]) == 143


def test_disk_names_the_place():
    with (
        pytest.raises(DiskFault, match=r"runs/a/metrics.jsonl: No space left on device"),
        disk("runs/a"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/metrics.jsonl")
    with pytest.raises(DiskFault, match=r"^runs/a: "), disk("runs/a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_disk_leaves_other_errors_alone():
    with pytest.raises(FileNotFoundError), disk("runs/a"):
        raise FileNotFoundError(errno.ENOENT, "no such file", "x")


def test_nearest():
    assert nearest("lrr", ["gamma", "lr"]) == "; did you mean lr?"
    assert nearest("zzzzzz", ["gamma", "lr"]) == ""


def test_a_reader_that_goes_away_is_no_traceback():
    program = (
        "import sys\nfrom runners.errors import command\n"
        "@command\ndef main(argv):\n"
        "    for _ in range(100_000): sys.stdout.write('x' * 80 + '\\n')\n"
        "sys.exit(main())"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(20) == 1
    assert child.stderr.read() == b""
    child.stderr.close()


def test_errors_is_cheap_to_import():
    program = (
        "import sys, runners.errors; sys.exit('torch' in sys.modules or 'gymnasium' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_command_without_a_standard_output(monkeypatch):
    """As after ``python -m ... >&-``."""
    monkeypatch.setattr("sys.stdout", None)
    assert command(lambda argv: sys.stdout.write("text") and 0)([]) == 0


@pytest.mark.parametrize("load", ["", "import torch; "])
def test_leaving_loses_nothing_that_was_written(load):
    program = f"{load}from runners.errors import leave; print('text', end=''); leave(3)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (3, b"text")
