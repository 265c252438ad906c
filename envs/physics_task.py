"""Gymnasium's eleven MuJoCo tasks, version 5, for N lanes at once: what is seen, rewarded and drawn.

Every formula keeps the order and the dtypes of Gymnasium's, so that the numbers are the same bits: a
control cost is summed in the action's own dtype, most often float32, and a power that Gymnasium takes
of a scalar is taken of scalars here, because the C library's pow and a product round differently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np

from envs.contract import Array, UnsupportedEnv
from envs.options import whole

Fields = Mapping[str, Array]
Range = tuple[float, float]


class Step(NamedTuple):
    """One step of all lanes, as rewards see it."""

    model: Any
    now: Fields  # `Task.fields` after the step, [N, ...] each
    action: Array  # [N, actuators] in the dtype in which it came
    velocity: Array  # [N, k]: how `Task.position` has changed, per second


class Verdict(NamedTuple):
    """What a step is worth."""

    reward: Array  # [N] float64
    terminated: Array  # [N] bool
    terms: dict[str, Array]  # [N] each: what Gymnasium adds to a step's info


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task; its fields are Gymnasium's options of the same names."""

    frame_skip: int

    xml: ClassVar[str]
    contact_forces: ClassVar[bool] = False  # whether cfrc_ext is looked at: MuJoCo has to be asked

    def fields(self, data: Any) -> dict[str, Array]:
        """The parts of one lane's MjData that the task looks at, as views."""
        return {"qpos": data.qpos, "qvel": data.qvel}

    def position(self, model: Any, now: Fields) -> Array:  # noqa: ARG002 - some need the masses
        """[N, k]: that of which `Step.velocity` is the velocity."""
        return now["qpos"][:, :0]

    def observe(self, now: Fields) -> Array:
        """The observations, a fresh array [N, size] float64."""
        raise NotImplementedError  # each subclass has its own

    def judge(self, step: Step) -> Verdict:
        """Reward and termination of a step."""
        raise NotImplementedError  # each subclass has its own

    def first_state(self, model: Any, rng: np.random.Generator) -> tuple[Array, Array]:
        """Positions and velocities (qpos, qvel) at the beginning of an episode."""
        raise NotImplementedError  # each subclass has its own

    def place(self, model: Any, data: Any) -> dict[str, Any]:  # noqa: ARG002
        """What Gymnasium's infos say of one lane after resets and steps alike."""
        return {}


Noise = Callable[[np.random.Generator, float, int], Array]


def uniform(rng: np.random.Generator, scale: float, size: int) -> Array:
    return rng.uniform(low=-scale, high=scale, size=size)


def normal(rng: np.random.Generator, scale: float, size: int) -> Array:
    return scale * rng.standard_normal(size)


def near_rest(
    model: Any, rng: np.random.Generator, scale: float, velocity: Noise
) -> tuple[Array, Array]:
    """The model's own pose with noise on it: uniform on positions, ``velocity`` on velocities."""
    qpos = model.qpos0 + uniform(rng, scale, model.nq)
    return qpos, np.zeros(model.nv) + velocity(rng, scale, model.nv)


def square_sum(x: Array) -> Array:
    """[N]: the squares of each lane's numbers, added up in their own dtype."""
    total: Array = np.square(x).reshape(len(x), -1).sum(axis=1)
    return total


def norm(x: Array) -> Array:
    """[N]: the length of each row; BLAS adds up as it does for one vector."""
    length: Array = np.sqrt(np.vecdot(x, x))
    return length


def squared(x: Array) -> Array:
    """[N]: each number squared by pow, as ``**`` does it with a scalar."""
    return np.array([one**2 for one in x])


def between(low: float, x: Array, high: float) -> Array:
    return (low < x) & (x < high)


def flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def pose(now: Fields, skipped: int, clipped: bool = False) -> Array:
    """Positions without the first ``skipped`` numbers, then velocities, cut at +-10 where ``clipped``."""
    qvel = np.clip(now["qvel"], -10, 10) if clipped else now["qvel"]
    return np.concatenate((now["qpos"][:, skipped:], qvel), axis=1)


def option_names(kind: type[Task]) -> list[str]:
    """The options of a task."""
    return [field.name for field in fields(kind)]


def make_task(env_id: str, kind: type[Task], options: Mapping[str, Any]) -> Task:
    """The task with these options, each of the kind that its field has.

    A range is two numbers or, as the command line gives it, a text like "0.8,2".

    Raises:
        UnsupportedEnv: a value is of another kind.
    """
    kinds = {field.name: str(field.type) for field in fields(kind)}
    return kind(**{k: _value(env_id, k, kinds[k], value) for k, value in options.items()})


def _value(env_id: str, option: str, kind: str, value: Any) -> Any:
    """``value`` where it is of a kind that is written as in the fields of a `Task`."""
    if kind == "int":
        return whole(env_id, option, value)
    takes, right = {
        "bool": ("true or false", isinstance(value, bool)),
        "float": ("a number", _is_number(value)),
        "int | str": ("a body's number or name", isinstance(value, int | str)),
        "Range": ("two numbers", False),
    }[kind]
    if kind == "Range":
        pair = _pair(value)
        if pair is not None:
            return pair
    if not right:
        raise UnsupportedEnv(f"{env_id}: option {option}: got {value!r}, takes {takes}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _pair(value: Any) -> Range | None:
    """Two numbers, from a sequence or a text; None where that is not what ``value`` is."""
    if isinstance(value, str):
        try:
            value = [float(part) for part in value.split(",")]
        except ValueError:
            return None
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_number, value)):
        return None
    return value[0], value[1]
