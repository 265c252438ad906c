"""What goes on beside the loop: the clock, records, evaluations, checkpoints, the end of a seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from agents.contract import Array, Learned, NonFiniteLoss, Params, Rollout, State
from runners import stats
from runners.config import RunConfig
from runners.console import Status
from runners.episodes import EpisodeCounter, Total
from runners.evaluation import Evaluates, Purpose
from runners.health import Health
from runners.run_folder import Records
from runners.sources import Plan, Simulating
from runners.timing import Times, shares

METRIC_LINES = 200  # in metrics.jsonl, over a whole run
CONFIRMATION_EPISODES = 100


class Clock(NamedTuple):
    """When what is due, in lane steps of one seed."""

    steps: int
    eval_every: int
    checkpoint_every: int
    rollout_length: int
    lanes: int
    ahead: int = 0  # rollouts that may be begun before they are asked for
    seeds_leave: bool = False  # at evaluations

    def plan(self, lane_steps: int) -> Plan:
        """The next rollout: cut at the next evaluation, checkpoint, or the end."""
        return self._plan(lane_steps, self.ahead)

    def _plan(self, lane_steps: int, ahead: int) -> Plan:
        """With as many of those that follow; none where a state is taken, or seeds may leave."""
        due = min(
            self.steps,
            _next_multiple(lane_steps, self.eval_every),
            _next_multiple(lane_steps, self.checkpoint_every),
        )
        rows = min(self.rollout_length, -(-(due - lane_steps) // self.lanes))
        after = lane_steps + rows * self.lanes
        crossed = self.passed(lane_steps, after, self.checkpoint_every)
        number = after // self.checkpoint_every if crossed else None
        evaluated = self.passed(lane_steps, after, self.eval_every)
        rests = after >= self.steps or crossed or (self.seeds_leave and evaluated)
        following = None if rests or not ahead else self._plan(after, ahead - 1)
        return Plan(rows, number, following)

    @property
    def log_every(self) -> int:
        """Lane steps between lines of metrics."""
        return max(1, self.steps // METRIC_LINES)

    @staticmethod
    def passed(before: int, after: int, every: int) -> bool:
        """Whether a multiple of ``every`` lies in (before, after]."""
        return after // every > before // every


def _next_multiple(value: int, every: int) -> int:
    return (value // every + 1) * every


def clock_of(config: RunConfig) -> Clock:
    """The clock of a configuration."""
    return Clock(
        config.steps,
        config.eval_every,
        config.checkpoint_every,
        config.rollout_length,
        config.lanes_of_all,
        config.ahead,
        config.until_solved,
    )


@dataclass
class SeedRecord:
    """What is known of one seed so far."""

    seed: int
    env_steps: int = 0
    lane_steps: int = 0
    updates: int = 0
    seconds: float = 0.0
    last_mean: float = math.nan
    best_mean: float = -math.inf
    best_lane_steps: int = -1
    solved: bool = False
    solved_env_steps: int = -1
    solved_seconds: float = -1.0


class Progress:
    """Drives one group of seeds from the clock and keeps its records."""

    def __init__(
        self,
        config: RunConfig,
        threshold: float | None,
        seeds: Sequence[int],
        source: Simulating,
        learner: Learned,
        evaluator: Evaluates,
        folders: Callable[[int], Records],
        save_weights: Callable[[int, str, Params], None],
        save_checkpoint: Callable[[Progress], None],
        show: Callable[[Status], None],
        stop_asked: Callable[[], int],
        health: Health | None = None,
        times: Times | None = None,
        total: Total | None = None,
    ) -> None:
        """``total`` adds up what several learners count."""
        self.config, self.threshold = config, threshold
        self.clock = clock_of(config)
        self.source, self.learner, self.evaluator = source, learner, evaluator
        self.folders, self.save_weights = folders, save_weights
        self.health = health
        self._save, self.show, self.stop_asked = save_checkpoint, show, stop_asked
        self.records = {seed: SeedRecord(seed) for seed in seeds}
        self.active = list(seeds)
        self.total = total
        self.counter = EpisodeCounter(len(seeds), config.lanes, total)
        self.lane_steps = 0
        self.rollouts = 0  # as many as versions of the parameters have been published
        self.lags: list[int] = []  # versions that acting was behind, since the last line of metrics
        self.finished = False
        self.stopped = 0  # the signal that ended it early
        self._stopping = 0  # the same, while what is under way is still learned from
        self.saved_at = -1  # lane steps of the newest checkpoint
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self.times = times or Times()
        self.times.start()
        self._logged = (0, 0.0, 0)  # lane steps, seconds, updates at the last line of metrics
        self._spent = self.times.wall()  # and where the time had gone

    @property
    def seconds(self) -> float:
        """Wall time of the run, earlier starts included."""
        return self._seconds_before + time.monotonic() - self._started

    def plan(self) -> Plan | None:
        """What the next rollout is to be, or None when all is done."""
        if self.finished or self.stopped:
            return None
        plan = self.clock.plan(self.lane_steps)
        return plan._replace(following=None) if self._stopping else plan

    def after(self, rollout: Rollout) -> None:
        """Count the rollout, then do what has become due. Evaluation comes before checkpoint."""
        before, clock, lap = self.lane_steps, self.clock, self.times.lap
        lap("learn")
        self.lags.append(self.rollouts - rollout.version)
        self.rollouts += 1
        self.lane_steps += rollout.rows * clock.lanes
        self.counter.add(rollout)
        if self.health:
            self.health.observe(rollout, self.active)
        self._update_records()
        took_part = list(self.active)
        ended = self.lane_steps >= clock.steps
        if ended or clock.passed(before, self.lane_steps, clock.log_every):
            self._log()
        if ended or clock.passed(before, self.lane_steps, clock.eval_every):
            lap("other")
            self._evaluate()
            lap("evaluate")
        solved = [seed for seed in self.active if self.records[seed].solved]
        self.finished = ended or (self.config.until_solved and solved == self.active)
        if self.finished:
            self._end_seeds(self.active)
        elif self.config.until_solved and solved:
            self._let_go(solved)
        for seed in took_part:
            self.records[seed].seconds = self.seconds  # evaluations are part of the run
        if self.finished or clock.passed(before, self.lane_steps, clock.checkpoint_every):
            self.checkpoint()
        self.show(self.status())
        self._stopping = self._stopping or self.stop_asked()
        if self._stopping and not self.finished and not self.source.pending:
            self._stop(self._stopping)

    def checkpoint(self) -> None:
        """Save all that is needed to go on from here."""
        self.saved_at = self.lane_steps
        self.times.lap("other")
        self._save(self)
        self.times.lap("save")

    def _stop(self, signum: int) -> None:
        """End early; with an extra checkpoint where that changes nothing that follows."""
        self.stopped = signum
        if self.source.resumable and self.saved_at != self.lane_steps:
            self.checkpoint()

    def _update_records(self) -> None:
        for k, seed in enumerate(self.active):
            record = self.records[seed]
            record.env_steps = int(self.counter.env_steps[k])
            record.lane_steps, record.updates = self.lane_steps, self.learner.updates
            record.seconds = self.seconds

    def _log(self) -> None:
        """A line of metrics for every seed."""
        metrics = self.learner.metrics()
        if not all(np.isfinite(value).all() for value in metrics.values()):
            raise NonFiniteLoss(self.learner.updates)
        episodes, train_return = self.counter.report()
        schedules = self.learner.params().scalars
        steps_before, seconds_before, updates_before = self._logged
        passed = max(self.seconds - seconds_before, 1e-9)
        time_shares = self._time_shares(passed)
        lag = {"policy_lag": float(np.mean(self.lags)), "policy_lag_max": max(self.lags)}
        self.lags = []
        for k, seed in enumerate(self.active):
            self.folders(seed).add_metrics(
                {
                    **self._position(seed),
                    "episodes": int(episodes[k]),
                    "train_return": float(train_return[k]),
                    **schedules,
                    **(lag if self.config.ahead else {}),
                    **{name: float(value[k]) for name, value in metrics.items()},
                    "lane_steps_per_s": (self.lane_steps - steps_before) / passed,
                    "updates_per_s": (self.learner.updates - updates_before) / passed,
                    "time_shares": time_shares,
                }
            )
        self._logged = (self.lane_steps, self.seconds, self.learner.updates)

    def _time_shares(self, passed: float) -> dict[str, float]:
        """Where the time since the last line of metrics went."""
        before, self._spent = self._spent, self.times.wall()
        spent = {part: value - before[part] for part, value in self._spent.items()}
        return {str(part): round(share, 4) for part, share in shares(spent, passed).items()}

    def _position(self, seed: int) -> dict[str, Any]:
        record = self.records[seed]
        return {
            "lane_steps": record.lane_steps,
            "env_steps": record.env_steps,
            "updates": record.updates,
            "seconds": round(self.seconds, 3),
        }

    def _evaluate(self) -> None:
        """Greedy episodes of every seed; confirm those that look solved; keep the best weights."""
        params = self.learner.params()
        recorders = self.health.recorders(len(self.active)) if self.health else ()
        returns = self.evaluator.returns(
            params,
            self.active,
            self.config.eval_episodes,
            Purpose.SCHEDULED,
            self.lane_steps,
            recorders,
        )
        passed = [
            k
            for k, seed in enumerate(self.active)
            if self.threshold is not None
            and returns[k].mean() >= self.threshold
            and not self.records[seed].solved
        ]
        confirmed = self._confirm(params, passed)
        regret = self.evaluator.regret(params) if self.evaluator.regret else None
        for k, seed in enumerate(self.active):
            line = {**self._position(seed), "mean": float(returns[k].mean())}
            if regret is not None:
                line["regret"] = float(regret[k])
            line["returns"] = returns[k].tolist()
            if k in confirmed:
                line["confirmation"] = confirmed[k].tolist()
            self.folders(seed).add_eval(line)
            self._judge(self.records[seed], returns[k], confirmed.get(k))
            if self.records[seed].best_lane_steps == self.lane_steps:
                self.save_weights(seed, "best", params.keep([k]))
        if self.health:
            found = self.health.examine(params, self.active, recorders, self.lane_steps)
            for seed, record in zip(self.active, found, strict=True):
                self.folders(seed).add_health({**self._position(seed), **record})

    def _confirm(self, params: Params, positions: list[int]) -> dict[int, Array]:
        """Fresh episodes of the seeds whose evaluation reached the threshold."""
        if not positions:
            return {}
        seeds = [self.active[k] for k in positions]
        returns = self.evaluator.returns(
            params.keep(positions),
            seeds,
            CONFIRMATION_EPISODES,
            Purpose.CONFIRMATION,
            self.lane_steps,
        )
        return dict(zip(positions, returns, strict=True))

    def _judge(self, record: SeedRecord, returns: Array, confirmation: Array | None) -> None:
        """Best weights are those of the highest mean, ties to the later; solved ones come first."""
        record.last_mean = float(returns.mean())
        newly_solved = (
            confirmation is not None
            and self.threshold is not None
            and stats.surely_at_least(confirmation, self.threshold)
        )
        if newly_solved:
            record.solved = True
            record.solved_env_steps, record.solved_seconds = record.env_steps, self.seconds
        leaves = newly_solved and self.config.until_solved
        if leaves or record.last_mean >= record.best_mean:
            record.best_mean, record.best_lane_steps = record.last_mean, self.lane_steps

    def _let_go(self, solved: list[int]) -> None:
        """Solved seeds leave the group with the weights they have."""
        self._end_seeds(solved)
        stay = [k for k, seed in enumerate(self.active) if seed not in solved]
        self.active = [self.active[k] for k in stay]
        self.learner.keep(stay)
        self.source.keep(stay)
        self.counter.keep(stay)

    def _end_seeds(self, seeds: Sequence[int]) -> None:
        params = self.learner.params()
        for seed in seeds:
            self.save_weights(seed, "last", params.keep([self.active.index(seed)]))

    def status(self) -> Status:
        """What the console shows."""
        records = self.records.values()
        return Status(
            lane_steps=self.lane_steps,
            lane_steps_all=sum(r.lane_steps for r in records),
            env_steps=sum(r.env_steps for r in records),
            updates=sum(r.updates for r in records),
            returns={r.seed: r.last_mean for r in records if not math.isnan(r.last_mean)},
            solved=sum(r.solved for r in records),
            seconds=self.seconds,
            spent=self.times.wall(),
        )

    def state_dict(self) -> State:
        """Taken between rollouts."""
        return {
            "lane_steps": self.lane_steps,
            "rollouts": self.rollouts,
            "lags": self.lags,
            "active": self.active,
            "finished": self.finished,
            "seconds": self.seconds,
            "counter": self.counter.state_dict(),
            "records": {str(seed): _to_json(record) for seed, record in self.records.items()},
            "health": self.health.state_dict() if self.health else {},
            "spent": self.times.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from a `state_dict`. The learner and the source hold ``active`` seeds already."""
        self.lane_steps, self.finished = state["lane_steps"], state["finished"]
        self.saved_at = self.lane_steps
        self.rollouts, self.lags = state["rollouts"], list(state["lags"])
        self.active = list(state["active"])
        self.counter = EpisodeCounter(len(self.active), self.config.lanes, self.total)
        self.counter.load_state_dict(state["counter"])
        self.records = {int(seed): _from_json(r) for seed, r in state["records"].items()}
        if self.health:
            self.health.load_state_dict(state.get("health", {}))  # {}: begun before it was kept
        self._seconds_before, self._started = state["seconds"], time.monotonic()
        # {}: begun before it was kept
        self.times.load_state_dict(state.get("spent", {"seconds": {}, "cpu": 0.0}))
        self._spent = self.times.wall()
        self._logged = (self.lane_steps, self.seconds, self.learner.updates)


def _to_json(record: SeedRecord) -> dict[str, Any]:
    """JSON has no NaN and no infinity: None stands for what is not known yet."""
    values = asdict(record)
    return {
        name: None if isinstance(v, float) and not math.isfinite(v) else v
        for name, v in values.items()
    }


def _from_json(values: dict[str, Any]) -> SeedRecord:
    return SeedRecord(**{name: v for name, v in values.items() if v is not None})
