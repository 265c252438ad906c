"""Who asks for Ray and cannot have it is told in one line, before anything is begun."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time

import pytest

from runners import ray_cluster, train
from runners.command_line import parse_train
from runners.config import from_json, run_name, to_json
from runners.errors import BadInput
from runners.resolve import make_config

SMALL = ["dqn", "--steps", "1000", "--lanes", "8", "--block-size", "4", "--seeds", "1"]


def refusal(capsys, tmp_path, *more):
    """What ``train`` says; nothing was begun."""
    assert train.main([*SMALL, "--out", str(tmp_path / "runs"), *more]) == 2
    assert not (tmp_path / "runs").exists()
    out, err = capsys.readouterr()
    assert not out
    lines = [line for line in err.splitlines() if not line.startswith("preset:")]
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")


def test_without_the_package_the_command_to_install_it_is_named(capsys, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *p: None if name == "ray" else find(name, *p)
    )
    said = refusal(capsys, tmp_path, "--workers", "2", "--ray", "auto")
    assert said == "ray: the package is not installed: pip install -c constraints.txt -e '.[ray]'"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--ray", "auto"], "ray: takes --workers 1 or more"),
        (["--ray", "auto", "--workers", "3"], "workers: got 3, takes at most 2"),
        (["--source", "ray", "--workers", "2"], "ray: the rollouts come from a Ray cluster; say which"),
        (["--ray", "auto", "--workers", "2", "--lag", "1"], "lag: got 1, takes 0"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(capsys, tmp_path, more, told):
    assert refusal(capsys, tmp_path, *more).startswith(told)


def test_agents_that_learn_step_by_step_or_in_a_loop_of_their_own_take_no_workers():
    settings = {"steps": 100, "source": "ray"}
    with pytest.raises(BadInput, match="workers are for agents that learn from rollouts"):
        train.run(make_config("q_learning", "Taxi-v4", **settings), [0], workers=1, ray="auto")
    with pytest.raises(BadInput, match="ray: is not for sb3:dqn, which simulates in this process"):
        make_config("sb3:dqn", "CartPole-v1", **settings)


def test_an_address_without_a_configuration_for_it(tmp_path):
    config = make_config("dqn", "CartPole-v1", steps=100)
    with pytest.raises(BadInput, match="the rollouts' source is local; leave --ray out"):
        train.run(config, [0], str(tmp_path), workers=1, ray="auto")


def test_the_configuration_says_ray_and_not_where():
    """So that a run goes on at another address, and one with processes is another run."""
    here, there, alone = (
        parse_train([*SMALL, "--workers", "2", *more]).config
        for more in (["--ray", "a:1"], ["--ray", "auto"], ["--async"])
    )
    assert here == there
    assert (here.source, here.async_, here.max_lag, here.lag) == ("ray", True, 4, 0)
    assert run_name(here) == run_name(there) != run_name(alone)
    assert from_json(to_json(here)) == here
    with pytest.raises(BadInput, match="async: got false, takes true"):
        from_json({**to_json(here), "async_": False, "max_lag": 0})


@pytest.mark.parametrize("address", ["nonsense", "10.0.0.1", "ray://10.0.0.1:10001", "a b:1", ":1"])
def test_what_is_no_address(address):
    with pytest.raises(BadInput, match=r"takes auto, local or HOST:PORT"):
        ray_cluster.check(address)


AUTH = "ray.exceptions.AuthenticationError: "
VERSIONS = """RuntimeError: Version mismatch: The cluster was started with:
    Ray: 2.60.0
    Python: 3.11.7
This process on node 10.0.0.1 was started with:
    Ray: 2.61.0
    Python: 3.12.1
"""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"W gcs_client\n{AUTH}RPC error: InvalidAuthToken: x\nConnectionError: y", "another token"),
        (
            f"{AUTH}RPC error: InvalidAuthToken: x. Note: RAY_AUTH_MODE is currently 'disabled' (not 'token').",
            "none is sent from here: export RAY_AUTH_MODE=token",
        ),
        (f"{AUTH}Token authentication is enabled but no authentication token was found.", "no token here"),
        ("Check failed: Ray couldn't find an authentication token. Create", "no token here"),
        (VERSIONS, "the cluster runs Ray 2.60.0, Python 3.11.7, this is Ray 2.61.0, Python 3.12.1"),
        ("ConnectionError: Could not find any running Ray instance. Please", "no cluster runs on this"),
        ("Traceback\n  File x\nRuntimeError: it is full\n\n", "RuntimeError: it is full"),
        ("", "its client ended without a word"),
    ],
)  # fmt: skip
def test_why_ray_takes_no_driver(said, told):
    """The words are Ray 2.60's own, cut short."""
    assert told in ray_cluster.why(said)
    assert "\n" not in ray_cluster.why(said)


def test_the_probe_s_failure_is_told_and_its_silence_is_waited_for_shortly(monkeypatch):
    monkeypatch.setattr(ray_cluster, "PROBE", "raise RuntimeError('no InvalidAuthToken')")
    with pytest.raises(BadInput, match=r"^ray auto: the cluster takes another token"):
        ray_cluster.check("auto")
    monkeypatch.setattr(ray_cluster, "PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(ray_cluster, "PROBE_LIMIT", 0.3)
    began = time.monotonic()
    with pytest.raises(BadInput, match=r"^ray h:1: no answer within 0 s; start a cluster by"):
        ray_cluster.check("h:1")
    assert time.monotonic() - began < 10


def test_a_connection_leaves_signals_and_authentication_alone(monkeypatch):
    """Ray's own handler of SIGTERM would end a run without a checkpoint."""

    class Ray:
        is_open = False
        _private = type("P", (), {"worker": type("W", (), {})})

        def is_initialized(self):
            return self.is_open

        def init(self, address, **more):
            assert address == "h:1"
            self.is_open = True
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

        def shutdown(self):
            self.is_open = False

    module = Ray()
    monkeypatch.setattr(ray_cluster, "require", lambda: module)
    monkeypatch.setattr(ray_cluster, "check", lambda address: None)
    monkeypatch.setenv("RAY_IGNORE_UNHANDLED_ERRORS", "0")
    before = signal.getsignal(signal.SIGTERM), {k for k in os.environ if "AUTH" in k}
    with ray_cluster.connected("h:1"):
        assert module.is_open
        assert (signal.getsignal(signal.SIGTERM), {k for k in os.environ if "AUTH" in k}) == before
        with ray_cluster.connected("elsewhere"):  # there is one already
            pass
        assert module.is_open
    assert not module.is_open
