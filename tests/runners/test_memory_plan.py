"""What a run will take is worked out before it begins, and refused where it is not there."""

from __future__ import annotations

import re

import numpy as np
import pytest

from runners import free_memory, memory_plan, train
from runners.console import SilentConsole
from runners.errors import BadInput
from runners.group import make_learner, make_setting
from runners.memory_plan import MemoryPlan, check_memory
from runners.resolve import make_config

MB = 10**6


def setting_of(env="CartPole-v1", agent="dqn", **settings):
    return make_setting(make_config(agent, env, **{"lanes": 8, "rollout_length": 16, **settings}))


class Heard(SilentConsole):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


def test_a_replay_by_hand():
    """CartPole: 4 float32; first, action, reward, terminated, truncated: 1 + 8 + 4 + 1 + 1 bytes.

    100,000 transitions: 12,500 rows of 8 lanes. 2^17 leaves are the fewest for 100,000 places; a tree has
    twice as many nodes of 8 bytes.
    """
    replay = make_learner(setting_of(replay_size=1_000, prioritized=True), [0]).replay
    assert replay.needs(100_000) == {
        "frames": 16 * 100_000,
        "rows": 15 * 100_000,
        "priorities": 8 * 2 * 2**17,
    }


@pytest.mark.parametrize(
    "changes",
    [{}, {"prioritized": True}, {"memory": "lstm", "n_step": 1}, {"agent": "bootstrapped_dqn"}],
)
def test_the_plan_is_what_is_allocated_then(changes):
    setting = setting_of(replay_size=40_000, batch_size=16, **changes)
    parts = MemoryPlan(setting).parts(3)
    learner = make_learner(setting, range(3))
    assert parts["replay"] == pytest.approx(learner.replay.nbytes, rel=0.01)
    flat = learner.online.flat.nbytes
    # online, target, gradient, two moments, two copies for actors; what else there is, is small
    assert parts["networks"] == pytest.approx(7 * flat, rel=0.01, abs=2_000)


def test_a_learner_without_a_replay_holds_its_rollouts():
    """33 rows of 32 lanes: 16 bytes of observation at the worker and again in the learner, 19 of facts."""
    parts = MemoryPlan(setting_of(agent="pqn", lanes=32, rollout_length=32)).parts(2)
    assert parts["rollouts"] == 2 * 33 * 32 * (2 * 16 + 19)
    assert "replay" not in parts


def limited(monkeypatch, size):
    monkeypatch.setattr(memory_plan, "available", lambda: size)


def refused(setting, seeds):
    with pytest.raises(BadInput) as error:
        check_memory(setting, seeds, SilentConsole())
    return str(error.value)


def test_what_does_not_fit_is_refused_with_what_does(monkeypatch):
    """A million transitions of CartPole are 31 MB a seed."""
    limited(monkeypatch, 100 * MB)
    line = refused(setting_of(replay_size=1_000_000), 8)
    size = int(re.search(r"--replay-size (\d+)", line)[1])
    seeds = int(re.search(r"--seeds (\d+)", line)[1])
    assert "0.10 GB are there" in line
    assert "lz4" not in line  # no images
    check_memory(setting_of(replay_size=size), 8, SilentConsole())
    check_memory(setting_of(replay_size=1_000_000), seeds, SilentConsole())
    refused(setting_of(replay_size=int(size * 1.15)), 8)
    refused(setting_of(replay_size=1_000_000), seeds + 1)


def test_learners_of_one_machine_take_as_much_each(monkeypatch):
    setting = setting_of(replay_size=100_000)
    limited(monkeypatch, int(1.5 * sum(MemoryPlan(setting).parts(1).values())))
    check_memory(setting, 1, SilentConsole())
    with pytest.raises(BadInput, match=r"memory: .* are needed"):
        check_memory(setting, 1, SilentConsole(), learners=2)


