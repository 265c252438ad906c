"""Convolutions in bfloat16: near float32, exact to resume, refused where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents import dqn
from agents.contract import Batch
from agents.layers import GroupConv, GroupLinear
from envs.contract import Spec
from runners.errors import BadInput
from runners.group import make_setting
from runners.resolve import make_config
from tests.agents.test_meta import META, meta_batch

CPU = torch.device("cpu")
SPEC = Spec((84, 84), np.dtype(np.uint8), 0, 4, obs_scale=1 / 255)
SWITCHES = [
    {}, {"double": True, "dueling": True}, {"layer_norm": True}, {"noisy": True}, {"hidden": ()},
    {"distributional": "c51"}, {"distributional": "iqn", "atoms": 4}, {"dropout": 0.1},
]  # fmt: skip


def learner_of(bf16, device=CPU, spec=SPEC, seeds=1, **changes):
    config = dqn.DQNConfig(
        **{"hidden": (512,), "frame_stack": 4, "batch_size": 8, "bf16": bf16, **changes}
    )
    return dqn.make_learner(
        config, spec, 8, [np.random.SeedSequence(k) for k in range(seeds)],
        [np.random.default_rng(k) for k in range(seeds)], device,
    )  # fmt: skip


def batch_of(seed, seeds=1, size=8):
    rng, shape = np.random.default_rng(seed), (seeds, size)

    def frames():
        return torch.from_numpy(rng.integers(256, size=(*shape, 4, 84, 84), dtype=np.uint8))

    return Batch(
        frames(), torch.from_numpy(rng.integers(4, size=shape)),
        torch.from_numpy(rng.normal(size=shape).astype(np.float32)), torch.full(shape, 0.99), frames(),
    )  # fmt: skip


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("switches", SWITCHES)
def test_outputs_are_near_those_of_float32(switches):
    plain, small = (learner_of(bf16, **switches).online.network for bf16 in (False, True))
    obs = batch_of(0).obs
    with torch.no_grad():
        expected, found = plain(obs), small(obs)
        layers = list(zip(small.activations(obs), plain.activations(obs), strict=True))
    assert found.dtype == torch.float32
    assert 0 < relative(found, expected) < 2e-2
    for mine, theirs in layers:
        assert mine.dtype == torch.float32
        assert relative(mine, theirs) < 2e-2


def test_parameters_and_all_else_stay_float32():
    learner = learner_of(True)
    learner.step(batch_of(0), {})
    assert {leaf.dtype for leaf in learner.online.leaves} == {torch.float32}
    assert learner.online.flat.dtype == learner.optimizer.mean.dtype == torch.float32
    computed = [
        layer.bf16 if isinstance(layer, GroupLinear) else layer.dtype == torch.bfloat16
        for layer in learner.online.network.modules() if isinstance(layer, GroupConv | GroupLinear)
    ]  # fmt: skip
    assert computed == [True, True, True, True, False]  # the head's five numbers are float32


@pytest.mark.parametrize("seed", range(4))
def test_a_step_down_its_gradient_gains_what_one_down_float32s_does(seed):
    """The loss falls along a direction by its cosine with the gradient: at least 99 % in every parameter.

    ReLUs that rounding opens or closes turn it; the loss itself is within 2 %. After one step from zero
    moments Adam's mean is a tenth of the gradient, which is not clipped here.
    """
    learners = [learner_of(bf16, max_grad_norm=1e9) for bf16 in (False, True)]
    losses = [learner.step(batch_of(seed), {}).item() for learner in learners]
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
    plain, small = (learner.online.views(learner.optimizer.mean) for learner in learners)
    for mine, theirs in zip(small, plain, strict=True):
        assert torch.cosine_similarity(mine.flatten(), theirs.flatten(), 0) > 0.99
        assert not torch.equal(mine, theirs)


def test_a_run_goes_on_to_the_same_bits():
    whole, first, second = (learner_of(True, double=True) for _ in range(3))
    for seed in range(6):
        whole.step(batch_of(seed), {})
    for seed in range(3):
        first.step(batch_of(seed), {})
    second.online.flat.copy_(first.online.flat)
    second.target.flat.copy_(first.target.flat)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    for seed in range(3, 6):
        second.step(batch_of(seed), {})
    assert torch.equal(second.online.flat, whole.online.flat)


def test_a_seed_beside_another_has_its_own_bits():
    together, alone = learner_of(True, seeds=2), learner_of(True)
    for seed in range(3):
        batch = batch_of(seed, seeds=2)
        together.step(batch, {})
        alone.step(
            Batch(batch.obs[:1], batch.action[:1], batch.reward[:1], batch.discount[:1], batch.next_obs[:1]),
            {},
        )  # fmt: skip
    assert torch.equal(together.online.flat[0], alone.online.flat[0])


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize(
    "spec",
    [
        Spec((40, 40), np.uint8, 0, 3, obs_scale=1 / 255),
        Spec((10, 10, 4), np.uint8, 0, 3),
    ],
    ids=["pixels", "board"],
)
def test_a_step_reads_nothing(switches, spec):
    learner = learner_of(True, META, spec, 2, **{**switches, "frame_stack": 1})
    batch = meta_batch(spec)
    assert learner.step(batch, learner.draw(batch)).device == META


def test_without_images_it_is_refused():
    with pytest.raises(BadInput, match="bf16: CartPole-v1 shows no images"):
        make_setting(make_config("dqn", "CartPole-v1", bf16=True))


def bf16_layers(network):
    return [layer.bf16 for layer in network.modules() if isinstance(layer, GroupLinear)]


def test_on_a_gpu_all_hidden_layers_are_of_it():
    """Meta stands for any device that is no CPU; the last layer and all parameters stay float32."""
    box = Spec((4,), np.float32, 0, 3)
    config = dqn.DQNConfig(hidden=(8, 8, 8), bf16=True)
    for device, spec, expected in (
        (META, box, [True, True, True, False]),
        (META, SPEC, [True, True, True, False]),
        (CPU, SPEC, [True, False, False, False]),
        (CPU, box, [False] * 4),
    ):
        network = dqn.make_network(config, spec, 2, device)
        assert bf16_layers(network) == expected
        assert all(leaf.dtype == torch.float32 for leaf in network.parameters())


def test_pqn_has_it_too():
    from tests.agents.test_meta import make_learner

    plain, small = (
        make_learner("pqn", SPEC, CPU, bf16=bf16, frame_stack=4, hidden=(64,)).network
        for bf16 in (False, True)
    )
    obs = batch_of(0, seeds=2).obs
    with torch.no_grad():
        assert 0 < relative(small(obs), plain(obs)) < 2e-2


def test_a_setting_that_came_later_changes_an_identity_only_where_it_is_used():
    from runners.config import config_id, from_json, to_json

    none, plain, used = (
        make_config("pqn", "ALE/Breakout-v5", **changes)
        for changes in ({}, {"bf16": False}, {"bf16": True})
    )
    assert "bf16" not in to_json(plain)["hyper"]
    assert config_id(none) == config_id(plain) != config_id(used)
    for config in (plain, used):
        assert from_json(to_json(config)) == config
    assert "bf16" in to_json(make_config("dqn", "CartPole-v1"))["hyper"]  # which had it before
