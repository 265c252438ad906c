"""RND: bonus, two-stream targets and choices by hand; running statistics by a plain loop; what is learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.contract import Batch, Params, Rollout
from agents.hyper import BadValue
from agents.rnd import RNDConfig, RNDNetwork, RNDStatistics, make_actor, make_learner
from envs.contract import Spec
from tests.agents import tables
from tests.agents.test_groups import Training, config_of

CPU = torch.device("cpu")
SPEC = Spec((1,), np.float32, 0, 2)
# values of an observation x, times x: (Q_E, Q_I) of action 0 and of action 1
ONLINE = [1.0, 1.0, 2.0, -3.0]
TARGET = [3.0, 0.5, 1.0, 5.0]


def config(**changes):
    return RNDConfig(
        **{"hidden": (), "features": 2, "gamma_int": 0.5, "bonus_scale": 0.5, "huber": 100.0, **changes}
    )  # fmt: skip


def network(values, **changes):
    """Linear values; features (x, 0), of which the predictor says (0, 0)."""
    made = RNDNetwork(config(**changes), SPEC, 1, CPU)
    made.head.weight.data[0] = torch.tensor([values])
    made.random.head.weight.data[0] = torch.tensor([[1.0, 0.0]])
    return made


def batch(mask=None, restart_mask=None):
    extras = {
        "obs_mean": torch.tensor([[0.0]]), "obs_std": torch.tensor([[1.0]]),
        "bonus_std": torch.tensor([4.0]), "restart": torch.tensor([[[4.0], [6.0]]]),
        "latest": torch.tensor([[[3.0], [9.0], [4.0]]]), "latest_share": torch.tensor([[0.5, 0.0, 0.5]]),
    }  # fmt: skip
    if restart_mask is not None:
        extras["restart_mask"] = torch.tensor([restart_mask])
    return Batch(
        obs=torch.tensor([[[1.0], [2.0]]]),
        action=torch.tensor([[0, 1]]),
        reward=torch.tensor([[1.0, 0.5]]),
        discount=torch.tensor([[0.5, 0.0]]),  # the second one terminated
        next_obs=torch.tensor([[[2.0], [1.0]]]),
        next_action_mask=None if mask is None else torch.tensor([mask]),
        extras=extras,
    )


def test_the_error_of_a_predictor_by_hand():
    """Less a mean of 1, over a deviation of 2: 5 is 2, and 21 is 10, clipped to 5.

    Features (x, -x), of which the predictor says (2 x, 0): (4 + 4) / 2 = 4 and (25 + 25) / 2 = 25.
    """
    made = network(ONLINE)
    made.random.head.weight.data[0] = torch.tensor([[1.0, -1.0]])
    first, _, second, _ = made.predictor.trunk
    first.weight.data[0] = torch.tensor([[1.0, 0.0]])
    second.weight.data[0] = torch.eye(2)
    made.predictor.head.weight.data[0] = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    mean, std = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    white = made.whiten(torch.tensor([[[5.0], [21.0], [-50.0]]]), mean, std)
    assert white.flatten().tolist() == [2.0, 5.0, -5.0]
    assert made.error(white[:, :2]).tolist() == [[4.0, 25.0]]


@pytest.mark.parametrize("double", [True, False])
def test_targets_of_both_streams_by_hand(double):
    """γ_I = ½, β = ½; the first row goes on to 2, the second terminates at 1; lanes began at 4 and 6.

    Double: by the online network action 1 is best for rewards (2 > 1), action 0 explores (1 + ½ beats
    2 - 3/2). Rewards: 1 + ½ 1·2 = 2; and ½ alone. Bonuses: ¼ + ½ ½·2 = ¾; behind the termination ½·4
    and ½·6, on the mean 2.5: ⅛ + ½ 2.5 = 1.375.
    Plain: by the target network action 0 is best for rewards (3 > 1), action 1 explores (1 + 5/2 beats
    3 + ¼). Rewards: 1 + ½ 3·2 = 4; ½. Bonuses: ¼ + ½ 5·2 = 5.25; ⅛ + ½ (20 + 30)/2 = 12.625.
    """
    made, bonus = config(double=double), torch.tensor([[0.25, 0.125]])
    rewards, bonuses = made.goals(network(ONLINE), network(TARGET), batch(), bonus)
    assert rewards.tolist() == [[2.0, 0.5] if double else [4.0, 0.5]]
    assert bonuses.tolist() == [[0.75, 1.375] if double else [5.25, 12.625]]


def test_only_legal_actions_are_bootstrapped_from():
    """As above with double; action 1 alone is legal at 2, and at the beginning at 6.

    Bonuses: ¼ + ½ 5·2 = 5.25; behind the termination ½·4 and 5·6, on the mean 16: ⅛ + 8.
    """
    legal = batch([[False, True], [True, True]], [[True, True], [False, True]])
    bonus = torch.tensor([[0.25, 0.125]])
    rewards, bonuses = config().goals(network(ONLINE), network(TARGET), legal, bonus)
    assert rewards.tolist() == [[2.0, 0.5]]
    assert bonuses.tolist() == [[5.25, 8.125]]


def test_the_loss_by_hand():
    """The predictor's errors are x²/2: 2 at 2 and ½ at 1, bonuses over a deviation of 4: ½ and ⅛.

    The latest rollout led to 3 and 4, and through an ignored row to 9, clipped to 5: errors 4.5 and 8, on
    the mean 6.25. First row: Q_E = 1 for 2, Q_I = 1 for ½ + ½ = 1: ½ + 0. Second row: Q_E = 4 for ½,
    Q_I = -6 for ⅛ + 1.25: 3.5²/2 + 7.375²/2.
    """
    out = config().loss(network(ONLINE), network(TARGET), batch(), {})
    assert out.loss[0].tolist() == pytest.approx([6.75, 3.5**2 / 2 + 7.375**2 / 2 + 6.25])
    assert out.metrics["bonus"].tolist() == [[0.5, 0.125]]
    assert out.metrics["target_mean"].tolist() == [[2.0, 0.5]]


def test_bonuses_are_reported_as_they_are_whatever_rewards_are_scaled_by():
    seen = []
    for scale in (1.0, 0.1):
        made = make_learner(
            config(reward_scale=scale, batch_size=2), SPEC, 2, [np.random.SeedSequence(1)],
            [np.random.default_rng(2)], CPU,
        )  # fmt: skip
        made.step(batch(), {})
        seen.append({name: value.item() for name, value in made.metrics().items()})
    assert seen[1]["bonus"] == pytest.approx(seen[0]["bonus"]) != 0.0
    assert seen[1]["bonus_value"] == pytest.approx(seen[0]["bonus_value"])
    assert seen[1]["q_mean"] == pytest.approx(10.0 * seen[0]["q_mean"])


def test_it_explores_by_both_values_and_is_evaluated_by_rewards_alone():
    """At 1, β = ½: Q_E + ½ Q_I is 1.5 and 0.5, so action 0; Q_E is 1 and 2, so action 1."""
    actor = make_actor(config(), SPEC, [np.random.default_rng(0)])
    actor.load_params(Params(0, 0, {"flat": actor.parameters.flat.clone()}, {"epsilon": 0.0}))
    actor.network.head.weight[0] = torch.tensor([ONLINE])
    obs, first = np.ones((1, 3, 1), np.float32), np.ones((1, 3), bool)
    assert (actor.act(obs, first, {}, {}, True)[0] == 0).all()
    assert (actor.act(obs, first, {}, {}, False)[0] == 1).all()
    assert actor.values(obs).tolist() == [[[1.0, 2.0]] * 3]


def deviation(rows):
    """A sample's, 1 of less than two."""
    variance = np.var(rows, axis=0, ddof=1) if len(rows) > 1 else np.ones(np.shape(rows)[1:])
    return np.sqrt(variance + 1e-8)


