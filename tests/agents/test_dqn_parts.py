"""DQN's switches: targets and losses by hand, identities between parts, what is refused."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from agents import dqn
from agents.contract import Batch
from agents.hyper import BadValue
from agents.layers import NoisyLinear
from agents.noise import NetworkNoise
from agents.rules import td
from envs.contract import Spec

CPU = torch.device("cpu")
SPEC = Spec((2,), np.float32, 0, 3)
HAND = Batch(
    obs=torch.zeros(1, 1, 1),
    action=torch.tensor([[1]]),
    reward=torch.tensor([[1.0]]),
    discount=torch.tensor([[0.5]]),
    next_obs=torch.ones(1, 1, 1),
)


def outputs(before, after):
    """A network that says ``before`` of the observation 0 and ``after`` of 1."""
    both = [torch.tensor(out, dtype=torch.float32)[None, None] for out in (before, after)]
    return lambda obs, noise: both[int(obs[0, 0, 0])]


def loss(online, target, batch=HAND, **switches):
    config = dqn.DQNConfig(**switches)
    return config.loss(outputs(*online), outputs(*target), batch, {})


def test_munchausen_by_hand():
    """τ = 1, α = ½, l₀ = -1, r = 1, γ = ½, action 1.

    Before: target values (0, ln 3): π = (¼, ¾), the bonus ½ · ln ¾. After: (ln 2, 0), π = (⅔, ⅓):
    Σ π (q - ln π) = ⅔ (ln 2 - ln ⅔) + ⅓ (0 - ln ⅓) = ln 3, as the log-sum-exp of (ln 2, 0) says too.
    """
    out = loss(
        ([0.0, 2.0], [9.0, 9.0]), ([0.0, math.log(3)], [math.log(2), 0.0]),
        munchausen=True, munchausen_tau=1.0, munchausen_alpha=0.5, munchausen_floor=-1.0,
    )  # fmt: skip
    goal = 1.0 + 0.5 * math.log(0.75) + 0.5 * math.log(3)
    assert out.metrics["target_mean"].item() == pytest.approx(goal)
    assert out.loss.item() == pytest.approx(0.5 * (2.0 - goal) ** 2)  # Huber's within 1


def test_munchausen_of_rescaled_values_goes_by_units_of_reward():
    """Outputs h(100), h(99.5) at τ = 1: the soft value is log(e^100 + e^99.5), whatever h does to 0.5 there."""
    config = dqn.DQNConfig(
        double=False, munchausen=True, munchausen_tau=1.0, munchausen_alpha=0.5, munchausen_floor=-10.0,
        value_rescale=True, huber=1e6,
    )  # fmt: skip
    squashed = td.squash(torch.tensor([[[100.0, 99.5]]]))
    network = lambda obs, noise: squashed  # noqa: E731
    rows = Batch(
        torch.zeros(1, 1, 1), torch.tensor([[1]]), torch.tensor([[2.0]]), torch.tensor([[0.9]]), torch.zeros(1, 1, 1)
    )  # fmt: skip
    out = config.loss(network, network, rows, {})
    soft = math.log(math.exp(0.5) + 1.0) + 99.5
    bonus = 0.5 * (99.5 - soft)
    assert out.metrics["target_mean"].item() == pytest.approx(2.0 + bonus + 0.9 * soft, rel=1e-4)


def test_munchausen_without_bonus_and_cold_is_q_learning():
    networks = ([0.3, 0.1], [1.0, 2.0]), ([0.2, 0.4], [3.0, -1.0])
    cold = loss(*networks, munchausen=True, munchausen_alpha=0.0, munchausen_tau=1e-4)
    assert cold.loss.item() == pytest.approx(loss(*networks).loss.item())


def test_c51_by_hand():
    """Places 0, 1, 2; r = 1, γ = ½ and the best next action has p = (½, ½, 0).

    So the target is ½ at 1 and ½ at 1½: 1 gets ¾ and 2 gets ¼. The prediction is even, ⅓ each:
    KL = ¾ ln (¾ / ⅓) + ¼ ln (¼ / ⅓).
    """
    even, half = [0.0, 0.0, 0.0], [0.0, 0.0, -1e4]
    low = [0.0, -1e4, -1e4]  # all at 0: not the best
    out = loss(
        ([low, even], [low, low]), ([low, low], [low, half]),
        distributional="c51", atoms=3, v_min=0.0, v_max=2.0,
    )  # fmt: skip
    assert out.loss.item() == pytest.approx(0.75 * math.log(2.25) + 0.25 * math.log(0.75))
    assert out.metrics["target_mean"].item() == pytest.approx(1.25)
    assert out.metrics["q_mean"].item() == pytest.approx(1.0)


def test_double_chooses_a_distribution_by_the_online_mean():
    """Online means after: 1 and 2, so action 1, whose target quantiles are (0, 4): goal (1, 3)."""
    online, target = ([[0.0, 0.0], [2.0, 2.0]], [[1.0, 1.0], [0.0, 4.0]]), (
        [[0.0, 0.0], [0.0, 0.0]], [[5.0, 5.0], [0.0, 4.0]],
    )  # fmt: skip
    out = loss(online, target, distributional="qr", atoms=2, double=True)
    assert out.metrics["target_mean"].item() == pytest.approx(2.0)
    # θ = (2, 2) at τ = ¼, ¾; u = -1 and 1: ½ each. |¼ - 1| ½ + ¼ ½ = ½, halved; and the same at ¾
    assert out.loss.item() == pytest.approx(0.25 + 0.25)
    plain = loss(online, target, distributional="qr", atoms=2)
    assert plain.metrics["target_mean"].item() == pytest.approx(3.5)  # 1 + ½ · 5


def test_one_quantile_is_half_of_the_plain_loss():
    """τ = ½ weighs both sides alike: the median is regressed as the mean is."""
    networks = ([0.3, 0.1], [1.0, 2.0]), ([0.2, 0.4], [3.0, -1.0])
    single = tuple(tuple([[x] for x in out] for out in network) for network in networks)
    for switches in ({}, {"double": True}, {"munchausen": True}, {"value_rescale": True}):
        config = dqn.DQNConfig(**switches)
        quantile = dataclasses.replace(config, distributional="qr", atoms=1)
        plain = config.loss(outputs(*networks[0]), outputs(*networks[1]), HAND, {})
        median = quantile.loss(outputs(*single[0]), outputs(*single[1]), HAND, {})
        torch.testing.assert_close(median.loss, plain.loss / 2)
        torch.testing.assert_close(median.metrics["target_mean"], plain.metrics["target_mean"])


def test_rescaled_values_by_hand():
    """The target network says h(4) after: 1 + ½ · 4 = 3, of which √4 - 1 + 0.003 is learned."""
    squashed = td.squash(torch.tensor([4.0, 1.0])).tolist()
    out = loss(([0.0, 1.0], [0.0, 0.0]), ([0.0, 0.0], squashed), value_rescale=True)
    assert out.metrics["target_mean"].item() == pytest.approx(3.0, rel=1e-4)
    assert out.loss.item() == pytest.approx(0.5 * 0.003**2, rel=0.02)


def test_a_policy_goes_by_values_in_reward_units():
    config = dqn.DQNConfig(value_rescale=True)
    values = torch.tensor([[[5.0, -2.0, 0.0]]])
    torch.testing.assert_close(
        config.action_values(td.squash(values)), values, rtol=1e-4, atol=1e-4
    )
    places = dqn.DQNConfig(distributional="c51", atoms=3, v_min=0.0, v_max=2.0)
    logits = torch.tensor([[[[0.25, 0.25, 0.5]]]]).log()
    assert places.action_values(logits).item() == pytest.approx(1.25)


@pytest.mark.parametrize("switches", [{}, {"double": True}, {"munchausen": True}])
def test_squashed_quantiles_are_averaged_in_reward_units(switches):
    """Quantiles h(0), h(100) of one action, h(35), h(35) of the other: means 50 and 35, so the first is best.

    Squashed means would say otherwise, as √101 / 2 < √36. With r = 1, γ = ½ the quantiles 1 and 51 are to be
    learned; Munchausen, cold and without its bonus, gives the same.
    """
    quantiles = td.squash(torch.tensor([[0.0, 100.0], [35.0, 35.0]])).tolist()
    config = dqn.DQNConfig(
        distributional="qr",
        atoms=2,
        value_rescale=True,
        huber=1e6,
        munchausen_alpha=0.0,
        **switches,
    )
    networks = outputs(quantiles, quantiles), outputs(quantiles, quantiles)
    acted_by = config.action_values(networks[0](torch.zeros(1, 1, 1), {}))
    torch.testing.assert_close(acted_by, torch.tensor([[[50.0, 35.0]]]), rtol=1e-3, atol=0)
    out = config.loss(*networks, HAND, {})
    assert out.metrics["target_mean"].item() == pytest.approx(26.0, rel=1e-3)
    assert out.metrics["q_mean"].item() == pytest.approx(35.0, rel=1e-3)
    learned, theta = td.squash(torch.tensor([1.0, 51.0])), td.squash(torch.tensor(35.0))
    u = (
        learned - theta
    )  # τ = ¼, ¾: of what is above τ counts, of what is below 1 - τ, halved by the mean
    weights = torch.where(u < 0, torch.tensor([[0.75], [0.25]]), torch.tensor([[0.25], [0.75]]))
    loss = (weights * 0.5 * u**2 / 1e6).mean(-1).sum()
    torch.testing.assert_close(out.loss[0, 0], loss, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        ({"double": True, "munchausen": True}, "double: munchausen takes a mean over actions"),
        ({"actor_priorities": True}, "actor_priorities: is for --prioritized"),
        (
            {"actor_priorities": True, "prioritized": True, "distributional": "c51"},
            "c51's are divergences",
        ),
        (
            {"actor_priorities": True, "prioritized": True, "munchausen": True},
            "munchausen's target is not the best action's value",
        ),
        (
            {"actor_priorities": True, "prioritized": True, "memory": "lstm"},
            "a sequence's is of all its errors",
        ),
        ({"distributional": "c51", "v_min": 1.0, "v_max": 1.0}, "v_min: got 1.0, takes less than"),
        (
            {"distributional": "c51", "value_rescale": True},
            "value_rescale: c51's values have bounds",
        ),
        ({"munchausen_floor": 0.5}, "munchausen_floor: got 0.5"),
        ({"dropout": 1.0}, "dropout: got 1.0"),
        ({"memory": "attention"}, "burn_in: got 8, takes at least context - 1 = 31 for attention"),
        ({"dropout": 0.5, "hidden": ()}, "dropout: got 0.5, takes 0 where there are no hidden"),
        ({"distributional": "c50"}, "distributional: got 'c50', takes one of none, c51, qr, iqn"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(switches, words):
    with pytest.raises(BadValue) as error:
        dqn.DQNConfig(**switches)
    assert words in str(error.value)


# -- Networks and their noise --------------------------------------------------------------------


def learner(seeds=1, **switches):
    config = dqn.DQNConfig(**{"hidden": (8,), "batch_size": 4, **switches})
    return dqn.make_learner(
        config, SPEC, 2, [np.random.SeedSequence([k, 1]) for k in range(seeds)],
        [np.random.default_rng([k, 2]) for k in range(seeds)], CPU,
    )  # fmt: skip


def some_batch(rows=4):
    generator = torch.Generator().manual_seed(0)
    return Batch(
        obs=torch.randn((1, rows, 2), generator=generator),
        action=torch.zeros((1, rows), dtype=torch.int64),
        reward=torch.zeros(1, rows), discount=torch.zeros(1, rows),
        next_obs=torch.randn((1, rows, 2), generator=generator),
    )  # fmt: skip


def test_a_noisy_layer_by_hand():
    """x = (1, 2), W = (3, 4), b = 5, Σ = (1, ½), σ = 2; f(ε) = (2, -1), f(ε') = 3.

    y = 3 + 8 + 5 + 3 · (1 · 2 · 1 + 2 · (-1) · ½ + 2) = 16 + 3 · 3 = 25.
    """
    layer = NoisyLinear(1, 2, 1, CPU, 0.5, "a")
    layer.weight.data[0, :, 0] = torch.tensor([3.0, 4.0])
    layer.weight_sigma.data[0, :, 0] = torch.tensor([1.0, 0.5])
    layer.bias.data.fill_(5.0)
    layer.bias_sigma.data.fill_(2.0)
    x = torch.tensor([[[1.0, 2.0]]])
    noise = {"a.in": torch.tensor([[[2.0, -1.0]]]), "a.out": torch.tensor([[[3.0]]])}
    assert layer(x).item() == 16.0
    assert layer(x, noise).item() == 25.0


def noise_of(made):
    """What the next step's loss is handed."""
    return made.noise.named(made.draw(some_batch()))


def test_the_noise_is_factorised_gaussian():
    """f(ε) = sign(ε)√|ε| has mean 0 and E|ε| = √(2/π) as its variance; each pass has its own."""
    made = learner(noisy=True, hidden=(500,))
    noise = noise_of(made)
    assert set(noise) == {"online", "target"}
    drawn = noise["online"]["head.in"]
    assert drawn.shape == (1, 1, 500)
    assert abs(drawn.mean()) < 5 * math.sqrt(0.8 / 500)
    assert drawn.square().mean().item() == pytest.approx(math.sqrt(2 / math.pi), abs=0.2)
    assert not torch.equal(drawn, noise["target"]["head.in"])
    assert not torch.equal(drawn, noise_of(made)["online"]["head.in"])


def test_each_lane_acts_by_noise_of_its_own_and_none_when_greedy():
    config = dqn.DQNConfig(noisy=True, hidden=(8,), epsilon_start=0.0, epsilon_end=0.0)
    made = learner(noisy=True, epsilon_start=0.0)
    actor = dqn.make_actor(config, SPEC, [np.random.default_rng(0)])
    actor.load_params(made.params())
    obs = np.ones((1, 500, 2), np.float32)
    first, facts = np.zeros((1, 500), bool), {}
    explored, *_ = actor.act(obs, first, facts, {}, True)
    greedy, *_ = actor.act(obs, first, facts, {}, False)
    assert len(set(greedy[0])) == 1
    assert len(set(explored[0])) > 1


def test_dropout_is_in_the_prediction_alone():
    made = learner(dropout=0.25, hidden=(400,), double=True)
    noise = noise_of(made)
    mask = noise["online"]["dropout0"]
    assert noise["target"] == noise["selector"] == {}
    assert mask.shape == (1, 4, 400)
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (mask == 0).float().mean().item() == pytest.approx(0.25, abs=5 * math.sqrt(0.19 / 1600))
    network = made.online.network
    network.head.weight.data.fill_(1.0)
    hidden = torch.relu(network.trunk[0](some_batch().obs))
    torch.testing.assert_close(
        network(some_batch().obs, noise["online"])[..., 0], (hidden * mask).sum(-1)
    )


def test_implicit_quantiles_by_a_plain_loop():
    """φ(τ) = ReLU(Σ cos(πiτ) wᵢ + b), times the features, through what is behind, τ by τ."""
    made = learner(distributional="iqn", atoms=5, hidden=(8, 6), dueling=True)
    network, batch = made.online.network, some_batch()
    taus = noise_of(made)["online"]["taus"]
    assert taus.shape == (1, 4, 5)
    found = network(batch.obs, {"taus": taus})
    assert found.shape == (1, 4, 3, 5)
    embedding = network.embedding.linear
    for b in range(4):
        x = torch.relu(batch.obs[0, b] @ network.trunk[0].weight[0] + network.trunk[0].bias[0, 0])
        for n in range(5):
            waves = torch.tensor([math.cos(math.pi * i * taus[0, b, n].item()) for i in range(64)])
            phi = torch.relu(waves @ embedding.weight[0] + embedding.bias[0, 0])
            hidden = torch.relu(
                (x * phi) @ network.behind[0].weight[0] + network.behind[0].bias[0, 0]
            )
            out = hidden @ network.head.weight[0] + network.head.bias[0, 0]
            expected = out[3] + out[:3] - out[:3].mean()
            torch.testing.assert_close(found[0, b, :, n], expected, rtol=1e-4, atol=1e-5)


def test_iqn_chooses_by_other_fractions_than_it_values():
    """By the selector's fractions action 1 is best (0 and 2), by the target's it is worth 1 and 3.

    Chosen and valued by the target's own, it would be action 0, of 5 and 5. r = 1, γ = ½:
    the target's values are 1.5 and 2.5, their mean 2; the online network says 0.
    """
    out = {
        "target": [[5.0, 5.0], [1.0, 3.0]],
        "selector": [[0.0, 0.0], [2.0, 2.0]],
        "online": [[0.0, 0.0], [0.0, 0.0]],
    }

    def network(obs, noise):
        return torch.tensor(out[noise["pass"]])[None, None]

    noise = {name: {"pass": name, "taus": torch.tensor([[[0.25, 0.75]]])} for name in out}
    config = dqn.DQNConfig(distributional="iqn", atoms=2)
    found = config.loss(network, network, HAND, noise)
    assert found.metrics["target_mean"].item() == 2.0
    assert config.passes() == ["online", "target", "selector"]


def test_a_dueling_distribution_has_the_mean_of_its_streams_at_each_place():
    made = learner(distributional="qr", atoms=4, dueling=True)
    network, obs = made.online.network, some_batch().obs
    raw = network.head(torch.relu(network.trunk[0](obs))).view(1, 4, 4, 4)
    expected = raw[:, :, 3:] + raw[:, :, :3] - raw[:, :, :3].mean(2, keepdim=True)
    torch.testing.assert_close(network(obs), expected)


def test_an_ordinary_network_draws_nothing():
    assert learner().noise is None
    assert not NetworkNoise(learner().online.network)
