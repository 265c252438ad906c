"""Bootstrapped DQN: one step by hand, masks, priors, heads that last an episode, and the vote."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.bootstrapped_dqn import (
    BootstrappedDQNConfig,
    Ensemble,
    bootstrap_mask,
    make_actor,
    make_learner,
    vote,
)
from agents.contract import Batch, Params
from envs.contract import Spec

CPU = torch.device("cpu")
SPEC = Spec((1,), np.float32, 0, 2)


def learner(seeds=1, spec=SPEC, **changes):
    config = BootstrappedDQNConfig(
        **{"hidden": (), "batch_size": 4, "heads": 2, "prior_scale": 0.0, **changes}
    )
    return make_learner(
        config, spec, 2, [np.random.SeedSequence([k, 1]) for k in range(seeds)],
        [np.random.default_rng([k, 2]) for k in range(seeds)], CPU,
    )  # fmt: skip


def batch(numbers):
    return Batch(
        obs=torch.tensor([[[1.0], [2.0]]]),
        action=torch.tensor([[0, 1]]),
        reward=torch.tensor([[1.0, 0.0]]),
        discount=torch.tensor([[0.5, 0.5]]),
        next_obs=torch.tensor([[[2.0], [1.0]]]),
        extras={"number": torch.tensor([numbers])},
    )


def numbers_with(masks, of, heads=2, share=0.5):
    """Transitions of which a learner's heads learn as these masks say."""
    key = of.online.network.mask_key.data
    found = bootstrap_mask(torch.arange(1_000).view(1, -1), key, heads, share)[0].T.tolist()
    return [found.index(list(map(float, mask))) for mask in masks]


@pytest.mark.parametrize("double", [True, False])
def test_the_loss_by_hand(double):
    made = learner(double=double, mask_share=0.5)
    # head 0: Q(s) = (s, 2 s), its target's (3 s, s); head 1: Q(s) = (s, -s), its target's (s, s)
    for network, weights in (
        (made.online.network, [[[1.0, 2.0]], [[1.0, -1.0]]]),
        (made.target.network, [[[3.0, 1.0]], [[1.0, 1.0]]]),
    ):
        network.free_head_weight.data[0] = torch.tensor(weights)
        network.free_head_bias.data.zero_()
    numbers = numbers_with([(1, 1), (0, 1)], made)
    out = made.loss(made.online.network, made.target.network, batch(numbers), {})
    # Sample 0, s = 1 to s' = 2, action 0, r = 1.
    #   Head 0: Q = 1. Double: online chooses 1 (4 > 2), target values it 2: goal 1 + ½ 2 = 2, error 1,
    #   loss ½. Plain: target's best is 6: goal 4, error 3, Huber 3 - ½ = 2.5.
    #   Head 1: Q = 1. Target values every action 2: goal 2, error 1, loss ½.
    # Sample 1, s = 2 to s' = 1, action 1, r = 0. Head 0 does not learn of it.
    #   Head 1: Q = -2, goal ½ 1 = ½, error 2.5, Huber 2.5 - ½ = 2.
    first = (0.5 + 0.5) / 2 if double else (2.5 + 0.5) / 2
    assert out.loss[0].tolist() == pytest.approx([first, (0.0 + 2.0) / 2])


def test_only_the_masked_heads_move():
    made = learner(mask_share=0.5)
    before = made.online.network.free_head_weight.data.clone()
    made.step(batch(numbers_with([(0, 1), (0, 1)], made)), {})
    moved = (made.online.network.free_head_weight.data != before).flatten(2).any(-1)
    assert moved.tolist() == [[False, True]]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_masks_are_drawn_once_in_their_share_and_apart(share):
    numbers = torch.arange(20_000).expand(2, -1)  # two seeds count alike, and draw apart
    keys = torch.tensor([[0.25], [0.75]])
    mask = bootstrap_mask(numbers, keys, 5, share)
    assert torch.equal(mask, bootstrap_mask(numbers, keys, 5, share))
    deviation = np.sqrt(share * (1 - share) / 20_000)
    assert ((mask.mean(-1) - share).abs() <= 5 * deviation).all()
    if 0 < share < 1:
        heads = mask[0].numpy()
        both = mask.flatten(0, 1).numpy()
        assert np.abs(np.corrcoef(both) - np.eye(10)).max() < 5 / np.sqrt(20_000)
        following = [np.corrcoef(h[1:], h[:-1])[0, 1] for h in heads]
        assert np.abs(following).max() < 5 / np.sqrt(20_000)


