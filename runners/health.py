"""Value health at every scheduled evaluation: what is measured at the states of its episodes.

`runners.recorder` keeps a few lanes of an evaluation, here a line of health.jsonl is made of them.
Values, returns and TD errors are in raw reward units, as in metrics.jsonl; where rewards are
clipped, in units of clipped rewards.

What is large is told by the rewards seen and by the network as it was before it learned: backups
of values within M >= r_max / (1 - γ) stay within M, as r_max + γ M <= M. So where rewards are next
to nothing, or none was seen yet, values as large as the untrained network's are no fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch

from agents import health
from agents.contract import Array, Learner, Params, Rollout, State
from agents.replay.view import reward_and_discount
from runners.alarms import ALARMS
from runners.recorder import Episode, Recorder

if TYPE_CHECKING:
    from runners.group import Setting
    from runners.worker import MakeActor

TAIL = 0.2  # a return counts where what its episode left open weighs at most this much
# The largest of a few dozen normal numbers is 2.2 standard deviations, of a million 4.9: what no
# evaluation has come to may have values so many times as large, and backups carry them.
ELSEWHERE = 2.0
FEW_STATES = 8  # with fewer different ones features say nothing


@runtime_checkable
class Examinable(Protocol):
    """A learner that tells of its health."""

    def params(self) -> Params:
        """What actors need of it."""

    def health(self) -> dict[str, torch.Tensor]:
        """Measures [K] of the newest update, on the learner's device."""


class Seed:
    """What is carried from one evaluation of a seed to the next."""

    def __init__(self) -> None:
        self.states: State = {}  # seen, legal and the actions taken at the last evaluation
        self.lowest = self.highest = 0.0  # rewards so far
        self.untrained = 0.0  # the largest value, either sign, that there was before learning
        self.given: list[str] = []  # alarms, by name
        self.in_a_row: dict[str, int] = {}  # evaluations out of an alarm's bounds


