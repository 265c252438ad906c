"""On a GPU: the host never waits inside a step, and the numbers are the CPU's to float tolerance."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
import torch

from agents import AGENTS
from agents.contract import Batch
from runners.train import run
from tests.agents.test_groups import SEEDS as GROUP
from tests.agents.test_groups import config_of
from tests.agents.test_meta import BATCH, GRADIENT_AGENTS, SEEDS, STEPS, make_learner

CPU = torch.device("cpu")
pytestmark = pytest.mark.cuda


def batch_on(device, spec):
    """The same numbers on any device."""
    generator = torch.Generator().manual_seed(0)
    shape = (SEEDS, BATCH)

    def floats(*more):
        return torch.rand((*shape, *more), generator=generator).to(device)

    def whole(bound):
        return torch.randint(bound, shape, generator=generator).to(device)

    obs, next_obs = (
        whole(spec.num_states) if spec.num_states else floats(*spec.obs_shape) for _ in range(2)
    )
    action = whole(spec.num_actions) if spec.num_actions else floats(*spec.action_shape)
    return Batch(
        obs, action, floats(), floats(), next_obs, weight=floats(),
        extras={"returns": floats()},
    )  # fmt: skip


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


@pytest.mark.parametrize(("name", "switches", "spec"), STEPS)
def test_a_step_never_waits_and_gives_the_numbers_of_the_cpu(name, switches, spec):
    cuda = torch.device("cuda")
    here, there = (make_learner(name, spec, device, **switches) for device in (CPU, cuda))
    for of, its in buffers(there).items():  # the devices' generators draw other weights
        its.flat.copy_(buffers(here)[of].flat)
    given, batch = batch_on(CPU, spec), batch_on(cuda, spec)
    # the numbers of an actor-critic have no step without: the CPU's, on both
    drawn = here.draw(given) if AGENTS[name].continuous else {}
    moved = {kind: numbers.to(cuda) for kind, numbers in drawn.items()}
    here.step(given, drawn)  # both once: lazy initialisation may wait
    there.step(batch, moved)
    for _ in range(5):
        here.step(given, drawn)
    with no_waiting():
        for _ in range(5):
            there.step(batch, moved)
    torch.testing.assert_close(there.online.flat.cpu(), here.online.flat, rtol=1e-3, atol=1e-4)


def test_waiting_would_be_noticed():
    with no_waiting(), pytest.raises(RuntimeError):
        torch.zeros((), device="cuda").item()


@pytest.mark.parametrize("name", GRADIENT_AGENTS)
def test_a_run_goes_from_start_to_summary(name, tmp_path):
    config = dataclasses.replace(config_of(name), device="cuda")
    summary = run(config, GROUP, str(tmp_path)).summary()
    assert summary["complete"]
    assert np.isfinite(summary["final_return"]["per_seed"]).all()