def test_a_prior_is_added_and_never_learned():
    made = learner(prior_scale=2.0, hidden=(3,), mask_share=1.0)
    network = made.online.network
    obs = torch.tensor([[[1.0], [2.0]]])
    priors = {n: p.data.clone() for n, p in network.named_parameters() if n.startswith("prior")}
    whole = network(obs).detach()
    free = {n: p.data.clone() for n, p in network.named_parameters() if n.startswith("free")}
    for name in free:
        network.get_parameter(name).data.zero_()
    prior = network(obs).detach()
    for name in free:
        network.get_parameter(name).data.copy_(free[name])
        network.get_parameter(name.replace("free", "prior")).data.zero_()
    torch.testing.assert_close(network(obs).detach() + prior, whole)
    for name, value in priors.items():
        network.get_parameter(name).data.copy_(value)
    assert prior.abs().max() > 0
    made.step(batch([0, 1]), {})
    for name, value in priors.items():
        assert torch.equal(network.get_parameter(name).data, value)
    assert any(not torch.equal(network.get_parameter(n).data, v) for n, v in free.items())


def test_a_transitions_mask_stays_through_updates_a_checkpoint_and_a_seed_that_leaves():
    made = learner(seeds=2, target_tau=0.3)
    keys = made.online.network.mask_key.data.clone()
    one = batch([0, 1])
    two = {
        name: getattr(one, name).repeat_interleave(2, 0)
        for name in ("obs", "action", "reward", "discount", "next_obs")
    }
    made.step(replace(one, **two, extras={"number": torch.tensor([[0, 1], [0, 1]])}), {})
    made.target.flat.lerp_(made.online.flat, made.hyper.target_tau)
    assert torch.equal(made.online.network.mask_key.data, keys)
    assert torch.equal(made.target.network.mask_key.data, keys)
    other = learner(seeds=2)
    other.online.network.mask_key.data.zero_()
    other.load_state_dict(made.state_dict())
    assert torch.equal(other.online.network.mask_key.data, keys)
    other.keep([1])
    assert torch.equal(other.online.network.mask_key.data, keys[1:])


def test_members_and_seeds_are_drawn_apart():
    first, second = (learner(seeds).online.network for seeds in (2, 1))
    weights = first.free_head_weight.data.flatten(2).flatten(0, 1)
    assert len({tuple(row) for row in weights.tolist()}) == 4
    assert torch.equal(first.free_head_weight.data[0], second.free_head_weight.data[0])
    keys = first.mask_key.data
    assert keys[0] == second.mask_key.data[0] != keys[1]


def test_only_legal_actions_are_bootstrapped_from():
    """One head, Q(s) = (s, 2 s): of both, 1 is taken at s' = 2 and pays 4; where 0 alone is legal, 2."""
    made = learner(heads=1, mask_share=1.0, double=False)
    for network in (made.online.network, made.target.network):
        network.free_head_weight.data[0] = torch.tensor([[[1.0, 2.0]]])
        network.free_head_bias.data.zero_()
    network = made.online.network
    for legal, goal in (([True, True], 3.0), ([True, False], 2.0)):  # 1 + ½ of it
        mask = torch.tensor([[legal, [True, True]]])
        out = made.loss(network, network, replace(batch([0, 0]), next_action_mask=mask), {})
        assert out.metrics["target_mean"][0, 0] == goal


def test_what_is_looked_into_is_the_first_head_of_each_seed():
    """Unit j of seed k's head 0 is max(0, ±s): w = 1 and -1, b = 0, whatever the prior and head 1 say."""
    made = make_actor(
        BootstrappedDQNConfig(hidden=(2,), heads=2),
        SPEC,
        [np.random.default_rng(k) for k in (0, 1)],
    )
    made.network.reset([torch.Generator().manual_seed(k) for k in (0, 1)])
    weight, bias = (
        made.network.get_parameter(f"free_trunk_0_{name}") for name in ("weight", "bias")
    )
    weight.data[0, 0], weight.data[1, 0] = torch.tensor([[1.0, -1.0]]), torch.tensor([[-2.0, 2.0]])
    bias.data[:, 0] = 0.0
    seen = np.array([[[3.0], [-1.0]], [[3.0], [-1.0]]], np.float32)
    (found,) = made.activations(seen)
    assert found.tolist() == [[[3.0, 0.0], [0.0, 1.0]], [[0.0, 6.0], [2.0, 0.0]]]


def test_the_vote_by_hand():
    # three heads: 1, 1 and 0; then 2, 1 and 0, a tie of all
    values = np.array([[[0.0, 1.0, 0.9], [0.0, 0.0, 9.0]],
                       [[0.0, 5.0, 1.0], [0.0, 1.0, 0.0]],
                       [[9.0, 0.0, 1.0], [5.0, 0.0, 0.0]]])[None]  # fmt: skip
    assert vote(values).tolist() == [[1, 0]]
    # without action 1 head 0 takes 2, head 1 takes 2, head 2 takes 0; 0 is not legal in the second
    mask = np.array([[[True, False, True], [False, True, True]]])
    assert vote(values, mask).tolist() == [[2, 1]]