class Health:
    """Measures the seeds of a group and gives alarms."""

    def __init__(
        self,
        hyper: Any,
        make_actor: MakeActor,
        learner: Examinable,
        seeds: Sequence[int],
        say: Callable[[str], None],
    ) -> None:
        self.hyper, self.learner, self.say = hyper, learner, say
        # One seed at a time: each has states of its own number, whose bits depend on no other.
        self.actor: Any = make_actor([np.random.default_rng(0)])
        self.seeds = {seed: Seed() for seed in seeds}
        # made of the seeds alone, so a checkpoint need not hold them: it is loaded after this
        params = learner.params()
        self.untrained = {seed: params.keep([k]) for k, seed in enumerate(seeds)}

    def recorders(self, seeds: int) -> list[Recorder]:
        """For the next evaluation of so many seeds."""
        return [Recorder(getattr(self.hyper, "end_on_life_loss", False)) for _ in range(seeds)]

    def observe(self, rollout: Rollout, active: Sequence[int]) -> None:
        """Remember the lowest and the highest reward of each seed."""
        rewards = rollout.reward.reshape(rollout.rows, len(active), -1)
        lowest, highest = rewards.min(axis=(0, 2)).tolist(), rewards.max(axis=(0, 2)).tolist()
        for seed, low, high in zip(active, lowest, highest, strict=True):
            carried = self.seeds[seed]
            carried.lowest = min(carried.lowest, low)
            carried.highest = max(carried.highest, high)

    def examine(
        self,
        params: Params,
        active: Sequence[int],
        recorders: Sequence[Recorder],
        lane_steps: int,
    ) -> list[dict[str, Any]]:
        """A record for each seed: its measures, None where unknown, and the alarms given now."""
        learned = {name: value.tolist() for name, value in self.learner.health().items()}
        records = []
        for k, seed in enumerate(active):
            td = {name: value[k] for name, value in learned.items()}
            at_states = self._at_states(seed, params.keep([k]), recorders[k].episodes())
            measures = td | at_states
            if "td_p5" in td and "magnitude" in at_states:
                magnitude = at_states["magnitude"]
                measures["td_share"] = self._td_share(self.seeds[seed], td, magnitude)
            record = {n: v if math.isfinite(v) else None for n, v in measures.items()}
            records.append({**record, "alarms": self._alarms(seed, record, lane_steps)})
        return records

    def _at_states(self, number: int, params: Params, episodes: list[Episode]) -> dict[str, float]:
        """What is measured with a seed's network at the states of its evaluation."""
        if not episodes:
            return {}
        seed = self.seeds[number]
        seen = np.concatenate([episode.seen for episode in episodes])
        masks = [e.legal for e in episodes if e.legal is not None]
        legal = np.concatenate(masks) if masks else None
        self.actor.load_params(self.untrained[number])
        # each member of an ensemble learns of itself, and their mean is smaller than they are
        before = self.actor.members(seen[None])[0] / self._reward_view()[0]
        seed.untrained = max(seed.untrained, _largest(before, legal))
        self.actor.load_params(params)
        values = self._values(seen)
        greedy, best = health.greedy_value(values, legal)
        layers = [layer[0] for layer in self.actor.activations(seen[None])]
        changed = self._churn(seed)
        seed.states = {"seen": seen, "greedy": greedy}
        if legal is not None:
            seed.states["legal"] = legal
        paid = self._paid(seen)
        returns, there = self._returns(episodes, best, paid)
        surplus = (there - returns).mean() if len(returns) else math.nan
        monte_carlo = returns.mean() if len(returns) else math.nan
        reward, left = max(map(abs, self._rewards(seed))) + abs(paid), 1.0 - self.hyper.gamma
        start = ELSEWHERE * seed.untrained
        return {
            "value": float(best.mean()),
            "magnitude": float(np.abs(best).mean()),
            "untrained": seed.untrained,
            "monte_carlo": float(monte_carlo),
            "overestimation": float(surplus),
            "overestimation_share": _share(surplus, max(abs(monte_carlo) + reward, start)),
            # of the largest value that backups can come to, which at a discount of 1 has no bound
            "value_share": _share(_largest(values, legal), max(reward / left, start))
            if left
            else math.nan,
            "action_gap": health.action_gap(values, legal),
            "churn": changed,
            **_features(layers, seen),
        }

    def _td_share(self, seed: Seed, td: Mapping[str, float], magnitude: float) -> float:
        """The width of the TD errors, of the predictions' size and what rewards alone may make of it."""
        lowest, highest = self._rewards(seed)
        if lowest == highest:
            return math.nan  # no reward yet: there is nothing to follow
        noise = (highest - lowest) * rewards_in_target(self.hyper)
        return _share(td["td_p95"] - td["td_p5"], magnitude + noise)

    def _values(self, seen: Array) -> Array:
        """[n, A] in raw reward units."""
        scale, _ = self._reward_view()
        values: Array = self.actor.values(seen[None])[0].astype(np.float64) / scale
        return values

    def _churn(self, seed: Seed) -> float:
        """How much of the last evaluation's states has another greedy action by now."""
        before = seed.states
        if not before:
            return math.nan
        after, _ = health.greedy_value(self._values(before["seen"]), before.get("legal"))
        return health.churn(before["greedy"], after)

    def _paid(self, seen: Array) -> float:
        """What a step pays besides its reward, on the mean: a soft policy's entropy is in its values."""
        paid = getattr(self.actor, "paid", None)
        return float(paid(seen[None], np.random.default_rng(0)).mean()) if paid else 0.0

    def _returns(self, episodes: list[Episode], best: Array, paid: float) -> tuple[Array, Array]:
        """Monte Carlo returns at the agent's discount, and the values of the same states.

        ``paid`` is what each successor pays besides: ``Q(s, a) = r + γ (Q(s', a') + paid)``.

        An episode that was cut off ends here at its last state, and that state's value stands for
        what is behind; only states for which it weighs little count.
        """
        scale, clip = self._reward_view()
        returns, values, start = [], [], 0
        for episode in episodes:
            there = best[start : start + len(episode.times)]
            start += len(there)
            whole = bool(episode.ended[-1])
            steps = len(episode.reward) if whole else int(episode.times[-1])
            reward, discount = reward_and_discount(
                episode.reward[:steps], episode.ended[:steps], self.hyper.gamma, scale, clip
            )
            g = health.monte_carlo(reward / scale + discount * paid, discount, float(there[-1]))
            left_open = np.cumprod(discount[::-1])[::-1]
            times = episode.times[episode.times < steps]
            counts = left_open[times] <= TAIL
            returns.append(g[times][counts])
            values.append(there[: len(times)][counts])
        return np.concatenate(returns), np.concatenate(values)

    def _rewards(self, seed: Seed) -> tuple[float, float]:
        """The lowest and the highest reward so far, 0 among them, clipped where the learner clips."""
        scale, clip = self._reward_view()
        return max(seed.lowest * scale, -clip) / scale, min(seed.highest * scale, clip) / scale

    def _reward_view(self) -> tuple[float, float]:
        """The learner's factor and bound on rewards; infinity for no bound."""
        h = self.hyper
        return getattr(h, "reward_scale", 1.0), getattr(h, "reward_clip", 0.0) or math.inf

    def _alarms(self, seed: int, record: Mapping[str, Any], lane_steps: int) -> list[str]:
        """The alarms that a seed's record gives for the first time."""
        now, carried = [], self.seeds[seed]
        for alarm in ALARMS:
            count = carried.in_a_row.get(alarm.name, 0) + 1 if alarm.out_of_bounds(record) else 0
            carried.in_a_row[alarm.name] = count
            if count >= alarm.patience and alarm.name not in carried.given:
                now.append(alarm.name)
                self.say(alarm.line(seed, lane_steps, record[alarm.measure], self.hyper))
        carried.given += now
        return now

    def state_dict(self) -> State:
        """All that decides later records."""
        return {str(seed): dict(vars(carried)) for seed, carried in self.seeds.items()}

    def load_state_dict(self, state: State) -> None:
        """Go on from a `state_dict`."""
        for seed, carried in state.items():
            # a seed that is done has left the group
            vars(self.seeds.setdefault(int(seed), Seed())).update(carried)


