"""Group networks: each seed its own weights, the dueling head, the flat buffer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.layers import GroupLayerNorm, GroupLinear, MapNorm
from agents.networks import LOOKED_UP, FlatParameters, QNetwork, initialise
from envs.contract import Spec

CPU = torch.device("cpu")
BOX = Spec((2,), np.float32, 0, 3)


def network(seeds=1, hidden=(), spec=BOX, **parts):
    parts = {"layer_norm": False, "dueling": False, **parts}
    return QNetwork(spec, seeds, hidden, device=CPU, **parts)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_a_linear_network_by_hand():
    net = network()
    net.head.weight.data[0] = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    net.head.bias.data[0, 0] = torch.tensor([0.1, 0.2, 0.3])
    # x = (1, 2): 1 * (1, 2, 3) + 2 * (10, 20, 30) + bias
    torch.testing.assert_close(
        net(torch.tensor([[[1.0, 2.0]]])), torch.tensor([[[21.1, 42.2, 63.3]]])
    )


def test_the_dueling_head_by_hand():
    net = network(dueling=True)
    net.head.weight.data[0] = torch.tensor([[1.0, 2.0, 6.0, 10.0], [0.0, 0.0, 0.0, 0.0]])
    net.head.bias.data[0, 0, 3] = 5.0  # the last column is V
    # x = (1, 0): V = 10 + 5, A = (1, 2, 6) with mean 3; V + A - mean = 15 + (-2, -1, 3)
    assert net(torch.tensor([[[1.0, 0.0]]])).tolist() == [[[13.0, 14.0, 18.0]]]


def test_layer_norm_by_hand():
    norm = GroupLayerNorm(2, 2, CPU)
    norm.weight.data[1], norm.bias.data[1] = 3.0, 1.0
    # (2, 6) has mean 4 and deviation 2: (-1, 1); seed 1 makes 3 * (-1, 1) + 1 of it
    found = norm(torch.tensor([[[2.0, 6.0]], [[2.0, 6.0]]]))
    torch.testing.assert_close(
        found, torch.tensor([[[-1.0, 1.0]], [[-2.0, 4.0]]]), atol=1e-5, rtol=0
    )


def test_discrete_observations_are_one_hot():
    net = network(spec=Spec((), np.int64, 4, 2))
    net.head.weight.data[0] = torch.arange(8.0).view(4, 2)
    assert net(torch.tensor([[2, 0]])).tolist() == [[[4.0, 5.0], [0.0, 1.0]]]


@pytest.mark.parametrize("frame_stack", [1, 2])
def test_many_states_are_looked_up_as_their_one_hot_rows_are_multiplied(frame_stack):
    states = LOOKED_UP
    spec = Spec((), np.int64, states, 2)
    assert not network(2, (6,), Spec((), np.int64, states - 1, 2)).looks_up
    assert not network(2, (), spec).looks_up
    net = network(2, (6,), spec, frame_stack=frame_stack)
    assert net.looks_up == (frame_stack == 1)
    initialise(net, generators(1, 2))
    obs = torch.randint(states, (2, 90) + (2,) * (frame_stack == 2), generator=generators(0)[0])
    found = net(obs)
    multiplied = torch.nn.functional.one_hot(obs, states).float().flatten(2)
    for layer in [*net.trunk, net.head]:
        multiplied = layer(multiplied)
    assert torch.equal(found, multiplied)
    leaves = list(net.parameters())
    for one, two in zip(
        *(torch.autograd.grad(q.square().sum(), leaves) for q in (found, multiplied)), strict=True
    ):
        torch.testing.assert_close(one, two)


def test_a_seed_has_the_same_bits_in_any_group():
    together = network(3, (32, 32), layer_norm=True, dueling=True)
    initialise(together, generators(5, 6, 7))
    obs = torch.rand(3, 10, 2, generator=generators(0)[0])
    values = together(obs)
    for k, seed in enumerate((5, 6, 7)):
        alone = network(1, (32, 32), layer_norm=True, dueling=True)
        initialise(alone, generators(seed))
        assert torch.equal(alone(obs[k : k + 1])[0], values[k])
    assert not torch.equal(values[0], values[1])


def test_weights_are_drawn_after_he():
    net = network(1, (400, 400))
    initialise(net, generators(1))
    weight = net.trunk[2].weight  # [1, 400, 400]: variance 2 / 400, 160,000 draws
    assert weight.var().item() == pytest.approx(2 / 400, rel=5 * np.sqrt(2 / 160_000))
    assert not net.trunk[2].bias.any()


def test_parameters_are_views_of_one_padded_buffer():
    net = network(2, (5,))
    initialise(net, generators(1, 2))
    before = [leaf.clone() for leaf in net.parameters()]
    flat = FlatParameters(net)
    assert flat.flat.shape[1] % 64 == 0
    for leaf, old in zip(net.parameters(), before, strict=True):
        assert torch.equal(leaf, old)
    flat.flat.fill_(7.0)
    assert all((leaf == 7.0).all() for leaf in net.parameters())


PIXELS = Spec((84, 84), np.dtype(np.uint8), 0, 6, obs_scale=1 / 255)
BOARD = Spec((10, 10, 4), np.dtype(np.uint8), 0, 3)


def convolutional(spec, seeds, frames, layer_norm=True):
    made = QNetwork(
        spec, seeds, (16,), layer_norm=layer_norm, dueling=False, device=torch.device("cpu"),
        frame_stack=frames,
    )  # fmt: skip
    initialise(made, [torch.Generator().manual_seed(k) for k in range(seeds)])
    return made


def images(spec, frames, seeds=1, batch=3):
    shape = (
        (seeds, batch, frames, *spec.obs_shape) if frames > 1 else (seeds, batch, *spec.obs_shape)
    )
    return torch.randint(
        0, 255, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_the_trunk_of_the_nature_paper():
    """84x84, four frames: 20x20, 9x9 and 7x7 places, 64 · 7 · 7 = 3136 numbers."""
    made = convolutional(PIXELS, 1, 4, layer_norm=False)
    weights = [tuple(leaf.shape[1:]) for leaf in made.parameters() if leaf.ndim > 3]
    assert weights == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3)]
    assert next(m for m in made.trunk if isinstance(m, GroupLinear)).weight.shape == (1, 3136, 16)
    assert made(images(PIXELS, 4)).shape == (1, 3, 6)


@pytest.mark.parametrize(("spec", "frames"), [(PIXELS, 4), (PIXELS, 1), (BOARD, 1), (BOARD, 2)])
def test_convolutions_are_torchs_own_on_channels_in_order(spec, frames):
    """The first layer by hand: frames oldest first, each with its channels, as one image."""
    made, obs = convolutional(spec, 1, frames, layer_norm=False), images(spec, frames)
    conv = made.trunk[0]
    with torch.no_grad():
        got = conv(made._channels_first(obs).float())
        stacked = obs if frames > 1 else obs[:, :, None]
        last = stacked if len(spec.obs_shape) == 3 else stacked[..., None]  # [1, B, S, H, W, C]
        planes = [last[0, :, s, :, :, c] for s in range(frames) for c in range(last.shape[-1])]
        image = torch.stack(planes, dim=1).float() * spec.obs_scale
        expected = torch.conv2d(image, conv.weight[0], conv.bias[0], stride=conv.stride)
    assert torch.allclose(got[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("spec", "frames"), [(PIXELS, 2), (BOARD, 1)])
def test_a_seed_of_a_group_sees_images_as_it_does_alone(spec, frames):
    group, obs = convolutional(spec, 3, frames), images(spec, frames, seeds=3)
    with torch.no_grad():
        together = group(obs)
        for k in range(3):
            alone = convolutional(spec, 1, frames)
            for mine, theirs in zip(alone.parameters(), group.parameters(), strict=True):
                mine.copy_(theirs[k : k + 1])
            assert (alone(obs[k : k + 1]) == together[k]).all()


def test_a_map_is_normalised_over_channels_and_places():
    made = convolutional(BOARD, 1, 1)
    norm = next(module for module in made.trunk if isinstance(module, MapNorm))
    out = norm(torch.randn(1, 5, 16, 8, 8) * 3 + 2)
    assert out.mean((2, 3, 4)).abs().max() < 1e-5
    assert (out.var((2, 3, 4), unbiased=False) - 1).abs().max() < 1e-3
