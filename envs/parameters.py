"""Parameters of Gymnasium's simulators that its constructors do not take: gravity, masses, lengths.

They are options of `envs.make` like all others. What Gymnasium computes from them in its constructors
is computed anew. Parameters that a space depends on, as the angle at which CartPole ends, are none.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from envs.contract import UnsupportedEnv

Values = Mapping[str, float]


class Parameters(NamedTuple):
    """What an environment has, and how it is set in Gymnasium's object, scalar or vector."""

    any: tuple[str, ...]  # numbers of any sign
    positive: tuple[str, ...]
    set: Callable[[Any, Values], None]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return self.any + self.positive


def _attributes(env: Any, values: Values) -> None:
    for name, value in values.items():
        setattr(env, name, value)


def _cart_pole(env: Any, values: Values) -> None:
    _attributes(env, values)
    env.total_mass = env.masspole + env.masscart
    env.polemass_length = env.masspole * env.length


def _model_of(env: Any, values: Values) -> None:
    set_model(env.model, values)


def set_model(model: Any, values: Values) -> None:
    """Set an MjModel's gravity, and scale all masses (inertias with them) and sliding frictions."""
    if "gravity" in values:
        model.opt.gravity[:] = 0.0, 0.0, -values["gravity"]
    if "friction_scale" in values:
        model.geom_friction[:, 0] *= values["friction_scale"]
        model.pair_friction[:, :2] *= values["friction_scale"]
    if "mass_scale" in values:
        mujoco = sys.modules["mujoco"]  # it has made the model
        model.body_mass[:] *= values["mass_scale"]
        model.body_inertia[:] *= values["mass_scale"]
        mujoco.mj_setConst(model, mujoco.MjData(model))  # what is computed from them


MOUNTAIN_CAR = Parameters(("gravity", "goal_position"), ("force",), _attributes)
CONTINUOUS_CAR = Parameters(("goal_position",), ("power",), _attributes)
PENDULUM = Parameters((), ("m", "l"), _attributes)
CART_POLE = Parameters(
    ("gravity",), ("length", "masscart", "masspole", "force_mag", "tau"), _cart_pole
)
MUJOCO = Parameters(("gravity",), ("mass_scale", "friction_scale"), _model_of)

PARAMETERS: dict[str, Parameters] = {
    "CartPole-v0": CART_POLE,
    "CartPole-v1": CART_POLE,
    "MountainCar-v0": MOUNTAIN_CAR,
    "MountainCarContinuous-v0": CONTINUOUS_CAR,
    "Pendulum-v1": PENDULUM,
    "Ant-v5": MUJOCO,
    "HalfCheetah-v5": MUJOCO,
    "Hopper-v5": MUJOCO,
    "Humanoid-v5": MUJOCO,
    "HumanoidStandup-v5": MUJOCO,
    "InvertedDoublePendulum-v5": MUJOCO,
    "InvertedPendulum-v5": MUJOCO,
    "Pusher-v5": MUJOCO,
    "Reacher-v5": MUJOCO,
    "Swimmer-v5": MUJOCO,
    "Walker2d-v5": MUJOCO,
}
NONE = Parameters((), (), _attributes)


def parameters(env_id: str) -> Parameters:
    """Those of an environment; of most there are none."""
    return PARAMETERS.get(env_id, NONE)


def take(env_id: str, options: dict[str, Any]) -> Values:
    """Move the parameters out of ``options``.

    Raises:
        UnsupportedEnv: one is no finite number, or has to be positive and is not.
    """
    known = parameters(env_id)
    return {
        name: checked(env_id, name, options.pop(name), name in known.positive)
        for name in known.names
        if name in options
    }


def checked(env_id: str, name: str, value: Any, positive: bool) -> float:
    """``value`` as a float.

    Raises:
        UnsupportedEnv: as `take`.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or (positive and value <= 0):
        kind = "a number above 0" if positive else "a number"
        raise UnsupportedEnv(f"{env_id}: option {name}: got {value!r}, takes {kind}")
    return float(value)
