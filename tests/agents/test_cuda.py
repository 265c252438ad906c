"""On a GPU: the host never waits inside a step, and the numbers are the CPU's to float tolerance."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib

import numpy as np
import pytest
import torch

from agents import AGENTS
from agents.contract import Batch, Params
from agents.device.graph import WARM_UP
from agents.device.homeward import HostCopy, Post, is_ready
from agents.device.machine import machine_of
from agents.device.staging import Feed
from agents.replay.tensor_frames import TensorFrames
from runners.train import run
from tests.agents.test_frames import Play, ring
from tests.agents.test_graph import RECORDED, REMEMBER
from tests.agents.test_groups import SEEDS as GROUP
from tests.agents.test_groups import config_of
from tests.agents.test_meta import GRADIENT_AGENTS, STEPS, batch_of, make_learner, specs_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def _float32_is_float32():
    """Convolutions would otherwise be computed with ten bits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def numbers(learner, spec, turn=0):
    """A batch on the CPU of the shapes that the learner takes."""
    rng = np.random.default_rng(turn)

    def filled(name, tensor):
        shape = tuple(tensor.shape)
        if name == "action" and spec.num_actions:
            return torch.from_numpy(rng.integers(spec.num_actions, size=shape))
        if name in ("obs", "next_obs") and spec.num_states and "extras.sequence" not in meta:
            return torch.from_numpy(rng.integers(spec.num_states, size=shape))
        if tensor.dtype.is_floating_point:
            return torch.from_numpy(rng.random(shape, np.float32))
        return torch.zeros(shape, dtype=tensor.dtype)

    meta = batch_of(learner, spec).tensors()
    return Batch.of({name: filled(name, tensor) for name, tensor in meta.items()})


def on(device, batch):
    return Batch.of({name: tensor.to(device) for name, tensor in batch.tensors().items()})


def buffers(learner):
    """Its flat parameters, by name."""
    if hasattr(learner, "fast"):
        return {**learner.fast, **{f"slow {name}": its for name, its in learner.slow.items()}}
    names = [name for name in ("online", "target") if hasattr(learner, name)]
    return {name: getattr(learner, name) for name in names}


@contextlib.contextmanager
def no_waiting():
    """Whatever makes the host wait for the device raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def twins(name, spec, devices, **switches):
    """Learners of the same parameters; what Adam makes of a gradient's last digits is little."""
    fields = {"adam_eps": 1e-3} if name != "stream_q" else {}
    first, *others = (make_learner(name, spec, device, **fields, **switches) for device in devices)
    for other in others:  # the devices' generators draw other weights
        for of, its in buffers(other).items():
            its.flat.copy_(buffers(first)[of].flat)
    return first, *others


def drawn(learner, batch):
    return learner.draw(batch) if hasattr(learner, "draw") else {}


def moved(noise):
    return {name: tensor.to(CUDA) for name, tensor in noise.items()}


def close(a, b, atol=1e-3):
    torch.testing.assert_close(a.online.flat.cpu(), b.online.flat.cpu(), rtol=1e-2, atol=atol)


def differs(learner, before):
    """By more than what passes for the same."""
    assert (learner.online.flat.cpu() - before).abs().max() > 2e-3


@pytest.mark.parametrize(("name", "switches", "spec"), STEPS)
def test_a_step_never_waits_and_gives_the_numbers_of_the_cpu(name, switches, spec):
    here, there = twins(name, spec, (CPU, CUDA), **switches)
    before = here.online.flat.clone()
    batches = [numbers(here, spec, turn) for turn in range(8)]
    noise = [drawn(here, batch) for batch in batches]
    away = [(on(CUDA, batch), moved(some)) for batch, some in zip(batches, noise, strict=True)]
    for batch, some in zip(batches, noise, strict=True):
        here.step(batch, some)
    there.step(*away[0])  # lazy initialisation may wait
    with no_waiting():
        for batch, some in away[1:]:
            there.step(batch, some)
    # a CPU takes bfloat16 for fewer layers
    close(there, here, atol=4e-3 if "bf16" in switches else 1e-3)
    differs(here, before)


