"""The four MuJoCo tasks of arms and poles: reaching, pushing, balancing one pole and two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.contract import Array
from envs.physics_task import (
    Fields,
    Step,
    Task,
    Verdict,
    near_rest,
    norm,
    normal,
    square_sum,
    squared,
    uniform,
)


@dataclass(frozen=True, kw_only=True)
class Reacher(Task):
    frame_skip: int = 2
    reward_dist_weight: float = 1
    reward_control_weight: float = 1

    xml = "reacher.xml"

    def fields(self, data: Any) -> dict[str, Array]:
        bodies = {name: data.body(name).xpos for name in ("fingertip", "target")}
        return {"qpos": data.qpos, "qvel": data.qvel, **bodies}

    def observe(self, now: Fields) -> Array:
        qpos, qvel = now["qpos"], now["qvel"]
        angles = np.ascontiguousarray(qpos[:, :2])
        way = (now["fingertip"] - now["target"])[:, :2]
        return np.concatenate(
            (np.cos(angles), np.sin(angles), qpos[:, 2:], qvel[:, :2], way), axis=1
        )

    def judge(self, step: Step) -> Verdict:
        dist = -norm(step.now["fingertip"] - step.now["target"]) * self.reward_dist_weight
        ctrl = -square_sum(step.action) * self.reward_control_weight
        terms = {"reward_dist": dist, "reward_ctrl": ctrl}
        return Verdict(dist + ctrl, np.zeros(len(dist), np.bool_), terms)

    def first_state(self, model: Any, rng: np.random.Generator) -> tuple[Array, Array]:
        qpos = uniform(rng, 0.1, model.nq) + model.qpos0
        goal = uniform(rng, 0.2, 2)
        while not np.linalg.norm(goal) < 0.2:
            goal = uniform(rng, 0.2, 2)
        qpos[-2:] = goal
        qvel = np.zeros(model.nv) + uniform(rng, 0.005, model.nv)
        qvel[-2:] = 0
        return qpos, qvel


@dataclass(frozen=True, kw_only=True)
class Pusher(Task):
    frame_skip: int = 5
    reward_near_weight: float = 0.5
    reward_dist_weight: float = 1
    reward_control_weight: float = 0.1

    xml = "pusher_v5.xml"

    def fields(self, data: Any) -> dict[str, Array]:
        bodies = {name: data.body(name).xpos for name in ("tips_arm", "object", "goal")}
        return {"qpos": data.qpos, "qvel": data.qvel, **bodies}

    def observe(self, now: Fields) -> Array:
        arm = now["qpos"][:, :7], now["qvel"][:, :7]
        return np.concatenate((*arm, now["tips_arm"], now["object"], now["goal"]), axis=1)

    def judge(self, step: Step) -> Verdict:
        now = step.now
        near = -norm(now["object"] - now["tips_arm"]) * self.reward_near_weight
        dist = -norm(now["object"] - now["goal"]) * self.reward_dist_weight
        ctrl = -square_sum(step.action) * self.reward_control_weight
        terms = {"reward_dist": dist, "reward_ctrl": ctrl, "reward_near": near}
        return Verdict(dist + ctrl + near, np.zeros(len(dist), np.bool_), terms)

    def first_state(self, model: Any, rng: np.random.Generator) -> tuple[Array, Array]:
        qpos = model.qpos0.copy()
        qpos[-4:-2] = _cylinder(rng)
        qpos[-2:] = 0  # the goal
        qvel = np.zeros(model.nv) + uniform(rng, 0.005, model.nv)
        qvel[-4:] = 0
        return qpos, qvel


def _cylinder(rng: np.random.Generator) -> Array:
    """Where the cylinder stands: drawn until it is far enough from the goal."""
    while True:
        place = np.array([rng.uniform(low=-0.3, high=0), rng.uniform(low=-0.2, high=0.2)])
        if np.linalg.norm(place) > 0.17:
            return place


@dataclass(frozen=True, kw_only=True)
class InvertedPendulum(Task):
    frame_skip: int = 2
    reset_noise_scale: float = 0.01

    xml = "inverted_pendulum.xml"

    def observe(self, now: Fields) -> Array:
        return np.concatenate((now["qpos"], now["qvel"]), axis=1)

    def judge(self, step: Step) -> Verdict:
        obs = self.observe(step.now)
        ended = ~np.isfinite(obs).all(axis=1) | (np.abs(obs[:, 1]) > 0.2)
        return Verdict((~ended).astype(np.float64), ended, {"reward_survive": (~ended).astype(int)})

    def first_state(self, model: Any, rng: np.random.Generator) -> tuple[Array, Array]:
        return near_rest(model, rng, self.reset_noise_scale, uniform)


@dataclass(frozen=True, kw_only=True)
class InvertedDoublePendulum(Task):
    frame_skip: int = 5
    healthy_reward: float = 10.0
    reset_noise_scale: float = 0.1

    xml = "inverted_double_pendulum.xml"

    def fields(self, data: Any) -> dict[str, Array]:
        tip, force = data.site_xpos[0], data.qfrc_constraint
        return {"qpos": data.qpos, "qvel": data.qvel, "tip": tip, "qfrc_constraint": force}

    def observe(self, now: Fields) -> Array:
        qpos = now["qpos"]
        angles = np.ascontiguousarray(qpos[:, 1:])
        clipped = np.clip(now["qvel"], -10, 10), np.clip(now["qfrc_constraint"], -10, 10)[:, :1]
        return np.concatenate((qpos[:, :1], np.sin(angles), np.cos(angles), *clipped), axis=1)

    def judge(self, step: Step) -> Verdict:
        x, _, y = step.now["tip"].T
        _, v1, v2 = step.now["qvel"].T
        ended = y <= 1
        survive = self.healthy_reward * (~ended).astype(int)
        distance = 0.01 * squared(x) + squared(y - 2)
        velocity = 1e-3 * squared(v1) + 5e-3 * squared(v2)
        terms = {
            "reward_survive": survive,
            "distance_penalty": -distance,
            "velocity_penalty": -velocity,
        }
        return Verdict(survive - distance - velocity, ended, terms)

    def first_state(self, model: Any, rng: np.random.Generator) -> tuple[Array, Array]:
        return near_rest(model, rng, self.reset_noise_scale, normal)
