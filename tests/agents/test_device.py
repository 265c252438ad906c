"""Copies beside kernels, on a device in slow motion: nobody waits without need, and nothing is read too late."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.contract import Batch
from agents.device import homeward, priority_lag, staging
from agents.device.homeward import HostCopy, OnTheWay, Post, is_ready
from agents.device.machine import machine_of
from agents.device.staging import Feed, Staging
from tests.agents.slow_machine import CPU, SlowMachine, SlowStream


@pytest.fixture(params=[False, True], ids=["as late as may be", "as early as may be"])
def machine(request):
    return SlowMachine(eager_side=request.param)


def numbers(turn):
    return torch.arange(6).view(2, 3) + 10 * turn


def test_every_kernel_reads_the_batch_it_was_given(machine):
    """The host refills its own memory at once, as a replay does, and runs ahead of all kernels."""
    stage, host, seen = Staging(machine), torch.empty(2, 3, dtype=torch.int64), []
    for turn in range(7):
        host.copy_(numbers(turn))
        there = stage({"x": host})["x"]
        machine.launch(lambda there=there: seen.append(there.clone()))
        machine.launch(lambda there=there: seen.append(there.clone()))  # the step's second kernel
    machine.finish()
    for turn in range(7):
        assert torch.equal(seen[2 * turn], numbers(turn))
        assert torch.equal(seen[2 * turn + 1], numbers(turn))


@pytest.mark.parametrize("fault", ["pinned memory is free", "readers are done", "the copy is done"])
def test_what_is_not_waited_for_is_noticed(fault, monkeypatch):
    """Without any one of the three waits some kernel reads another batch's numbers."""
    machine = SlowMachine(eager_side=fault == "readers are done")
    event, stream = type(machine.event()), type(machine.kernels)
    if fault == "pinned memory is free":
        monkeypatch.setattr(event, "synchronize", lambda self: None)
    else:
        wait = stream.wait_event

        def kept(self, awaited):
            if (self is machine.kernels) != (fault == "the copy is done"):
                wait(self, awaited)

        monkeypatch.setattr(stream, "wait_event", kept)
    with pytest.raises(AssertionError):
        test_every_kernel_reads_the_batch_it_was_given(machine)


def test_buffers_are_allocated_once_and_keep_their_order(machine):
    stage = Staging(machine)
    frames = torch.arange(24, dtype=torch.uint8).view(2, 3, 4).movedim(-1, 0)  # the stack last
    places = [stage({"frames": frames})["frames"].data_ptr() for _ in range(6)]
    assert len(set(places)) == staging.SETS
    there = stage({"frames": frames})["frames"]
    machine.finish()
    assert there.stride() == frames.stride()
    assert torch.equal(there, frames)
    short = stage({"frames": frames[:2].contiguous()})["frames"]
    machine.finish()
    assert torch.equal(short, frames[:2])


def test_on_the_cpu_a_batch_is_the_memory_that_was_handed_over():
    batch = Batch(*(torch.zeros(2, 3) for _ in range(5)), extras={"number": torch.ones(2, 3)})
    assert Feed(CPU).batch(batch) is batch
    assert machine_of(CPU) is None
    assert machine_of(torch.device("meta")) is None
    assert priority_lag(CPU) == 0
    assert priority_lag(torch.device("cuda")) == 1
    tensor = torch.ones(3)
    copy = HostCopy(tensor)
    tensor.fill_(2.0)
    assert copy.read().tolist() == [2.0, 2.0, 2.0]  # the same memory: nothing was copied


def test_a_batch_comes_over_whole(machine, monkeypatch):
    monkeypatch.setattr(staging, "machine_of", lambda device: machine)
    batch = Batch(
        *(torch.full((2, 3), float(i)) for i in range(5)), weight=torch.ones(2, 3),
        extras={"number": torch.arange(6).view(2, 3)},
    )  # fmt: skip
    there = Feed(CPU).batch(batch)
    machine.finish()
    assert there.next_action_mask is None
    assert there.tensors().keys() == batch.tensors().keys()
    for name, tensor in batch.tensors().items():
        assert torch.equal(there.tensors()[name], tensor)
        assert there.tensors()[name] is not tensor


def test_what_is_published_is_what_it_was_when_it_was_asked_for(machine, monkeypatch):
    """Kernels that change the parameters are given before the copy is made."""
    monkeypatch.setattr(homeward, "machine_of", lambda device: machine)
    post, flat, given = Post(CPU), torch.zeros(4), []
    for version in range(5):
        flat.fill_(
            float(version)
        )  # the clone is a kernel of the learner's stream; here it is done at once
        given.append(post({"flat": flat}))
    for version, params in enumerate(given):
        assert list(params) == ["flat"]
        assert len(params) == 1
        assert params["flat"].tolist() == [float(version)] * 4


def test_who_publishes_does_not_wait(monkeypatch):
    machine = SlowMachine()
    monkeypatch.setattr(homeward, "machine_of", lambda device: machine)
    params = Post(CPU)({"flat": torch.ones(3)})
    assert isinstance(params, OnTheWay)
    assert not is_ready(params)
    assert params["flat"].tolist() == [1.0, 1.0, 1.0]
    assert is_ready(params)
    assert is_ready({"flat": torch.ones(3)})