def health_of(
    setting: Setting, learner: Learner, seeds: Sequence[int], say: Callable[[str], None]
) -> Health | None:
    """Of a group's seeds that the learner has; None where its learner, as one of a table, tells nothing."""
    if not isinstance(learner, Examinable):
        return None
    return Health(setting.config.hyper, setting.make_actor, learner, seeds, say)


def alarms_of(records: Mapping[int, Sequence[Mapping[str, Any]]]) -> dict[str, list[int]]:
    """The seeds that gave each alarm, of the records of health.jsonl by seed."""
    given: dict[str, list[int]] = {}
    for seed, lines in sorted(records.items()):
        for name in (name for line in lines for name in line["alarms"]):
            given.setdefault(name, []).append(seed)
    return given


def rewards_in_target(hyper: Any) -> float:
    """How many rewards a target sums up, each by its weight: ``Σ γ^k`` over n steps, ``Σ (γλ)^k`` of λ-returns."""
    if hasattr(hyper, "lambda_"):
        left = 1.0 - hyper.gamma * hyper.lambda_
        return 1.0 / left if left else math.inf
    return float(sum(hyper.gamma**k for k in range(hyper.n_step)))


def _largest(values: Array, legal: Array | None) -> float:
    """The largest magnitude of a legal action's value, of values [..., n, A]."""
    return float(np.abs(values if legal is None else values[..., legal]).max())


def _share(value: float, unit: float) -> float:
    """NaN where there is nothing to compare with."""
    return float(value) / float(unit) if unit > 0 else math.nan


def _features(layers: list[Array], seen: Array) -> dict[str, float]:
    """Of the hidden layers; NaN where the states are too much alike to tell."""
    different = len({state.tobytes() for state in seen})
    if not layers or different < FEW_STATES:
        return {"dead_units": math.nan, "effective_rank": math.nan}
    last = layers[-1]
    # a feature map by its mean over places, IQN's features by theirs over fractions
    features = last.reshape(*last.shape[:2], -1).mean(-1)
    rank: float = health.effective_rank(features)
    rows = seen.reshape(len(seen), -1)
    if rank == 1 and rows.shape[1] > 1 and health.effective_rank(rows) == 1:
        rank = (
            math.nan
        )  # as of a pendulum that stands: the states are as much alike as their features
    return {"dead_units": health.dead_units(layers), "effective_rank": rank}
