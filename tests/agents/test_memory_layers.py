"""What remembers: an LSTM and attention by hand, and many rows at once against one row at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from agents.memory import GroupAttention, GroupLSTM

CPU = torch.device("cpu")


def logistic(x):
    return 1.0 / (1.0 + math.exp(-x))


def drawn(layer, seeds):
    """All parameters at random, each seed's its own."""
    for k in range(seeds):
        generator = torch.Generator().manual_seed(k)
        for weight in layer.parameters():
            weight.data[k].normal_(0.0, 0.7, generator=generator)
    return layer


def lstm(seeds=2):
    return drawn(GroupLSTM(seeds, 3, 4, CPU), seeds)


def attention(seeds=2, context=4):
    return drawn(GroupAttention(seeds, 3, 8, context, CPU), seeds)


LAYERS = {"lstm": lstm, "attention": attention}


def rows(seeds, time, lanes, seed=0):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(seeds, time, lanes, 3)).astype(np.float32))
    return x, torch.from_numpy(rng.random((seeds, time, lanes)) < 0.2)


def test_an_lstm_of_one_cell_by_hand():
    layer = GroupLSTM(1, 1, 1, CPU)
    # x W + h U + b for the gates i, f, o and the candidate g
    layer.inward.data[0, 0] = torch.tensor([1.0, -1.0, 0.5, 2.0])
    layer.onward.data[0, 0] = torch.tensor([0.5, 1.0, -0.5, 1.0])
    layer.bias.data[0, 0] = torch.tensor([0.0, 1.0, 0.0, 0.1])
    # row 0, x = 1: c0 = σ(1) tanh(2.1), h0 = σ(½) tanh c0; nothing was there to be forgotten
    c0 = logistic(1.0) * math.tanh(2.1)
    h0 = logistic(0.5) * math.tanh(c0)
    # row 1, x = -2: i = σ(-2 + ½ h0), f = σ(2 + h0 + 1), o = σ(-1 - ½ h0), g = tanh(-4 + h0 + 0.1)
    c1 = logistic(3.0 + h0) * c0 + logistic(-2.0 + 0.5 * h0) * math.tanh(-3.9 + h0)
    h1 = logistic(-1.0 - 0.5 * h0) * math.tanh(c1)
    x, first = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1), torch.zeros(1, 2, 1, dtype=torch.bool)
    out, memory = layer(x, first, layer.initial_state(1))
    assert out.flatten().tolist() == pytest.approx([h0, h1], abs=1e-6)
    assert memory["c"].item() == pytest.approx(c1, abs=1e-6)
    assert memory["h"].item() == pytest.approx(h1, abs=1e-6)


def test_a_new_lstm_keeps_what_it_has():
    layer = lstm()
    layer.reset([torch.Generator().manual_seed(k) for k in range(2)])
    # biases in the order i, f, o, g: only those of the forget gates are 1
    assert layer.bias[0, 0].tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8


def test_attention_is_the_mean_of_what_was_seen_where_all_scores_are_equal():
    layer = GroupAttention(1, 1, 4, 3, CPU)
    # inward is the identity of one number into the first of four; values are the normalised row,
    # queries and keys are 0, so that every visible step has the same share; the MLP adds nothing
    layer.inward.weight.data[0, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    layer.qkv.weight.data[0, :, 8:] = torch.eye(4)
    layer.outward.weight.data[0] = torch.eye(4)
    x = torch.tensor([3.0, -2.0, 5.0, 7.0]).view(1, 4, 1, 1)
    first = torch.tensor([True, False, False, False]).view(1, 4, 1)
    out, memory = layer(x, first, layer.initial_state(1))
    # (a, 0, 0, 0) has mean a/4 and deviation |a| √3/4: normalised ± (√3, -1/√3, -1/√3, -1/√3)
    unit, rest = math.sqrt(3.0), -1.0 / math.sqrt(3.0)
    signs = [1.0, -1.0, 1.0, 1.0]
    seen = [[0], [0, 1], [0, 1, 2], [1, 2, 3]]  # the newest three, the row itself among them
    for t, steps in enumerate(seen):
        sign = sum(signs[j] for j in steps) / len(steps)
        expected = [x[0, t].item() + sign * unit] + [sign * rest] * 3
        assert out[0, t, 0].tolist() == pytest.approx(expected, abs=1e-3)
    assert memory["known"].tolist() == [[[True, True]]]


def test_attention_prefers_near_steps_where_its_bias_says_so():
    layer = GroupAttention(1, 1, 4, 2, CPU)
    layer.inward.weight.data[0, 0, 0] = 1.0
    layer.qkv.weight.data[0, :, 8:] = torch.eye(4)
    layer.outward.weight.data[0] = torch.eye(4)
    layer.distance.data[0, 0] = torch.tensor([0.0, math.log(3.0)])  # of head 0, which sees number 0
    x = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    out, _ = layer(x, torch.zeros(1, 2, 1, dtype=torch.bool), layer.initial_state(1))
    # row 1: shares 1 : 3 for itself (-√3) and the step before (+√3): ½ √3, added to x = -1
    assert out[0, 1, 0, 0].item() == pytest.approx(-1.0 + 0.5 * math.sqrt(3.0), abs=1e-3)
    # the other heads have no bias: the two normalised numbers cancel
    assert out[0, 1, 0, 1:].tolist() == pytest.approx([0.0] * 3, abs=1e-3)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("cuts", [[11], [1] * 11, [4, 7], [2, 1, 8]])
def test_rows_at_once_are_rows_in_parts(name, cuts):
    layer = LAYERS[name]()
    x, first = rows(2, 11, 3)
    whole, after = layer(x, first, layer.initial_state(3))
    parts, memory, at = [], layer.initial_state(3), 0
    for length in cuts:
        part = slice(at, at + length)
        out, memory = layer(x[:, part], first[:, part], memory)
        parts.append(out)
        at += length
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    for key, value in after.items():
        if key == "known":
            assert (memory[key] == value).all()
        else:
            seen = after.get("known", torch.ones(()))
            shown = seen.unsqueeze(-1) if seen.dim() else seen
            torch.testing.assert_close(memory[key] * shown, value * shown, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_is_remembered_across_the_beginning_of_an_episode(name):
    layer = LAYERS[name]()
    x, first = rows(2, 6, 3)
    first[:] = False
    first[:, 3] = True
    out, _ = layer(x, first, layer.initial_state(3))
    alone, _ = layer(x[:, 3:], first[:, 3:], layer.initial_state(3))
    torch.testing.assert_close(out[:, 3:], alone, atol=1e-5, rtol=1e-5)
    assert not torch.equal(out[:, 2], layer(x[:, 2:3], first[:, 2:3], layer.initial_state(3))[0])


def test_attention_sees_the_newest_steps_and_no_more():
    layer = attention(context=4)
    x, first = rows(2, 8, 1)
    first[:] = False
    out, _ = layer(x, first, layer.initial_state(1))
    other = x.clone()
    other[:, 3] += 1.0
    moved, _ = layer(other, first, layer.initial_state(1))
    changed = (out != moved).any(-1).any(-1).any(0).tolist()
    assert changed == [False] * 3 + [True] * 4 + [False]


@pytest.mark.parametrize("name", LAYERS)
def test_a_seed_in_a_group_is_the_seed_alone(name):
    layer = LAYERS[name](2)
    x, first = rows(2, 5, 3)
    both, _ = layer(x, first, layer.initial_state(3))
    for weight in layer.parameters():
        weight.data = weight.data[1:].clone()
    alone, _ = layer(x[1:], first[1:], layer.initial_state(3))
    assert torch.equal(both[1], alone[0])
