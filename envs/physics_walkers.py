"""The seven MuJoCo tasks of bodies that move about: cheetah, swimmer, walker, hopper, ant, humanoid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.contract import Array
from envs.physics_task import (
    Fields,
    Range,
    Step,
    Task,
    Verdict,
    between,
    flat,
    near_rest,
    normal,
    pose,
    square_sum,
    uniform,
)


def plane(data: Any) -> dict[str, Any]:
    x, y = data.qpos[:2]
    distance = np.linalg.norm(data.qpos[:2], ord=2)
    return {"x_position": x, "y_position": y, "distance_from_origin": distance}


@dataclass(frozen=True, kw_only=True)
class HalfCheetah(Task):
    frame_skip: int = 5
    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 0.1
    reset_noise_scale: float = 0.1
    exclude_current_positions_from_observation: bool = True

    xml = "half_cheetah.xml"

    def position(self, model: Any, now: Fields) -> Array:  # noqa: ARG002
        return now["qpos"][:, :1]

    def observe(self, now: Fields) -> Array:
        return pose(now, int(self.exclude_current_positions_from_observation))

    def judge(self, step: Step) -> Verdict:
        velocity = step.velocity[:, 0]
        forward = self.forward_reward_weight * velocity
        ctrl = self.ctrl_cost_weight * square_sum(step.action)
        terms = {"x_velocity": velocity, "reward_forward": forward, "reward_ctrl": -ctrl}
        return Verdict(forward - ctrl, np.zeros(len(ctrl), np.bool_), terms)

    def first_state(self, model: Any, rng: np.random.Generator) -> tuple[Array, Array]:
        return near_rest(model, rng, self.reset_noise_scale, normal)

    def place(self, model: Any, data: Any) -> dict[str, Any]:  # noqa: ARG002
        return {"x_position": data.qpos[0]}


@dataclass(frozen=True, kw_only=True)
class Swimmer(Task):
    frame_skip: int = 4
    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 1e-4
    reset_noise_scale: float = 0.1
    exclude_current_positions_from_observation: bool = True

    xml = "swimmer.xml"

    def position(self, model: Any, now: Fields) -> Array:  # noqa: ARG002
        return now["qpos"][:, :2]

    def observe(self, now: Fields) -> Array:
        return pose(now, 2 * self.exclude_current_positions_from_observation)

    def judge(self, step: Step) -> Verdict:
        x_velocity, y_velocity = step.velocity.T
        forward = self.forward_reward_weight * x_velocity
        ctrl = self.ctrl_cost_weight * square_sum(step.action)
        terms = {
            "x_velocity": x_velocity,
            "y_velocity": y_velocity,
            "reward_forward": forward,
            "reward_ctrl": -ctrl,
        }
        return Verdict(forward - ctrl, np.zeros(len(ctrl), np.bool_), terms)

    def first_state(self, model: Any, rng: np.random.Generator) -> tuple[Array, Array]:
        return near_rest(model, rng, self.reset_noise_scale, uniform)

    def place(self, model: Any, data: Any) -> dict[str, Any]:  # noqa: ARG002
        return plane(data)


@dataclass(frozen=True, kw_only=True)
class Walker2d(Task):
    frame_skip: int = 4
    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 1e-3
    healthy_reward: float = 1.0
    terminate_when_unhealthy: bool = True
    healthy_z_range: Range = (0.8, 2.0)
    healthy_angle_range: Range = (-1.0, 1.0)
    reset_noise_scale: float = 5e-3
    exclude_current_positions_from_observation: bool = True

    xml = "walker2d_v5.xml"

    def position(self, model: Any, now: Fields) -> Array:  # noqa: ARG002
        return now["qpos"][:, :1]

    def observe(self, now: Fields) -> Array:
        return pose(now, int(self.exclude_current_positions_from_observation), clipped=True)

    def healthy(self, now: Fields) -> Array:
        """[N] bool: neither too low or high nor leaning too far."""
        (low, high), (back, front) = self.healthy_z_range, self.healthy_angle_range
        qpos = now["qpos"]
        return between(low, qpos[:, 1], high) & between(back, qpos[:, 2], front)

    def judge(self, step: Step) -> Verdict:
        velocity, healthy = step.velocity[:, 0], self.healthy(step.now)
        forward = self.forward_reward_weight * velocity
        survive = healthy * self.healthy_reward
        ctrl = self.ctrl_cost_weight * square_sum(step.action)
        terms = {
            "x_velocity": velocity,
            "reward_forward": forward,
            "reward_ctrl": -ctrl,
            "reward_survive": survive,
        }
        ended = ~healthy & self.terminate_when_unhealthy
        return Verdict(forward + survive - ctrl, ended, terms)

    def first_state(self, model: Any, rng: np.random.Generator) -> tuple[Array, Array]:
        return near_rest(model, rng, self.reset_noise_scale, uniform)

    def place(self, model: Any, data: Any) -> dict[str, Any]:
        height = data.qpos[1] - model.qpos0[1]
        return {"x_position": data.qpos[0], "z_distance_from_origin": height}


@dataclass(frozen=True, kw_only=True)
class Hopper(Walker2d):
    """The walker's rules, and a bound on all that moves."""

    healthy_state_range: Range = (-100.0, 100.0)
    healthy_z_range: Range = (0.7, float("inf"))
    healthy_angle_range: Range = (-0.2, 0.2)

    xml = "hopper.xml"

    def healthy(self, now: Fields) -> Array:
        low, high = self.healthy_state_range
        moving = np.concatenate((now["qpos"][:, 2:], now["qvel"]), axis=1)
        inside: Array = between(low, moving, high).all(axis=1) & super().healthy(now)
        return inside


