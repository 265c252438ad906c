"""A recorded step learns what the eager one learns; here recording stands on a machine without a GPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from agents import AGENTS, actor_critic
from agents.device.graph import MOST, WARM_UP, GraphedStep
from runners.errors import BadInput
from runners.resolve import make_config
from tests.agents import test_meta
from tests.agents.slow_machine import CPU, MetaMachine, Recorder
from tests.agents.test_meta import SEEDS, SPECS, make_learner

BATCH = 16
LR = 2.0**-10  # the same number in float32, which a graph reads
CASES = [("dqn", {"noisy": True, "double": True}), ("dqn", {"distributional": "iqn", "atoms": 4}),
         ("rnd", {}), ("bootstrapped_dqn", {}), ("pqn", {}), ("munchausen_dqn", {})]  # fmt: skip


def batch_of(turn, size=BATCH):
    from agents.contract import Batch

    rng = np.random.default_rng(turn)

    def floats(*more):
        return torch.from_numpy(rng.normal(size=(SEEDS, size, *more)).astype(np.float32))

    action = torch.from_numpy(rng.integers(3, size=(SEEDS, size)))
    return Batch(
        floats(4), action, floats(), floats().abs(), floats(4), weight=floats().abs(),
        extras={"returns": floats(), "number": torch.arange(SEEDS * size).view(SEEDS, size)},
    )  # fmt: skip


def changed(learner):
    optimizer = learner.optimizer
    return [learner.online.flat, optimizer.mean, optimizer.square, optimizer.count]


def steps(learner, batches):
    found = []
    for turn, size in enumerate(batches):
        learner.lane_steps = turn  # a learning rate that falls is one of the inputs
        batch = batch_of(turn, size)
        total = learner.step(batch, learner.draw(batch) if hasattr(learner, "draw") else {})
        found.append((total.clone(), learner._metrics["q_mean"].clone()))
    return found


@pytest.mark.parametrize(("name", "switches"), CASES)
def test_a_recorded_step_is_the_eager_one(name, switches):
    falls = {"lr": 2 * LR, "lr_end": LR, "lr_steps": 4} if name == "pqn" else {"lr": LR}
    plain, graphed = (make_learner(name, SPECS["box"], CPU, **falls, **switches) for _ in range(2))
    machine = Recorder(changed(graphed))
    graphed._compiled = GraphedStep(graphed.eager, machine)
    sizes = [BATCH] * 8
    expected, found = steps(plain, sizes), steps(graphed, sizes)
    assert machine.records == 1
    for a, b in zip(expected, found, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    for a, b in zip(changed(plain), changed(graphed), strict=True):
        assert torch.equal(a, b)


SHORT = {"r2d2": {"burn_in": 2, "sequence_length": 8, "batch_size": 4}}
RECORDED = [(name, SHORT.get(name, {})) for name, entry in AGENTS.items() if entry.records]
REMEMBER = [case for case in test_meta.CASES if "memory" in case[1]]


@pytest.mark.parametrize(("name", "switches"), RECORDED + REMEMBER)
def test_every_agent_that_is_said_to_be_recorded_reads_nothing_then(name, switches, monkeypatch):
    fused = torch._fused_adam_  # with a tensor for its rate it is for CPU and CUDA, not for meta
    monkeypatch.setattr(torch, "_fused_adam_", lambda *a, lr, **more: fused(*a, lr=LR, **more))
    spec = next(iter(test_meta.specs_of(name).values()))
    learner, machine = make_learner(name, spec, **switches), MetaMachine()
    if AGENTS[name].continuous:  # a graph for each kind of update, made when there is one
        monkeypatch.setattr(actor_critic, "machine_of", lambda device: machine)
        learner.compile()
    else:
        learner._compiled = GraphedStep(learner.eager, machine)
    kinds = test_meta.kinds_of_updates(learner)
    for updates in kinds:
        learner.updates = updates
        for _ in range(WARM_UP + 2):
            batch = test_meta.batch_of(learner, spec)
            total = learner.step(batch, learner.draw(batch) if hasattr(learner, "draw") else {})
    assert machine.records == len(kinds)
    assert total.device.type == "meta"


def test_what_is_recorded_on_a_gpu_and_what_is_not(monkeypatch):
    from agents.device import machine

    monkeypatch.setattr(machine, "available", lambda: True)
    for agent in ("pqn", "r2d2", "rnd"):
        assert make_config(agent, "CartPole-v1", compile=True, steps=10**5).device == "cuda"
    with pytest.raises(BadInput, match="stream_q's step is not recorded as a CUDA graph"):
        make_config("stream_q", "CartPole-v1", compile=True, steps=10**5)


def test_actors_are_on_a_gpu_where_blocks_are_large(monkeypatch):
    from agents.device import machine

    def where(agent, **settings):
        return make_config(agent, "CartPole-v1", steps=10**5, **settings).actor_device

    assert where("pqn") == "cpu"  # there is no GPU
    with pytest.raises(BadInput, match="actor_device: got cuda, takes cpu for pqn: the learner"):
        where("pqn", actor_device="cuda")
    monkeypatch.setattr(machine, "available", lambda: True)
    many = {"lanes": 128}
    found = [where("pqn", **many), where("dqn"), where("pqn", block_size=32, **many)]
    assert found == ["cuda", "cpu", "cpu"]
    assert where("pqn", actor_device="cpu", **many) == "cpu"
    with pytest.raises(BadInput, match="it acts on the cpu"):
        where("stream_q", actor_device="cuda")


def test_a_configuration_of_a_cpu_says_nothing_of_actors(monkeypatch):
    """Its identity is that of before there was a choice; on a GPU the choice is part of it."""
    from agents.device import machine
    from runners.config import config_id, from_json, to_json

    here = make_config("pqn", "CartPole-v1", steps=10**5)
    assert "actor_device" not in to_json(here)
    monkeypatch.setattr(machine, "available", lambda: True)
    there = [
        make_config("pqn", "CartPole-v1", steps=10**5, actor_device=d) for d in ("cpu", "cuda")
    ]
    assert len({config_id(config) for config in (here, *there)}) == 3
    for config in (here, *there):
        assert from_json(to_json(config)) == config


def test_each_shape_is_recorded_and_no_more_than_a_few_are():
    plain, graphed = (make_learner("dqn", SPECS["box"], CPU, lr=LR) for _ in range(2))
    machine = Recorder(changed(graphed))
    graphed._compiled = GraphedStep(graphed.eager, machine)
    sizes = [8 + n for _ in range(WARM_UP + 2) for n in range(MOST + 2)]
    steps(plain, sizes)
    steps(graphed, sizes)
    assert machine.records == MOST
    assert torch.equal(plain.online.flat, graphed.online.flat)


def test_what_lies_elsewhere_is_refused():
    """A graph would read the host's memory where it was when it was recorded."""
    learner = make_learner("dqn", SPECS["box"], CPU)
    machine = Recorder(changed(learner))
    machine.device = torch.device("meta")
    learner._compiled = GraphedStep(learner.eager, machine)
    with pytest.raises(
        ValueError, match=r"batch\.obs is on cpu: a step on meta cannot be recorded"
    ):
        steps(learner, [BATCH])


def test_a_group_that_seeds_leave_is_recorded_anew(monkeypatch):
    from agents import learner as learners

    made = make_learner("dqn", SPECS["box"], CPU)
    monkeypatch.setattr(learners, "machine_of", lambda device: Recorder([]))
    made.compile()
    before = made._compiled
    made.keep([1])
    assert isinstance(made._compiled, GraphedStep)
    assert made._compiled is not before
    assert made._compiled.step.__self__ is made


def test_the_learning_rate_may_be_a_tensor():
    """A graph reads it where a number would be part of the graph; on a CPU both are the same step."""
    one, two = (make_learner("dqn", SPECS["box"], CPU) for _ in range(2))
    batch = dataclasses.replace(batch_of(0), extras={})
    share = torch.full((SEEDS, BATCH), 1.0 / BATCH)
    one.eager(batch, share, {}, 1e-3)
    two.eager(batch, share, {}, torch.tensor(1e-3))
    assert torch.allclose(one.online.flat, two.online.flat, rtol=0, atol=2e-7)