def test_a_priority_is_read_after_it_was_computed(monkeypatch):
    machine = SlowMachine()
    monkeypatch.setattr(homeward, "machine_of", lambda device: machine)
    priority = torch.zeros(2)
    machine.launch(lambda: priority.copy_(torch.tensor([3.0, 4.0])))
    copy = HostCopy(priority)
    machine.launch(priority.zero_)
    assert copy.read().tolist() == [3.0, 4.0]


def learned(monkeypatch, machine):
    """A learner's parameters and priorities after some rollouts, its batches on their way through the machine."""
    from tests.agents.test_meta import SPECS, make_learner

    for module in (staging, homeward):
        monkeypatch.setattr(module, "machine_of", lambda device: machine)
    found = []
    for name, hyper in (("dqn", {"prioritized": True, "n_step": 2}), ("pqn", {"frame_stack": 3})):
        learner = make_learner(name, SPECS["box"], CPU, **hyper, **SMALL[name])
        for rollout in rollouts():
            learner.observe(rollout)
            for _ in range(learner.updates_due()):
                learner.update()
        found.append(learner.params().tensors["flat"])
    return found


SMALL = {
    "dqn": {"batch_size": 8, "learning_starts": 16, "replay_size": 64, "target_period": 8},
    "pqn": {"minibatch_size": 8, "epochs": 2},
}


def rollouts():
    from agents.contract import Rollout

    rng, rows, lanes = np.random.default_rng(0), 5, 8
    obs = rng.normal(size=(21, lanes, 4)).astype(np.float32)
    first = np.zeros((21, lanes), np.bool_)
    first[0] = True
    for start in range(0, 20, rows):
        shape = (rows, lanes)
        yield Rollout(
            obs[start : start + rows + 1], first[start : start + rows + 1],
            rng.integers(3, size=shape), rng.normal(size=shape).astype(np.float32),
            np.zeros(shape, np.bool_), np.zeros(shape, np.bool_),
        )  # fmt: skip


def test_a_learner_by_way_of_the_machine_learns_the_same(monkeypatch):
    plain = learned(monkeypatch, None)
    for a, b in zip(plain, learned(monkeypatch, Prompt()), strict=True):
        assert torch.equal(a, b)


class Prompt(SlowMachine):
    """Its kernels are those of the CPU, which are done at once: only what stands beside them waits."""

    def stream(self, urgent=False):
        """An urgent one has kernels, an actor's."""
        return SlowStream(eager=urgent)

    def current(self):
        found = super().current()
        found.eager = found.eager or found is self.kernels
        return found


@pytest.mark.parametrize(
    ("name", "hyper", "shape"),
    [
        ("dqn", {"frame_stack": 3}, "pixels"),
        ("dqn", {"memory": "lstm", "noisy": True}, "box"),
        ("rainbow", {}, "discrete"),
        ("bootstrapped_dqn", {}, "box"),
    ],
)
def test_an_actor_that_computes_elsewhere_acts_alike(name, hyper, shape, monkeypatch):
    import importlib

    from agents import AGENTS
    from agents.device import bridge
    from tests.agents.test_meta import SPECS

    spec, module = SPECS[shape], importlib.import_module(AGENTS[name].module)
    config = getattr(module, AGENTS[name].config)(**hyper)
    rng = np.random.default_rng(0)

    def played():
        actor = module.make_actor(config, spec, [np.random.default_rng(k) for k in range(2)])
        actor.parameters.flat.normal_(generator=torch.Generator().manual_seed(0))
        if machine is not None:
            actor.move(CPU)
            assert actor.bridge.machine is machine
        state, found = actor.initial_state(4), []
        for turn in range(6):
            obs = rng_obs[turn]
            first = np.full((2, 4), turn == 0)
            action, state, extras = actor.act(obs, first, {}, state, turn < 4)
            found += [action, *extras.values(), *state.values()]
            if turn >= 4:
                found += [actor.values(extras["seen"]), *actor.activations(extras["seen"])]
        return found

    numbers = rng.integers(5, size=(6, 2, 4, *spec.obs_shape))
    rng_obs = numbers if spec.num_states else numbers.astype(spec.obs_dtype)
    machine = None
    plain = played()
    machine = Prompt()
    for part in (bridge, homeward):
        monkeypatch.setattr(part, "machine_of", lambda device: machine)
    for a, b in zip(plain, played(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_priorities_are_written_one_update_late_where_the_host_runs_ahead(monkeypatch):
    """Sample u + 1 is drawn with those of updates up to u - 1; a checkpoint waits for the last ones."""
    from agents import learner as learners
    from tests.agents.test_meta import SPECS, make_learner

    monkeypatch.setattr(learners, "priority_lag", lambda device: 1)
    made = make_learner("dqn", SPECS["box"], CPU, prioritized=True, **SMALL["dqn"])
    for rollout in rollouts():
        made.observe(rollout)
    told, write, sample = [], made.replay.set_priorities, made.replay.sample

    def sampling():
        batch = sample()
        told.append(("sample", made.replay.sampled.copy()))
        return batch

    def writing(sampled, errors):
        told.append(("write", sampled.copy()))
        write(sampled, errors)

    monkeypatch.setattr(made.replay, "sample", sampling)
    monkeypatch.setattr(made.replay, "set_priorities", writing)
    for _ in range(3):
        made.update()
    assert [what for what, _ in told] == ["sample", "sample", "write", "sample", "write"]
    made.state_dict()
    drawn, written = ([rows for what, rows in told if what == kind] for kind in ("sample", "write"))
    for a, b in zip(drawn, written, strict=True):
        assert (a == b).all()
