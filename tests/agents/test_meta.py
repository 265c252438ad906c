"""Every gradient learner's step runs on torch's meta device, where nothing can be read.

What waits for a GPU (`.item()`, a branch on a value, `.cpu()`) raises there, on any machine.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from agents import AGENTS
from agents.contract import Batch
from agents.sequences import pack
from envs.contract import Spec

META = torch.device("meta")
SEEDS, BATCH = 2, 16
GRADIENT_AGENTS = [name for name, entry in AGENTS.items() if entry.gradient]
SPECS = {
    "box": Spec((4,), np.float32, 0, 3),
    "discrete": Spec((), np.int64, 5, 3),
    "pixels": Spec((40, 40), np.uint8, 0, 3, obs_scale=1 / 255),
    "board": Spec((10, 10, 4), np.uint8, 0, 3),
}
CONTINUOUS = {
    "rows": Spec(
        (5,), np.float32, 0, 0, (2,), np.float32,
        np.array([-2.0, -1.0], np.float32), np.array([2.0, 3.0], np.float32),
    ),
}  # fmt: skip
SWITCHES = {
    "dqn": [
        {}, {"prioritized": True, "actor_priorities": True}, {"double": True}, {"dueling": True}, {"layer_norm": True}, {"munchausen": True},
        {"distributional": "c51"}, {"distributional": "qr"}, {"distributional": "iqn", "atoms": 8},
        {"noisy": True}, {"dropout": 0.2}, {"value_rescale": True}, {"bf16": True}, {"optimizer": "lamb"},
        {"distributional": "c51", "double": True, "dueling": True, "noisy": True},
        {"distributional": "c51", "munchausen": True, "dropout": 0.1},
        {"distributional": "qr", "munchausen": True, "dueling": True, "value_rescale": True},
        {"distributional": "iqn", "munchausen": True, "noisy": True, "dropout": 0.1, "dueling": True,
         "layer_norm": True},
        {"distributional": "iqn", "double": True, "hidden": ()},
        {"memory": "lstm", "double": True, "burn_in": 2, "sequence_length": 8, "batch_size": 4},
        {"memory": "attention", "burn_in": 3, "context": 4, "sequence_length": 8, "batch_size": 4,
         "distributional": "iqn", "atoms": 4, "noisy": True},
    ],
    "pqn": [{}, {"layer_norm": False}, {"memory": "lstm"}, {"bf16": True}, {"optimizer": "lars"}],
    "sac": [
        {}, {"normalise_obs": True, "norm": "layer"}, {"learn_alpha": False, "bf16": True},
        {"critics": 4, "target_critics": 2, "dropout": 0.1, "policy_value": "mean", "policy_period": 2},
        {"norm": "batch", "target_network": False, "renorm_after": 1},
        {"norm": "batch", "target_network": False, "quantiles": 5},
        {"quantiles": 5, "critics": 3, "n_step": 2},
    ],
    "td3": [{}, {"smoothing": 0.0, "critics": 3, "normalise_obs": True, "norm": "layer"}],
    "naf": [{}, {"normalise_obs": True, "norm": "layer"}],
}  # fmt: skip


def specs_of(name):
    return CONTINUOUS if AGENTS[name].continuous else SPECS


def make_learner(name, spec, device=META, **hyper):
    if AGENTS[name].continuous:
        hyper = {"replay_size": 1_000, **hyper}
    module = importlib.import_module(AGENTS[name].module)
    config = getattr(module, AGENTS[name].config)(**hyper)
    return module.make_learner(
        config,
        spec,
        4,
        [np.random.SeedSequence([k]) for k in range(SEEDS)],
        [np.random.default_rng(k) for k in range(SEEDS)],
        device,
    )


def meta_batch(spec):
    shape = (SEEDS, BATCH)

    def floats(*more):
        return torch.zeros((*shape, *more), device=META)

    def whole():
        return torch.zeros(shape, dtype=torch.int64, device=META)

    obs, next_obs = (whole() if spec.num_states else floats(*spec.obs_shape) for _ in range(2))
    action = whole() if spec.num_actions else floats(*spec.action_shape)
    return Batch(
        obs,
        action,
        floats(),
        floats(),
        next_obs,
        weight=floats(),
        extras={"returns": floats(), "number": whole()},
    )


def meta_sequences(learner, spec):
    """Like a `SequenceReplay`'s, of its learner's burn-in and length."""
    config, lanes = getattr(learner, "hyper", learner), 4
    burn_in, rows = getattr(config, "burn_in", 0), getattr(config, "sequence_length", 7) + 1
    shape = (SEEDS, rows * lanes)

    def zeros(*shape, dtype=torch.float32):
        return torch.zeros(shape, dtype=dtype, device=META)

    obs = zeros(SEEDS, burn_in + rows, lanes, *spec.obs_shape)
    first = zeros(*obs.shape[:3], dtype=torch.bool)
    memory = learner.online.network.memory
    remembered = memory.initial_state(lanes) if memory.stored else {}
    places, action = (zeros(*shape, dtype=torch.int64) for _ in range(2))
    return Batch(
        places, action, zeros(*shape), zeros(*shape), places.clone(), weight=zeros(*shape),
        extras={
            **pack(obs.to(torch.int64) if spec.num_states else obs, first, remembered),
            "counts": zeros(*shape),
            "returns": zeros(*shape),
        },
    )  # fmt: skip


def batch_of(learner, spec):
    memory = getattr(learner.online.network, "memory", None)
    return meta_batch(spec) if memory is None else meta_sequences(learner, spec)


CASES = [(name, switches) for name in GRADIENT_AGENTS for switches in SWITCHES.get(name, [{}])]
STEPS = [
    pytest.param(name, switches, spec, id=f"{name}-{switches}-{shown}")
    for name, switches in CASES
    for shown, spec in specs_of(name).items()
]


def kinds_of_updates(learner):
    """A number of updates done before each kind of update, as with the policy and without; 0 where all are alike."""
    if not hasattr(learner, "_due"):
        return [0]
    h, kinds = learner.hyper, {}
    for before in (0, h.renorm_after):
        for updates in range(before, before + h.policy_period * h.target_period):
            learner.updates = updates
            kinds.setdefault(learner._due(), updates)
    return list(kinds.values())


@pytest.mark.parametrize(("name", "switches", "spec"), STEPS)
def test_a_step_reads_nothing(name, switches, spec):
    learner = make_learner(name, spec, **switches)
    for updates in kinds_of_updates(learner):
        learner.updates = updates
        for _ in range(2):
            batch = batch_of(learner, spec)
            total = learner.step(batch, learner.draw(batch) if hasattr(learner, "draw") else {})
    assert total.device == META
    assert total.shape == ()


@pytest.mark.parametrize(
    "reads",
    [
        lambda q: q.sum().item(),
        lambda q: bool(q.max() > 0),
        lambda q: q.detach().cpu(),
        lambda q: q.detach().numpy(),
    ],
    ids=["item", "branch", "cpu", "numpy"],
)
@pytest.mark.parametrize("name", GRADIENT_AGENTS)
def test_a_step_that_reads_a_value_is_caught(name, reads):
    spec = next(iter(specs_of(name).values()))
    learner = make_learner(name, spec)

    step = learner.optimizer.step

    def reading(loss, *rest):
        reads(loss)
        return step(loss, *rest)

    learner.optimizer.step = reading
    batch = batch_of(learner, spec)
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        learner.step(batch, learner.draw(batch) if hasattr(learner, "draw") else {})