def test_waiting_would_be_noticed():
    with no_waiting(), pytest.raises(RuntimeError):
        torch.zeros((), device=CUDA).item()


def test_batches_are_copied_while_the_host_goes_on():
    """The host's memory is filled again at once, as a replay does."""
    feed, host = Feed(CUDA), torch.empty(2, 64, 4, 84, 84, dtype=torch.uint8)
    seen = torch.empty(20, device=CUDA)
    feed.move({"obs": host})
    torch.cuda.synchronize()
    with no_waiting():
        for turn in range(20):
            host.fill_(turn)
            there = feed.move({"obs": host})["obs"]
            busy = there.to(torch.float32)
            for _ in range(20):
                busy = busy * 1.0
            torch.mean(busy, out=seen[turn])
    assert seen.tolist() == list(range(20))
    assert feed.staging.sets[0].pinned["obs"].is_pinned()


def test_what_is_published_is_what_it_was_and_nobody_waits():
    post, flat, given = Post(CUDA), torch.zeros(1, 2_000_000, device=CUDA), []
    post({"flat": flat})["flat"]
    with no_waiting():
        for version in range(10):
            flat.fill_(float(version))
            given.append(post({"flat": flat}))
            post({"flat": flat})  # one that nobody looks at
    for version, params in enumerate(given):
        assert params["flat"].unique().tolist() == [version]
        assert is_ready(params)
        assert params["flat"].is_pinned()


def test_priorities_come_over_when_they_are_asked_for():
    priority = torch.rand(2, 32, device=CUDA)
    with no_waiting():
        copy = HostCopy(priority)
        priority.mul_(0.0)
    assert (copy.read() > 0).any()


@pytest.mark.parametrize(("name", "switches"), RECORDED + REMEMBER)
def test_a_recorded_step_is_the_eager_one_and_never_waits(name, switches):
    spec = next(iter(specs_of(name).values()))
    eager, graphed = twins(name, spec, (CUDA, CUDA), **switches)
    before = eager.online.flat.cpu().clone()
    graphed.compile()
    batches = [on(CUDA, numbers(eager, spec, turn)) for turn in range(WARM_UP + 8)]
    noise = [drawn(eager, batch) for batch in batches]
    for batch, some in zip(batches, noise, strict=True):
        eager.step(batch, some)
    for batch, some in zip(batches[: WARM_UP + 1], noise, strict=False):
        graphed.step(batch, some)
    with no_waiting():
        for batch, some in zip(batches[WARM_UP + 1 :], noise[WARM_UP + 1 :], strict=True):
            total = graphed.step(batch, some)
    assert len(graphed._compiled.recorded) == 1
    assert np.isfinite(float(total))
    close(graphed, eager)
    differs(eager, before)
    for metric, value in graphed._metrics.items():
        torch.testing.assert_close(value, eager._metrics[metric], rtol=1e-3, atol=1e-3)


def test_a_step_that_waits_cannot_be_recorded():
    """Whether it raises at once or at the end of recording: it never passes for a graph."""
    x = torch.ones(3, device=CUDA)
    machine = machine_of(CUDA)
    machine.record(lambda: x * 2.0)
    with pytest.raises(RuntimeError):
        machine.record(lambda: x * float(x.sum().item()))