@dataclass(frozen=True, kw_only=True)
class Ant(Task):
    frame_skip: int = 5
    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 0.5
    contact_cost_weight: float = 5e-4
    healthy_reward: float = 1.0
    main_body: int | str = 1
    terminate_when_unhealthy: bool = True
    healthy_z_range: Range = (0.2, 1.0)
    contact_force_range: Range = (-1.0, 1.0)
    reset_noise_scale: float = 0.1
    exclude_current_positions_from_observation: bool = True
    include_cfrc_ext_in_observation: bool = True

    xml = "ant.xml"
    contact_forces = True

    def fields(self, data: Any) -> dict[str, Array]:
        main = data.body(self.main_body).xpos
        return {"qpos": data.qpos, "qvel": data.qvel, "main": main, "cfrc_ext": data.cfrc_ext}

    def position(self, model: Any, now: Fields) -> Array:  # noqa: ARG002
        return now["main"][:, :2]

    def observe(self, now: Fields) -> Array:
        seen = pose(now, 2 * self.exclude_current_positions_from_observation)
        if not self.include_cfrc_ext_in_observation:
            return seen
        return np.concatenate((seen, flat(self._forces(now)[:, 1:])), axis=1)

    def judge(self, step: Step) -> Verdict:
        x_velocity, y_velocity = step.velocity.T
        healthy = self._healthy(step.now)
        forward = x_velocity * self.forward_reward_weight
        survive = healthy * self.healthy_reward
        ctrl = self.ctrl_cost_weight * square_sum(step.action)
        contact = self.contact_cost_weight * square_sum(self._forces(step.now))
        terms = {
            "x_velocity": x_velocity,
            "y_velocity": y_velocity,
            "reward_forward": forward,
            "reward_ctrl": -ctrl,
            "reward_contact": -contact,
            "reward_survive": survive,
        }
        ended = ~healthy & self.terminate_when_unhealthy
        return Verdict(forward + survive - (ctrl + contact), ended, terms)

    def _forces(self, now: Fields) -> Array:
        return np.clip(now["cfrc_ext"], *self.contact_force_range)

    def _healthy(self, now: Fields) -> Array:
        low, high = self.healthy_z_range
        z = now["qpos"][:, 2]
        finite: Array = np.isfinite(pose(now, 0)).all(axis=1) & (low <= z) & (z <= high)
        return finite

    def first_state(self, model: Any, rng: np.random.Generator) -> tuple[Array, Array]:
        return near_rest(model, rng, self.reset_noise_scale, normal)

    def place(self, model: Any, data: Any) -> dict[str, Any]:  # noqa: ARG002
        return plane(data)


