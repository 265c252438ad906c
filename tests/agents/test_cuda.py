"""On a GPU: the host never waits inside a step, and the numbers are the CPU's to float tolerance."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
import torch

from agents.contract import Batch
from runners.train import run
from tests.agents.test_groups import SEEDS as GROUP
from tests.agents.test_groups import config_of
from tests.agents.test_meta import BATCH, CASES, GRADIENT_AGENTS, SEEDS, SPECS, make_learner

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
    return Batch(
        obs, whole(spec.num_actions), floats(), floats(), next_obs, weight=floats(),
        extras={"returns": floats()},
    )  # fmt: skip


@contextlib.contextmanager
def no_waiting():
    """Whatever makes the host wait for the device raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize(("name", "switches"), CASES)
def test_a_step_never_waits_and_gives_the_numbers_of_the_cpu(name, switches, spec):
    cuda = torch.device("cuda")
    here, there = (make_learner(name, spec, device, **switches) for device in (CPU, cuda))
    there.online.flat.copy_(here.online.flat)  # the devices' generators draw other weights
    if hasattr(there, "target"):
        there.target.flat.copy_(here.target.flat)
    given, batch = batch_on(CPU, spec), batch_on(cuda, spec)
    here.step(given, {})  # both once: lazy initialisation may wait
    there.step(batch, {})
    for _ in range(5):
        here.step(given, {})
    with no_waiting():
        for _ in range(5):
            there.step(batch, {})
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