@pytest.mark.parametrize("frames", [1, 4])
def test_a_replay_on_the_device_gives_the_batches_of_one_on_the_host(frames):
    place = functools.partial(TensorFrames, device=CUDA)
    host, there = (ring("none", frames=frames, prioritized=True, kept_in=p) for p in (None, place))
    play, feed = Play(0, columns=6), Feed(CUDA)
    for turn in range(30):
        rollout = play.rollout(5)
        host.add(rollout)
        there.add(rollout)
        if turn < 4:
            continue
        expected = {name: t.clone() for name, t in host.sample().tensors().items()}
        with no_waiting() if turn > 6 else contextlib.nullcontext():
            found = feed.batch(there.sample())
        for name, tensor in found.tensors().items():
            assert tensor.is_cuda
            assert torch.equal(tensor.cpu(), expected[name]), name
    assert (
        host.rows(host.tail, host.head)["obs"] == there.rows(there.tail, there.head)["obs"]
    ).all()
    for replay in (host, there):
        replay.keep([1])
    assert torch.equal(there.sample().obs.cpu(), host.sample().obs)


def test_updates_never_wait_with_the_replay_on_the_device():
    """All of an update: sampling, gathering, the step, priorities of the update before."""
    from runners.measure import Loop
    from runners.resolve import make_config

    config = make_config(
        "dqn", "CartPole-v1", device="cuda", prioritized=True, learning_starts=200, steps=10**6,
        compile=True,
    )  # fmt: skip
    for place in ("host", "device"):
        with contextlib.closing(Loop(config, 2, replay_device=place)) as loop:
            loop.run(10)
            loop.update(WARM_UP + 2)
            with no_waiting():
                loop.update(20)


@pytest.mark.parametrize(
    ("name", "switches"), RECORDED[:1] + REMEMBER[:2] + [("bootstrapped_dqn", {})]
)
def test_an_actor_on_the_device_has_the_values_of_one_on_the_cpu(name, switches):
    spec, module = next(iter(specs_of(name).values())), importlib.import_module(AGENTS[name].module)
    config = getattr(module, AGENTS[name].config)(**switches)
    made = [module.make_actor(config, spec, [np.random.default_rng(0)]) for _ in range(2)]
    here, there = made
    there.move(CUDA)
    flat = torch.randn(here.parameters.flat.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    params = Params(0, 0, Post(CUDA)({"flat": flat.to(CUDA)}), {"epsilon": 0.0})
    for actor in made:
        actor.load_params(params)
    rng, states = np.random.default_rng(1), [actor.initial_state(256) for actor in made]
    for turn in range(5):
        obs = rng.normal(size=(1, 256, 4)).astype(np.float32)
        first, seen = np.full((1, 256), turn == 0), []
        for i, actor in enumerate(made):
            _, states[i], extras = actor.act(obs, first, {}, states[i], False)
            seen.append(extras["seen"])
        np.testing.assert_allclose(
            there.values(seen[0]), here.values(seen[0]), rtol=1e-3, atol=1e-4
        )
        for state in states[1]:
            np.testing.assert_allclose(states[1][state], states[0][state], rtol=1e-3, atol=1e-4)


def test_a_run_that_acts_on_the_device_goes_from_start_to_summary(tmp_path):
    config = config_of("pqn", device="cuda", actor_device="cuda")
    assert run(config, GROUP, str(tmp_path)).summary()["complete"]


def test_bench_tells_how_long_the_device_idles(capsys):
    from runners import bench

    assert bench.main(["--device", "cuda", "--seconds", "0.3"]) == 0
    lines = capsys.readouterr().out
    assert all(word in lines for word in ("simulate", "act", "transfer", "sample", "learn", "idle"))


@pytest.mark.parametrize("more", [{}, {"compile": True}], ids=["eager", "recorded"])
@pytest.mark.parametrize("name", GRADIENT_AGENTS)
def test_a_run_goes_from_start_to_summary(name, more, tmp_path):
    if more and name == "stream_q":
        pytest.skip("its step is not recorded")
    config = dataclasses.replace(config_of(name), device="cuda", **more)
    summary = run(config, GROUP, str(tmp_path)).summary()
    assert summary["complete"]
    assert np.isfinite(summary["final_return"]["per_seed"]).all()