@dataclass(frozen=True, kw_only=True)
class _Body(Task):
    """What the two tasks of the humanoid share: the observation and the first state."""

    frame_skip: int = 5
    ctrl_cost_weight: float = 0.1
    reset_noise_scale: float = 1e-2
    exclude_current_positions_from_observation: bool = True
    include_cinert_in_observation: bool = True
    include_cvel_in_observation: bool = True
    include_qfrc_actuator_in_observation: bool = True
    include_cfrc_ext_in_observation: bool = True

    contact_forces = True

    def fields(self, data: Any) -> dict[str, Array]:
        names = ("qpos", "qvel", "xipos", "cfrc_ext", *self._included())
        return {name: getattr(data, name) for name in names}

    def _included(self) -> dict[str, int]:
        """What the observation has besides the pose, and how many rows of each it leaves out.

        The world comes first in the rows of bodies, the free joint in those of actuator forces.
        """
        first_row = {"cinert": 1, "cvel": 1, "qfrc_actuator": 6, "cfrc_ext": 1}
        wanted = {name: getattr(self, f"include_{name}_in_observation") for name in first_row}
        return {name: row for name, row in first_row.items() if wanted[name]}

    def observe(self, now: Fields) -> Array:
        seen = pose(now, 2 * self.exclude_current_positions_from_observation)
        rest = [flat(now[name][:, row:]) for name, row in self._included().items()]
        return np.concatenate((seen, *rest), axis=1)

    def first_state(self, model: Any, rng: np.random.Generator) -> tuple[Array, Array]:
        return near_rest(model, rng, self.reset_noise_scale, uniform)

    def _ctrl_cost(self, action: Array) -> Array:
        """Of what MuJoCo was given, which is float64 whatever the action's dtype."""
        return self.ctrl_cost_weight * square_sum(action.astype(np.float64))


def _tendons(data: Any) -> dict[str, Any]:
    return {
        "tendon_length": data.ten_length.copy(),
        "tendon_velocity": data.ten_velocity.copy(),
    }


@dataclass(frozen=True, kw_only=True)
class Humanoid(_Body):
    forward_reward_weight: float = 1.25
    contact_cost_weight: float = 5e-7
    contact_cost_range: Range = (-np.inf, 10.0)
    healthy_reward: float = 5.0
    terminate_when_unhealthy: bool = True
    healthy_z_range: Range = (1.0, 2.0)

    xml = "humanoid.xml"

    def position(self, model: Any, now: Fields) -> Array:
        """[N, 2]: the centre of mass, over the bodies in their order."""
        moment = np.einsum("b,nbj->nj", model.body_mass, now["xipos"])
        centre: Array = (moment / model.body_mass.sum())[:, :2]
        return centre

    def judge(self, step: Step) -> Verdict:
        x_velocity, y_velocity = step.velocity.T
        healthy = between(self.healthy_z_range[0], step.now["qpos"][:, 2], self.healthy_z_range[1])
        forward = self.forward_reward_weight * x_velocity
        survive = healthy * self.healthy_reward
        ctrl = self._ctrl_cost(step.action)
        contact = self.contact_cost_weight * square_sum(step.now["cfrc_ext"])
        contact = np.clip(contact, *self.contact_cost_range)
        terms = {
            "x_velocity": x_velocity,
            "y_velocity": y_velocity,
            "reward_survive": survive,
            "reward_forward": forward,
            "reward_ctrl": -ctrl,
            "reward_contact": -contact,
        }
        ended = ~healthy & self.terminate_when_unhealthy
        return Verdict(forward + survive - (ctrl + contact), ended, terms)

    def place(self, model: Any, data: Any) -> dict[str, Any]:  # noqa: ARG002
        return {**plane(data), **_tendons(data)}


@dataclass(frozen=True, kw_only=True)
class HumanoidStandup(_Body):
    impact_cost_weight: float = 0.5e-6
    impact_cost_range: Range = (-np.inf, 10.0)

    xml = "humanoidstandup.xml"

    def judge(self, step: Step) -> Verdict:
        up = step.now["qpos"][:, 2] / step.model.opt.timestep
        ctrl = self._ctrl_cost(step.action)
        impact = self.impact_cost_weight * square_sum(step.now["cfrc_ext"])
        impact = np.clip(impact, *self.impact_cost_range)
        terms = {"reward_linup": up, "reward_quadctrl": -ctrl, "reward_impact": -impact}
        return Verdict(up - ctrl - impact + 1, np.zeros(len(up), np.bool_), terms)

    def place(self, model: Any, data: Any) -> dict[str, Any]:
        x, y, z = data.qpos[:3]
        height = z - model.qpos0[2]
        place = {"x_position": x, "y_position": y, "z_distance_from_origin": height}
        return {**place, **_tendons(data)}