def actor(heads=7):
    config = BootstrappedDQNConfig(hidden=(), heads=heads, prior_scale=0.0)
    made = make_actor(config, SPEC, [np.random.default_rng(k) for k in range(2)])
    flat = made.parameters.flat.clone()
    made.load_params(Params(1, 0, {"flat": flat}, {"epsilon": 0.0}))
    # odd heads prefer action 1, even ones 0
    sign = torch.tensor([[-1.0, 1.0] if h % 2 else [1.0, -1.0] for h in range(heads)])
    made.network.free_head_weight.data[:] = sign.view(1, heads, 1, 2)
    return made


def test_a_head_acts_from_the_beginning_of_an_episode_to_its_end():
    made, obs = actor(), np.ones((2, 500, 1), np.float32)
    state, first = made.initial_state(500), np.ones((2, 500), bool)
    actions, state, _ = made.act(obs, first, {}, state, True)
    heads = state["head"].copy()
    assert (actions == heads % 2).all()
    # 500 draws of one of seven, in each seed: 71 ± 5 deviations of 7.8
    counts = np.stack([np.bincount(h, minlength=7) for h in heads])
    assert np.abs(counts - 500 / 7).max() < 5 * 7.8
    first[:] = False
    first[0, :250] = True
    for _ in range(3):
        actions, state, _ = made.act(obs, first, {}, state, True)
        first[:] = False
    assert (state["head"][0, 250:] == heads[0, 250:]).all()
    assert (state["head"][1] == heads[1]).all()
    assert (state["head"][0, :250] != heads[0, :250]).mean() > 0.7
    assert (actions == state["head"] % 2).all()


def test_greedy_actions_are_the_votes():
    made, obs = actor(heads=7), np.ones((2, 3, 1), np.float32)
    state = made.initial_state(3)
    actions, after, _ = made.act(obs, np.ones((2, 3), bool), {}, state, False)
    assert (actions == 0).all()  # four heads of seven
    assert (after["head"] == state["head"]).all()


class Plain(Ensemble):
    """All seeds' members side by side as one network of copies, which multiplies one-hot rows."""

    def _through(self, part, obs):
        side_by_side = self.make(self.seeds * self.heads, torch.device("meta"))
        side_by_side.looks_up = False
        weights = {
            name: self.get_parameter(f"{part}_{name.replace('.', '_')}").flatten(0, 1)
            for name, _ in side_by_side.named_parameters()
        }
        rows = obs.unsqueeze(1).expand(-1, self.heads, *obs.shape[1:]).flatten(0, 1)
        q = torch.func.functional_call(side_by_side, weights, (rows,))
        return q.view(self.seeds, self.heads, *q.shape[1:])

    def prior(self, obs):
        """Nothing is handed on, so each network works its own out."""

    def forward(self, obs, prior=None):
        assert prior is None
        q = self._through("free", obs)
        return q + self.prior_scale * self._through("prior", obs) if self.prior_scale else q


@pytest.mark.parametrize("states", [0, 200])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("prior_scale", [0.0, 3.0])
def test_the_same_steps_as_the_plain_ensemble(states, double, prior_scale):
    spec = Spec((), np.int64, states, 3) if states else Spec((5,), np.float32, 0, 3)
    generator = torch.Generator().manual_seed(0)
    made = [
        learner(
            seeds=3, spec=spec, hidden=(16, 8), heads=4, prior_scale=prior_scale, double=double,
            batch_size=32, layer_norm=not states,
        )
        for _ in "ab"
    ]  # fmt: skip
    fast, plain = made
    for flat in (plain.online, plain.target):
        flat.network.__class__ = Plain
    assert fast.online.network.shape[0].looks_up == bool(states)

    def draw():
        if states:
            return torch.randint(states, (3, 32), generator=generator)
        return torch.randn(3, 32, 5, generator=generator)

    for _ in range(3):
        one = Batch(
            obs=draw(),
            action=torch.randint(3, (3, 32), generator=generator),
            reward=torch.rand(3, 32, generator=generator),
            discount=torch.full((3, 32), 0.9),
            next_obs=draw(),
            extras={"number": torch.randint(10**6, (3, 32), generator=generator)},
        )
        losses = [each.step(one, {}) for each in made]
        torch.testing.assert_close(*losses)
        # as far apart as one step of Adam may throw a gradient of next to nothing
        torch.testing.assert_close(fast.online.flat, plain.online.flat, rtol=1e-5, atol=1e-6)
        for each in made:
            each.target.flat.lerp_(each.online.flat, 0.5)
    assert not torch.equal(fast.online.flat, fast.target.flat)
