"""Stream Q(λ): two steps by hand, when a trace ends, what is normalised by what, and a slow twin."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from agents import stream_q
from agents.contract import NonFiniteLoss, Rollout
from agents.stream_network import StreamNetwork, sparse_initialise
from envs.contract import Spec
from runners.errors import BadInput
from runners.resolve import make_config
from runners.sources import Plan
from runners.train import torch_set
from tests.agents.tables import cut
from tests.agents.test_groups import Training, config_of

CPU = torch.device("cpu")
SPEC = Spec((2,), np.float32, 0, 2)
ROOT2 = math.sqrt(2.0)


def learner(seeds=1, spec=SPEC, **changes):
    config = stream_q.StreamQConfig(
        **{"hidden": (), "sparsity": 0.0, "gamma": 0.5, "lambda_": 0.5, **changes}
    )
    sequences = [np.random.SeedSequence([k, 1]) for k in range(seeds)]
    return stream_q.make_learner(config, spec, 1, sequences, [], CPU)


def set_head(made, weight, bias):
    """The same weights for every seed of a learner without hidden layers."""
    made.network.head.weight.data.copy_(torch.tensor(weight))
    made.network.head.bias.data.copy_(torch.tensor(bias))


def rollout(obs, action, reward, terminated=(), truncated=(), first=None, mask=None):
    """Rows of one lane, the first of a run."""
    ends = np.zeros((2, len(action), 1), bool)
    ends[0, list(terminated)], ends[1, list(truncated)] = True, True
    begins = np.concatenate([[[True], [False]], ends.any(axis=0)[:-1]])
    return Rollout(
        obs=np.array(obs, np.float32)[:, None],
        first=begins if first is None else np.array(first)[:, None],
        action=np.array(action)[:, None],
        reward=np.array(reward, np.float32)[:, None],
        terminated=ends[0],
        truncated=ends[1],
        facts={} if mask is None else {"action_mask": np.array(mask)[:, None]},
    )


def learn(made, rows):
    made.observe(rows)
    for _ in range(made.updates_due()):
        made.update()
    return made


# -- By hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(2,), (1, 1)])
def test_two_steps_by_hand(lengths):
    """γ = λ = ½, α = 1, κ = 2; q(x) = x W + b with W = ((1, 2), (3, 4)), b = (½, ¼).

    Observations (1, 3), (3, -1), (2, 1). By the statistics of the time they are
      x₀ = 0: a single one is its own mean;
      x₁: mean (2, 1), variances (1 + 1, 4 + 4) / 1 = (2, 8): (1 / √2, -2 / √8) = (1, -1) / √2;
      x₂: mean (2, 1) still: 0.
    Row 0, action 0, reward 2: of a single reward sum the deviation is 1. q(x₀) = b, so action 0 is greedy;
    max q(x₁) = ½ + (1 - 3) / √2 = ½ - √2. δ = 2 + ½ (½ - √2) - ½ = 1.75 - √2 / 2 = 1.0429. The gradient is
    1 for b₀ and 0 else: ‖z‖₁ = 1, and the bound 1 / (2 δ) makes the step δ / (2 δ) = ½: b₀ = 1.
    Row 1, action 1, reward -1: the sums 2 and ½ · 2 - 1 = 0 have variance 2: r = -1 / √2.
    q(x₁) = (1 - √2, ¼ - √2): action 1 is not greedy. max q(x₂) = 1. δ = -1 / √2 + ½ - ¼ + √2 = ¼ + √2 / 2
    = 0.957, below 1. z = ¼ for b₀, 1 for b₁, (1, -1) / √2 for W's column 1: ‖z‖₁ = 1.25 + √2; the step is
    δ / (2 ‖z‖₁), after which the trace is forgotten.
    """
    made = learner()
    set_head(made, [[1.0, 2.0], [3.0, 4.0]], [0.5, 0.25])
    whole = rollout([[1, 3], [3, -1], [2, 1]], [0, 1], [2.0, -1.0])
    for rows in cut(whole, *lengths):
        learn(made, rows)
    step = (0.25 + ROOT2 / 2) / (2 * (1.25 + ROOT2))
    head = made.network.head
    weight = [[1.0, 2.0 + step / ROOT2], [3.0, 4.0 - step / ROOT2]]
    torch.testing.assert_close(head.weight[0].data, torch.tensor(weight))
    bias = torch.tensor([1.0 + step / 4, 0.25 + step])
    torch.testing.assert_close(head.bias[0, 0].data, bias)
    assert not made.optimizer.trace.any()
    assert (made.updates, made.lane_steps) == (2, 2)
    # in raw units: row 1 times √2, its loss in the learner's
    first, second = 1.75 - ROOT2 / 2, 0.25 + ROOT2 / 2
    found = {name: value[0] for name, value in made.metrics().items()}
    assert found["loss"] == pytest.approx((first**2 + second**2) / 4)
    assert found["td_error"] == pytest.approx((first + second * ROOT2) / 2)
    assert found["q_mean"] == pytest.approx((0.5 + (0.25 - ROOT2) * ROOT2) / 2)
    health = {name: float(value[0]) for name, value in made.health().items()}
    assert health["td_p50"] == pytest.approx((first + second * ROOT2) / 2)


# Observations that are equal are 0 when normalised: then q = b, and a trace is of biases alone.
SAME = [[1, 1]] * 6


def biases(made):
    """The trace of the two biases."""
    return made.optimizer.trace_views[1][0, 0].tolist()


def test_a_greedy_action_keeps_the_trace_and_another_ends_it():
    # κ is so large that nothing moves; γλ = ¼. Action 0 is best: 1, 1.25; then action 1 and all is gone
    made = learner(kappa=1e9)
    set_head(made, np.zeros((2, 2)), [1.0, 0.0])
    whole = rollout(SAME, [0, 0, 1, 0, 0], [0.0] * 5)
    found = [biases(learn(made, rows)) for rows in cut(whole, *[1] * 5)]
    assert found == [[1.0, 0.0], [1.25, 0.0], [0.0, 0.0], [1.0, 0.0], [1.25, 0.0]]


def test_one_of_two_best_actions_is_greedy():
    made = learner(kappa=1e9)
    set_head(made, np.zeros((2, 2)), [1.0, 1.0])
    learn(made, rollout(SAME[:3], [1, 0], [0.0, 0.0]))
    assert biases(made) == [1.0, 0.25]


@pytest.mark.parametrize(("how", "delta"), [("terminated", -1.0), ("truncated", -0.5)])
def test_an_end_is_learned_and_forgotten(how, delta):
    """Biases (1, 0), rewards 0, γ = ½: δ of an end is -1, of a truncation ½ - 1 = -½; α is small.

    Row 0: z = 1, δ = -½. Row 1 ends the episode: z = 1.25. Row 2 is ignored: no parameter moves, whatever
    its reward. Row 3 is the next episode's first: z = 1.
    """
    lr = 1e-3
    made = learner(lr=lr)
    set_head(made, np.zeros((2, 2)), [1.0, 0.0])
    whole = rollout(SAME[:5], [0, 0, 1, 0], [0.0, 0.0, 0.0, 0.0], **{how: [1]})
    whole.reward[2] = 50.0
    rows = cut(whole, 1, 1, 1, 1)
    learn(made, next(rows))
    before = made.network.head.bias[0, 0, 0].item()
    assert before == pytest.approx(1.0 - 0.5 * lr)
    learn(made, next(rows))
    after = made.network.head.bias[0, 0].tolist()
    assert after[0] - before == pytest.approx(1.25 * lr * delta, rel=2e-3)
    total = made.rewards.total.copy()
    learn(made, next(rows))
    assert made.network.head.bias[0, 0].tolist() == after
    assert made.rewards.total == total
    learn(made, next(rows))
    assert biases(made) == [1.0, 0.0]


def test_a_lane_that_starts_anew_brings_no_trace_along():
    made = learner(kappa=1e9)
    set_head(made, np.zeros((2, 2)), [1.0, 0.0])
    learn(made, rollout(SAME[:3], [0, 0], [0.0, 0.0]))
    assert made.observations.count.tolist() == [[3]]
    # no end before it, as behind a worker that was replaced: its observation is a new one
    learn(made, rollout(SAME[:2], [0], [0.0]))
    assert biases(made) == [1.0, 0.0]
    assert made.observations.count.tolist() == [[5]]


def test_actions_that_are_not_legal_are_neither_goal_nor_greedy():
    # Biases (0, 1), action 1 is never legal: action 0 is greedy, δ = ½ · 0 - 0 = 0 and not ½ · 1
    made = learner()
    set_head(made, np.zeros((2, 2)), [0.0, 1.0])
    learn(made, rollout(SAME[:3], [0, 0], [0.0, 0.0], mask=[[True, False]] * 3))
    assert made.network.head.bias[0, 0].tolist() == [0.0, 1.0]
    assert biases(made) == [1.25, 0.0]


def test_a_loss_that_is_not_finite_is_reported():
    made = learner()
    set_head(made, np.zeros((2, 2)), [np.inf, 0.0])
    with pytest.raises(NonFiniteLoss, match="update 2"):
        learn(made, rollout(SAME[:3], [0, 0], [0.0, 0.0]))


# -- What is seen --------------------------------------------------------------------------------


def test_observations_are_normalised_by_the_statistics_of_their_time():
    rng = np.random.default_rng(0)
    obs = rng.normal([5.0, -1.0], [3.0, 0.1], (9, 2)).astype(np.float32)
    # row 3 ends an episode and row 4 is ignored; its successor, the next one's first, counts too
    whole = rollout(obs, [0] * 8, [0.0] * 8, terminated=[3])
    made = learner()
    seen = np.empty((9, 2), np.float32)
    for t, rows in enumerate(cut(whole, 1, 1, 1, 1, 1, 1, 1, 1)):
        made.observe(rows)
        seen[t : t + 2] = torch.cat([made._batch.obs[0], made._batch.next_obs[0]])
        past = obs[: t + 2].astype(np.float64)
        deviation = np.sqrt(past.var(0, ddof=1) + 1e-8)
        np.testing.assert_allclose(seen[t + 1], (past[-1] - past.mean(0)) / deviation, rtol=1e-5)
    assert (seen[0] == 0.0).all()
    in_one = learner()
    in_one.observe(whole)
    assert (torch.cat([in_one._batch.obs[0], in_one._batch.next_obs[0, -1:]]).numpy() == seen).all()


def test_the_actor_sees_what_the_learner_will():
    """And its values are in raw reward units, whatever the scale of rewards."""
    config = config_of("stream_q", rollout_length=1)
    with torch_set():
        training = Training(config, (3, 4)).go(300)
        source, made = training.source, training.learner
        (actor,) = source.worker.actors.values()
        inputs, act = [], actor._input
        actor._input = lambda obs: inputs.append(act(obs)) or inputs[-1]
        for _ in range(50):
            training.go(1)
            made.observe(source.next(Plan(1, None)))
            assert torch.equal(inputs[-1], made._batch.obs)
            made.update()
            source.publish(made.params())
    actor.load_params(made.params())
    obs = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    unit = made.rewards.unit()[:, None, None]
    assert unit.min() > 2.0
    np.testing.assert_allclose(actor.values(obs), actor._scaled_values(obs) * unit, rtol=1e-6)


def test_the_first_observation_of_all_is_seen_as_zero():
    """By the learner it is its own mean; the actor, which comes first, knows no mean yet."""
    actor = stream_q.make_actor(stream_q.StreamQConfig(), SPEC, [np.random.default_rng(0)])
    actor.load_params(learner(hidden=(32, 32)).params())
    assert not actor._input(np.full((1, 1, 2), 7.0, np.float32)).any()


def test_an_evaluation_changes_nothing():
    actor = stream_q.make_actor(stream_q.StreamQConfig(), SPEC, [np.random.default_rng(0)])
    made = learner(hidden=(32, 32))
    learn(made, rollout([[1, 3], [3, -1], [2, 1]], [0, 1], [2.0, -1.0]))
    actor.load_params(made.params())
    held = {
        name: np.copy(value) for name, value in vars(actor).items() if isinstance(value, np.ndarray)
    }
    flat = actor.parameters.flat.clone()
    obs = np.full((1, 5, 2), 9.0, np.float32)
    action, _, extras = actor.act(obs, np.zeros((1, 5), bool), {}, {}, explore=False)
    assert (action == actor.values(obs).argmax(-1)).all()
    assert extras["seen"] is obs
    assert "mean" in held
    for name, value in held.items():
        assert np.array_equal(getattr(actor, name), value), name
    assert torch.equal(actor.parameters.flat, flat)


# -- The network ---------------------------------------------------------------------------------


def drawn(spec, seeds, sparsity=0.9, hidden=(32,)):
    network = StreamNetwork(spec, len(seeds), hidden, CPU)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    sparse_initialise(network, generators, sparsity)
    return network


def test_most_weights_of_every_unit_are_zero_at_the_start():
    # of 45 inputs ⌈40.5⌉ = 41 are 0, of a hidden layer's 32 ⌈28.8⌉ = 29
    network = drawn(Spec((45,), np.float32, 0, 3), (0, 1))
    first, head = network.trunk[0].weight, network.head.weight
    assert ((first == 0).sum(1) == 41).all()
    assert ((head == 0).sum(1) == 29).all()
    bound = 1 / math.sqrt(45)
    assert 0.9 * bound < first.abs().max() <= bound
    assert not network.head.bias.any()
    assert not torch.equal(first[0], first[1])
    places = (first[0] != 0).sum(1)  # how often each input is taken: no input is preferred
    assert places.max() < 12
    assert torch.equal(drawn(Spec((45,), np.float32, 0, 3), (1,)).trunk[0].weight[0], first[1])


def test_a_filters_weights_are_sparse_too():
    # 3 x 3 places of 4 maps: ⌈32.4⌉ = 33 of 36
    weight = drawn(Spec((10, 10, 4), np.uint8, 0, 3), (0,)).trunk[0].weight
    assert ((weight[0].flatten(1) == 0).sum(1) == 33).all()


def test_layers_are_normalised_over_all_that_an_observation_has():
    network = drawn(Spec((10, 10, 4), np.uint8, 0, 3), (0,), sparsity=0.0, hidden=(8,))
    obs = torch.rand(1, 2, 10, 10, 4)
    conv, _, _, linear, _ = network.trunk
    for b in range(2):
        x = functional.conv2d(obs[0, b].movedim(-1, 0), conv.weight[0], conv.bias[0])
        x = functional.leaky_relu((x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5))
        x = x.flatten() @ linear.weight[0] + linear.bias[0, 0]
        x = functional.leaky_relu((x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5))
        q = x @ network.head.weight[0] + network.head.bias[0, 0]
        torch.testing.assert_close(network(obs)[0, b], q)


# -- A slow twin ---------------------------------------------------------------------------------


class Twin:
    """One seed, one step after the other, with plain modules, loops and autograd."""

    def __init__(self, config, network, k):
        self.c, self.leaves = config, [leaf[k].clone() for leaf in network.parameters()]
        for leaf in self.leaves:
            leaf.requires_grad_(True)
        self.z = [torch.zeros_like(leaf) for leaf in self.leaves]
        self.obs, self.sums, self.u = [], [], 0.0

    def q(self, x):
        *hidden, weight, bias = self.leaves
        for w, b in zip(hidden[::2], hidden[1::2], strict=True):
            x = functional.leaky_relu(functional.layer_norm(x @ w + b[0], (w.shape[1],)))
        return x @ weight + bias[0]

    def see(self, obs):
        """Of the observations of all steps so far, this one included."""
        self.obs.append(obs.astype(np.float64))
        past = np.stack(self.obs)
        spread = past.std(0, ddof=1) if len(past) > 1 else np.ones(obs.shape)
        return torch.tensor((past[-1] - past.mean(0)) / np.sqrt(spread**2 + 1e-8)).float()

    def scaled(self, reward, done):
        self.u = (0.0 if done else self.c.gamma * self.u) + float(reward)
        self.sums.append(self.u)
        spread = np.std(self.sums, ddof=1) if len(self.sums) > 1 else 1.0
        return float(reward) / math.sqrt(spread**2 + 1e-8)

    def learn(self, x, action, reward, terminated, done, x_next):
        c, q = self.c, self.q(x)
        with torch.no_grad():
            goal = reward + (0.0 if terminated else c.gamma * self.q(x_next).max().item())
        delta = goal - q[action].item()
        gradients = torch.autograd.grad(q[action], self.leaves)
        length = 0.0
        for z, gradient in zip(self.z, gradients, strict=True):
            z.mul_(c.gamma * c.lambda_).add_(gradient)
            length += z.abs().sum().item()
        size = c.lr / max(1.0, c.lr * c.kappa * max(abs(delta), 1.0) * length)
        for leaf, z in zip(self.leaves, self.z, strict=True):
            leaf.data.add_(z, alpha=size * delta)
            if done or q[action].item() < q.max().item():
                z.zero_()


def test_the_group_learns_what_a_plain_loop_learns():
    config = config_of("stream_q", rollout_length=1, sparsity=0.5, epsilon_steps=200)
    with torch_set():
        training = Training(config, (3, 4))
        made = training.learner
        twins = [Twin(config.hyper, copy.deepcopy(made.network), k) for k in range(2)]
        seen, ends = [None, None], 0
        for _ in range(400):
            rows = training.source.next(Plan(1, None))
            for k, twin in enumerate(twins):
                if seen[k] is None:
                    seen[k] = twin.see(rows.obs[0, k])
                after = twin.see(rows.obs[1, k])
                if rows.valid[0, k]:
                    done = bool(rows.done[0, k])
                    reward = twin.scaled(rows.reward[0, k], done)
                    twin.learn(
                        seen[k], int(rows.action[0, k]), reward, rows.terminated[0, k], done, after
                    )
                    ends += done
                seen[k] = after
            learn(made, rows)
            training.source.publish(made.params())
            for k, twin in enumerate(twins):
                for leaf, own in zip(made.online.leaves, twin.leaves, strict=True):
                    torch.testing.assert_close(leaf[k].data, own.data, rtol=1e-3, atol=1e-3)
    assert ends > 20


# -- What is refused -----------------------------------------------------------------------------


def test_more_lanes_are_refused():
    with pytest.raises(BadInput, match="lanes: got 8, takes 1: stream_q learns from one stream"):
        make_config("stream_q", "CartPole-v1", steps=100, lanes=8)
