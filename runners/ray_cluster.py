"""A Ray cluster as a command finds it: connect, or say in one line why not; what it has and lacks.

Ray is loaded only where somebody asked for it. Its token authentication is never touched: the token is
the one that Ray finds by itself, in RAY_AUTH_TOKEN or in ``~/.ray/auth_token``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from runners.errors import BadInput, WorkerLost

INSTALL = "pip install -c constraints.txt -e '.[ray]'"
LOCAL = "local"
ADDRESSES = "takes auto, local or HOST:PORT"
PROBE_LIMIT = 15.0  # seconds for a cluster to take a driver; it takes about one
PROBE = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
REPORT_AFTER, REPORT_EVERY = 5.0, 60.0  # seconds of waiting for room
STARTING = 30.0  # seconds that a process may take until it answers
ROOM_LIMIT = 900.0  # seconds of waiting for room
PORT = re.compile(r"[^/\s]+:\d{1,5}")


def is_installed() -> bool:
    """Whether the package is there; it is not loaded."""
    return importlib.util.find_spec("ray") is not None


def require() -> Any:
    """The ``ray`` package.

    Raises:
        BadInput: it is not installed; how to install it.
    """
    if not is_installed():
        raise BadInput(f"ray: the package is not installed: {INSTALL}")
    import ray

    return ray


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Meanwhile this process is a driver of the cluster at ``address``; "": of none.

    ``local`` starts a node of its own on this machine, which ends with it. A program that has
    connected already keeps its connection.

    Raises:
        BadInput: the package is missing, or the cluster cannot be had: no such address, a wrong
            token, another version.
    """
    if not address:
        yield
        return
    ray = require()
    if ray.is_initialized():
        yield
        return
    check(address)
    with _own_signals():
        _connect(ray, address)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    more: Mapping[str, Any] = {}
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        more = {"include_dashboard": False}
    # Ray would print what befalls its nodes on standard output; we say ourselves what it is to us
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"  # answers that nobody waits for any more
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", **more)
    except Exception as error:  # what check has found to work has just gone, or no node can be had
        raise BadInput(f"ray {address}: {_last_line(str(error))}") from error


def check(address: str) -> None:
    """Refuse an address at which no driver is taken, in seconds.

    Another process tries it: Ray's own client waits for minutes where nobody answers, and ends its
    process where it has no token.

    Raises:
        BadInput: why, and what to do.
    """
    if address == LOCAL:
        return
    if "://" in address:
        raise BadInput(
            f"ray: got {address!r}, {ADDRESSES}; a Ray Client has no object store of its own: run on a node"
        )
    if address != "auto" and not PORT.fullmatch(address):
        raise BadInput(f"ray: got {address!r}, {ADDRESSES}")
    # at most so many seconds of trying, for each try of Ray's is followed by a pause of one
    environment = {**os.environ, "RAY_NUM_REDIS_GET_RETRIES": "2"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, address], env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PROBE_LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BadInput(
            f"ray {address}: no answer within {PROBE_LIMIT:.0f} s; start a cluster by `ray start --head`, "
            "or see `ray status`"
        ) from error
    if done.returncode:
        raise BadInput(f"ray {address}: {why(done.stderr)}")


def why(said: str) -> str:
    """What Ray's client died of, in a line."""
    if "RAY_AUTH_MODE is currently 'disabled'" in said:
        return (
            "the cluster asks for a token, and none is sent from here: export RAY_AUTH_MODE=token, and have the "
            "head node's ~/.ray/auth_token here"
        )
    if "InvalidAuthToken" in said:
        return (
            "the cluster takes another token; this machine's is in RAY_AUTH_TOKEN or ~/.ray/auth_token and has "
            "to be that of the head node"
        )
    if (
        "no authentication token was found" in said
        or "couldn't find an authentication token" in said
    ):
        return (
            "there is no token here; copy the head node's ~/.ray/auth_token, or set RAY_AUTH_TOKEN to what is "
            "in it"
        )
    if "Version mismatch" in said:
        told = re.findall(r"(Ray|Python): (\S+)", said[said.rindex("Version mismatch") :])
        if len(told) >= 4:
            there, here = (", ".join(f"{n} {v}" for n, v in told[i : i + 2]) for i in (0, 2))
            return f"the cluster runs {there}, this is {here}; both have to be the same"
    if "Could not find any running Ray instance" in said:
        return "no cluster runs on this machine; start one by `ray start --head`, or name its HOST:PORT"
    return _last_line(said)


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "its client ended without a word"


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it connects; here the run decides."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


# -- What it has ---------------------------------------------------------------------------------


class Node(NamedTuple):
    """A machine of the cluster, or what a test takes for one."""

    node_id: str
    address: str
    cpus: float


def nodes() -> list[Node]:
    """Those that live."""
    import ray

    return [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"].get("CPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def free_cpus() -> float:
    """CPUs that nobody has claimed, of all nodes together."""
    import ray

    return float(ray.available_resources().get("CPU", 0.0))


def cpus() -> float:
    """Of all nodes together."""
    return sum(node.cpus for node in nodes())


class Waiting:
    """Says what some wait for, a CPU each: after seconds, then rarely, and not for ever."""

    def __init__(self, say: Callable[[str], None], what: str) -> None:
        """``what`` they are, who wait."""
        self.say, self.what = say, what
        self.at = REPORT_AFTER  # seconds of waiting that are looked at next
        self.said = False

    def look(self, waiting: int, of: int, waited: float, ends: bool = True) -> None:
        """So many wait, of so many in all, the first of them for so long.

        Raises:
            WorkerLost: there is no room for too long, where the wait ``ends`` at all.
        """
        if not waiting:
            if self.said:
                self.say(f"ray: all {self.what} have a place now")
            self.at, self.said = REPORT_AFTER, False
            return
        if waited < self.at:
            return
        free = free_cpus()
        if waited < STARTING and (free >= 1 or cpus() - free >= of):
            self.at = waited + REPORT_AFTER  # they may have room, and are being started
            return
        self.at, self.said = waited + REPORT_EVERY, True
        told = f"ray: {lacking(waiting, of, self.what)}"
        if ends and waited > ROOM_LIMIT:
            raise WorkerLost(f"{told}; waited {waited:.0f} s")
        self.say(f"{told}; waiting up to {ROOM_LIMIT / 60:.0f} minutes" if ends else told)


def lacking(waiting: int, of: int, what: str) -> str:
    """What the cluster lacks that so many wait for, a CPU each; and what would help."""
    import ray

    there = nodes()
    where = ", ".join(f"{node.address} has {node.cpus:g}" for node in there)
    return (
        f"{waiting} of {of} {what} have no place yet, for they take a CPU each: of "
        f"{sum(node.cpus for node in there):g} in the cluster ({where}) {free_cpus():g} are free; "
        f"another node brings more: `ray start --address={ray.get_runtime_context().gcs_address}`"
    )


def head_answers() -> bool:
    """Whether the head node still takes connections."""
    import ray

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()
    except OSError:
        return False
    return True


def end(actor: Any) -> None:
    """Have an actor end now, if it lives."""
    import ray

    with suppress(ray.exceptions.RayError, ValueError):
        ray.kill(actor, no_restart=True)
