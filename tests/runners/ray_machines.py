"""Machines of a Ray cluster, each a network namespace of this one, with a wire to the others.

Needs root, ``unshare``, ``nsenter`` and ``ip``. Everything that runs on a machine is found by its
namespace, so nothing is left over, whatever a test did.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-for-these-machines-alone-0123456789"
PORT = 6379
START = "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; main()"


def why_not() -> str:
    """Why there can be no such machines here; empty where there can."""
    missing = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if missing:
        return f"there is no {', '.join(missing)}"
    tried = subprocess.run(
        ["unshare", "-n", "ip", "link", "add", "one", "type", "veth", "peer", "name", "two"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"network namespaces are not allowed: {tried.stderr.strip()}" if tried.returncode else ""


class Machines:
    """A head, and others by number. The wires end in a switch, which is a namespace too."""

    def __init__(self):
        self.holders, self.folder = (
            {},
            tempfile.mkdtemp(prefix="r", dir="/tmp"),
        )  # sockets' paths are short
        self.namespaces = set()
        self.environment = {
            **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "HOME": self.folder,
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": f"{self.folder}/t", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            # dead machines are noticed within seconds, busy ones are not taken for dead
            "RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "3000",
            "RAY_health_check_failure_threshold": "4", "RAY_raylet_start_wait_time_s": "120",
        }  # fmt: skip
        for name in [name for name in self.environment if name.lower().endswith("_proxy")]:
            del self.environment[name]
        try:
            self._hold("switch")
            self._in("switch", "ip", "link", "add", "bridge0", "type", "bridge")
            self._in("switch", "ip", "link", "set", "bridge0", "up")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _hold(self, name):
        holder = subprocess.Popen(["unshare", "-n", "sleep", "3600"], stdin=subprocess.DEVNULL)
        self.holders[name] = holder
        limit = time.monotonic() + 10
        while (space := namespace(holder.pid)) in ("", namespace(os.getpid())):
            assert time.monotonic() < limit
            time.sleep(0.01)
        self.namespaces.add(space)

    def inside(self, name, *command):
        """The command on that machine."""
        return ["nsenter", "-t", str(self.holders[name].pid), "-n", *command]

    def _in(self, name, *command):
        subprocess.run(self.inside(name, *command), check=True, capture_output=True, text=True)

    def address(self, number):
        return f"10.77.0.{number}"

    def add(self, number, cpus):
        """Machine 1 is the head; any other joins."""
        name, switch = str(number), self.holders["switch"].pid
        self._hold(name)
        self._in(
            name, "ip", "link", "add", "wire", "type", "veth", "peer", "name", f"port{number}",
            "netns", str(switch),
        )  # fmt: skip
        self._in("switch", "ip", "link", "set", f"port{number}", "master", "bridge0", "up")
        for words in (
            f"addr add {self.address(number)}/24 dev wire",
            "link set wire up",
            "link set lo up",
        ):
            self._in(name, "ip", *words.split())
        head = ["--head", "--port", str(PORT), "--include-dashboard=false", "--disable-usage-stats"]
        joins = ["--address", f"{self.address(1)}:{PORT}"]
        self._in_ray(name, "start", *(head if number == 1 else joins), "--num-cpus", str(cpus),
                     "--node-ip-address", self.address(number))  # fmt: skip

    def _in_ray(self, name, *words):
        done = subprocess.run(
            self.inside(name, sys.executable, "-c", START, *words), env=self.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=150, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    def processes(self, number=None):
        """Of a machine, or of all of them."""
        spaces = self.namespaces if number is None else {namespace(self.holders[str(number)].pid)}
        holders = {holder.pid for holder in self.holders.values()}
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        return [pid for pid in pids if namespace(pid) in spaces and pid not in holders]

    def lose(self, number):
        """It loses its power: all that runs on it is gone at once."""
        end(lambda: self.processes(number))

    def start(self, number, *arguments, **more):
        """``python`` on a machine."""
        environment = {**self.environment, **more.pop("env", {})}
        return subprocess.Popen(
            self.inside(str(number), sys.executable, *arguments), cwd=ROOT,
            env={name: value for name, value in environment.items() if value is not None},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
        )  # fmt: skip

    def close(self):
        """End them all."""
        end(self.processes)
        for holder in self.holders.values():
            holder.kill()
            holder.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def namespace(pid):
    """That of a process's network; empty for one that is gone."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/net")
    return ""


def end(processes):
    """Kill until nobody is left."""
    limit = time.monotonic() + 20
    while found := processes():
        assert time.monotonic() < limit, f"left: {found}"
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