class PlainLoop:
    """The statistics of two seeds of three lanes, row by row, each seed's lists kept whole."""

    def __init__(self, net, gamma):
        self.net, self.gamma = net, gamma
        self.seen, self.sums = ([[], []] for _ in range(2))
        self.carried, self.began = np.zeros(6), np.zeros(6, int)

    def observe(self, rollout):
        for t, lane in np.ndindex(rollout.first.shape):
            if rollout.first[t, lane]:
                self.began[lane] = rollout.obs[t, lane]
        steps = [(t, lane) for t, lane in np.ndindex(rollout.valid.shape) if rollout.valid[t, lane]]
        for t, lane in steps:
            self.seen[lane // 3].append(np.eye(5)[rollout.obs[t + 1, lane]])
        self.mean = np.array([np.mean(rows, axis=0) for rows in self.seen])
        self.std = np.array([deviation(rows) for rows in self.seen])
        self.latest = [(lane // 3, rollout.obs[t + 1, lane]) for t, lane in steps]
        for t, lane in steps:
            error = self.error(lane // 3, rollout.obs[t + 1, lane])
            self.carried[lane] = self.gamma * self.carried[lane] + error
            self.sums[lane // 3].append(self.carried[lane])

    def bonus_std(self):
        return np.array([deviation(sums) for sums in self.sums])

    def error(self, k, state):
        white = np.clip((np.eye(5)[state] - self.mean[k]) / self.std[k], -5, 5)
        return self.net.error(torch.tensor(white, dtype=torch.float32).expand(2, 1, 5))[k, 0].item()


def test_running_statistics_are_those_of_a_plain_loop():
    spec, hyper = Spec((), np.int64, 5, 3), RNDConfig(hidden=(8,), features=4, gamma_int=0.9)
    net = RNDNetwork(hyper, spec, 2, CPU)
    for leaf in net.parameters():
        leaf.data.normal_(generator=torch.Generator().manual_seed(3))
    made, slow = RNDStatistics(hyper, spec, 2, 3, CPU), PlainLoop(net, 0.9)
    whole = tables.random_rows(0, 90, 6)
    for rollout in tables.cut(whole, 1, 2, 7, 40, 40):
        made.observe(rollout, net)
        slow.observe(rollout)
        extras = made.extras()
        np.testing.assert_allclose(extras["obs_mean"], slow.mean, rtol=1e-5)
        np.testing.assert_allclose(extras["obs_std"], slow.std, rtol=1e-5)
        np.testing.assert_allclose(extras["bonus_std"], slow.bonus_std(), rtol=1e-4)
        assert extras["restart"].flatten().tolist() == slow.began.tolist()
        counted = extras["latest_share"] > 0
        for k in range(2):
            latest = [s for t, s in slow.latest if t == k]
            assert extras["latest"][k][counted[k]].tolist() == latest
        np.testing.assert_allclose(extras["latest_share"].sum(1), 1.0, rtol=1e-6)
    assert (~whole.valid).sum() > 20


def test_a_beginning_is_a_stack_of_one_frame_with_its_mask():
    spec = Spec((2,), np.float32, 0, 2, action_mask=True)
    hyper = RNDConfig(hidden=(), features=2, frame_stack=3)
    made = RNDStatistics(hyper, spec, 1, 2, CPU)
    obs = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    first = np.array([[True, True], [False, False], [False, True]])
    none = np.zeros((2, 2), bool)
    mask = np.arange(12).reshape(3, 2, 2) % 3 > 0
    made.observe(
        Rollout(obs, first, np.zeros((2, 2), int), np.zeros((2, 2), np.float32), none, none,
                {"action_mask": mask}),
        RNDNetwork(hyper, spec, 1, CPU),
    )  # fmt: skip
    # lane 0 began in row 0, lane 1 anew in row 2
    assert made.extras()["restart"].tolist() == [
        [[[0, 0], [0, 0], [0, 1]], [[0, 0], [0, 0], [10, 11]]]
    ]
    assert made.extras()["restart_mask"].tolist() == [[mask[0, 0].tolist(), mask[2, 1].tolist()]]


def test_the_random_network_never_changes():
    training = Training(config_of("rnd"), (0, 1))

    def leaves(name):
        learner = training.learner
        both = learner.online.network, learner.target.network
        return [p.detach().clone() for n in both for p in n.get_submodule(name).parameters()]

    before = {name: leaves(name) for name in ("random", "predictor", "trunk")}
    training.go(40)
    assert training.learner.updates > 200
    for name, old in before.items():
        same = [torch.equal(a, b) for a, b in zip(old, leaves(name), strict=True)]
        assert all(same) if name == "random" else not any(same)
    assert all(x.abs().max() > 0 for x in before["random"][::2])


def test_what_is_seen_often_brings_less_than_what_is_not():
    """Of the 25 cells of a sea of size 5 those right of the diagonal are never reached."""
    size = 5
    whole = {"env_options": {"size": size}, "replay_size": 10_000, "hidden": (64,), "features": 32}
    training = Training(config_of("rnd", env="DeepSea-v0", **whole), (100, 101)).go(100)
    learner = training.learner
    known = learner.statistics.extras()
    states = torch.arange(size * size).expand(2, -1)
    white = learner.online.network.whiten(states, known["obs_mean"], known["obs_std"])
    error = learner.online.network.error(white).detach().numpy()
    seen = known["obs_mean"].numpy()[:, :-1] * learner.statistics.observations.count
    for k in range(2):
        assert (seen[k] == 0).sum() >= size * (size - 1) // 2
        assert error[k, seen[k] > 50].max() < error[k, seen[k] == 0].min()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_step": 3}, "n_step: got 3, takes 1: a window has no bonuses of the steps inside it"),
        ({"replay_size": 10}, "replay_size: got 10, takes at least batch_size = 64"),
        ({"gamma": 0.0}, "gamma: got 0.0, takes a number in (0, 1]"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, says):
    with pytest.raises(BadValue) as refused:
        RNDConfig(**changes)
    assert str(refused.value) == says