def test_compression_is_named_where_it_helps(monkeypatch):
    pytest.importorskip("ale_py")
    limited(monkeypatch, 1_000 * MB)
    atari = {"env": "ALE/Breakout-v5", "replay_size": 200_000}  # 1.4 GB, a third of it as blocks
    line = refused(setting_of(**atari), 5)
    assert "--replay-compression lz4" in line
    assert "--seeds" not in line  # each seed of an Atari game is a group of its own
    check_memory(setting_of(**atari, replay_compression="lz4"), 5, SilentConsole())
    limited(monkeypatch, 300 * MB)
    assert "lz4" not in refused(setting_of(**atari), 5)


def test_a_command_ends_before_anything_is_allocated(monkeypatch, capsys, tmp_path):
    """10^12 transitions would take 31 TB: whoever allocated them would fail otherwise."""
    status = train.main(
        ["dqn", "--replay-size", str(10**12), "--seeds", "1", "--out", str(tmp_path), "--quiet"]
    )
    assert status == 2
    error = capsys.readouterr().err
    assert error.startswith("error: memory: 31000 GB (replay 31000 GB) are needed")
    assert "--replay-size" in error
    assert not any(tmp_path.iterdir())


def test_much_is_said_and_little_is_not(monkeypatch):
    limited(monkeypatch, 30 * memory_plan.GB)
    heard = Heard()
    check_memory(setting_of(), 8, heard)
    assert heard.lines == []
    check_memory(setting_of(replay_size=10_000_000), 8, heard)
    # 8 seeds x 10 M x 31 bytes; 1,024 rows of 8 lanes twice in a checkpoint, 4 MB of all seeds, are not told
    assert heard.lines == ["memory: 2.49 GB (replay 2.48 GB); 30 GB are there"]
    limited(monkeypatch, None)
    check_memory(setting_of(replay_size=10_000_000), 8, heard)
    assert "there" not in heard.lines[1]


def test_what_is_there_is_read_from_the_system(monkeypatch, tmp_path):
    meminfo, cgroup, limits = tmp_path / "meminfo", tmp_path / "cgroup", tmp_path / "limits"
    for name, path in (("MEMINFO", meminfo), ("CGROUP", cgroup), ("LIMITS", limits)):
        monkeypatch.setattr(free_memory, name, path)
    assert free_memory.available() is None
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:    5000 kB\n")
    assert free_memory.available() == 5000 * 1024
    (limits / "pod/box").mkdir(parents=True)
    cgroup.write_text("0::/pod/box\n")
    (limits / "pod/box/memory.max").write_text("max\n")
    assert free_memory.available() == 5000 * 1024
    (limits / "pod/memory.max").write_text("2000000\n")  # of the group around it
    assert free_memory.available() == 2_000_000
    (limits / "pod/memory.current").write_text("700000\n")  # of it 200,000 that can be had back
    (limits / "pod/memory.stat").write_text("anon 500000\ninactive_file 200000\n")
    assert free_memory.available() == 2_000_000 - 500_000
    (limits / "memory.max").write_text("1000\n")  # as a container sees its own
    cgroup.write_text("0::/\n")
    assert free_memory.available() == 1000


def test_compressed_frames_are_planned_for_the_worst_of_games():
    pytest.importorskip("ale_py")
    setting = setting_of(env="ALE/Breakout-v5", replay_size=200_000, replay_compression="lz4")
    frames = make_learner(
        setting_of(env="ALE/Breakout-v5", replay_size=64, replay_compression="lz4"), [0]
    )
    # a third of 7,056 bytes, 33 of the object and 8 of the pointer
    assert frames.replay.needs(200_000)["frames"] == 200_000 * (2_352 + 41)
    plan = MemoryPlan(setting).parts(1)
    assert plan["replay"] == 200_000 * (2_352 + 41 + 15)
    assert np.isclose(plan["checkpoints"], 2 * 1024 * 8 * (7_056 + 15), rtol=0.5)
