"""Gymnasium's MuJoCo tasks, version 5, stepped lane by lane in one loop, bit for bit as it steps them.

One MjModel serves all lanes, each has its MjData and its generator. A step is `mj_step` and nothing
else of a lane's own in Python; observations, rewards and ends are computed for all lanes at once from
views of the MjDatas (see `envs.physics_task`). MuJoCo is never asked to look again after a step:
positions of bodies and forces are those that it had on the way, one substep late, as in Gymnasium.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding

from envs import mujoco_setup, native, offscreen, physics_arms, physics_envpool, physics_walkers
from envs.contract import Array, UnsupportedEnv, VectorSimulator
from envs.cores import cores
from envs.options import reject_unknown, whole
from envs.parameters import MUJOCO, set_model, take
from envs.physics_task import Step, Task, make_task, option_names
from envs.simulator import Simulator

TASKS: dict[str, type[Task]] = {
    "HalfCheetah-v5": physics_walkers.HalfCheetah,
    "Hopper-v5": physics_walkers.Hopper,
    "Walker2d-v5": physics_walkers.Walker2d,
    "Ant-v5": physics_walkers.Ant,
    "Humanoid-v5": physics_walkers.Humanoid,
    "HumanoidStandup-v5": physics_walkers.HumanoidStandup,
    "Swimmer-v5": physics_walkers.Swimmer,
    "Reacher-v5": physics_arms.Reacher,
    "Pusher-v5": physics_arms.Pusher,
    "InvertedPendulum-v5": physics_arms.InvertedPendulum,
    "InvertedDoublePendulum-v5": physics_arms.InvertedDoublePendulum,
}


GYMNASIUM_ONLY = (
    "xml_file",
    "uph_cost_weight",  # without effect there too
    "render_mode",
    "width",
    "height",
    "camera_id",
    "camera_name",
    "default_camera_config",
    "max_geom",
    "visual_options",
)
"""Options of Gymnasium's classes that other models and cameras need."""
CAMERAS = {"camera_id", "camera_name", "default_camera_config"}

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


def backends(env_id: str) -> list[str]:
    """Our own loop first, Gymnasium's objects, and EnvPool, which simulates with a MuJoCo of its own."""
    return ["batched", *native.backends(env_id), "envpool"]


def make(
    env_id: str, num_envs: int, seed: int, backend: str, options: Mapping[str, Any]
) -> VectorSimulator:
    """A vector environment of one of `TASKS`.

    Its options are the task's fields and ``max_episode_steps``; of batched and envpool also ``threads``,
    which changes no result; of sync and async all others that Gymnasium's class takes. All but
    envpool take the `parameters` of MuJoCo.

    Raises:
        UnsupportedEnv: an option is unknown, of a wrong kind or not for this backend, or a package
            is not installed.
    """
    task = _task(env_id, backend, options)
    if backend in native.BACKENDS:
        mujoco_setup.mujoco_module(env_id)
        given = _gymnasium_options(task, options)
        return native.make(env_id, num_envs, seed, backend, given, partial(_runaways_seen, env_id))
    threads = options.get("threads", default_threads(task, num_envs))
    whole(env_id, "threads", threads)
    limit = time_limit(env_id, options)
    if backend == "envpool":
        return physics_envpool.make(env_id, task, num_envs, seed, limit, threads, options)
    mujoco = mujoco_setup.mujoco_module(env_id)
    with mujoco_setup.no_deprecations():
        model = mujoco.MjModel.from_xml_path(str(ASSETS / task.xml))
    set_model(model, take(env_id, dict(options)))
    _see_runaways(mujoco, model)
    return PhysicsEnv(env_id, mujoco, model, task, num_envs, seed, limit, threads)


def _see_runaways(mujoco: Any, model: Any) -> None:
    """Numbers that ran away are to be seen and named; MuJoCo would begin the lane anew and say nothing."""
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET


def _runaways_seen(env_id: str, env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    inner: Any = env.unwrapped
    _see_runaways(mujoco_setup.mujoco_module(env_id), inner.model)
    return env


def time_limit(env_id: str, options: Mapping[str, Any]) -> int:
    """Steps until an episode is truncated; 0 is never."""
    return native.time_limit(env_id, options)


def scalar(env_id: str, options: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """Gymnasium's environment, which can be rendered, without a display too.

    It takes the options of every backend, and those of Gymnasium's class for cameras and windows.

    Raises:
        UnsupportedEnv: an option is wrong, or nothing here can draw what ``render_mode`` asks for.
    """
    given = {name: value for name, value in options.items() if name != "threads"}
    task = _task(env_id, "sync", given)
    if given.get("render_mode") not in (None, "human"):
        offscreen.require_renderer(env_id)
        if not given.keys() & CAMERAS:
            # the model's own, which follows; without a name Gymnasium's stands still, and what runs is soon away
            given["camera_name"] = "track"
    mujoco_setup.mujoco_module(env_id)
    return native.scalar(env_id, _gymnasium_options(task, given))


def default_threads(task: Task, num_envs: int) -> int:
    """One for every 8 lanes of a task whose steps are long, up to the processors; one for the others.

    Handing lanes to a thread takes as long as some steps of a light task.
    """
    return max(1, min(cores(), num_envs // 8)) if task.contact_forces else 1


def _task(env_id: str, backend: str, options: Mapping[str, Any]) -> Task:
    """The task that these options describe; refuses names that ``backend`` does not take."""
    kind = TASKS[env_id]
    names = [*option_names(kind), "max_episode_steps"]
    if backend != "envpool":
        names += MUJOCO.names
    if backend in native.BACKENDS:
        names += GYMNASIUM_ONLY
    else:
        names.append("threads")
        for option in options:
            if option in GYMNASIUM_ONLY:
                raise UnsupportedEnv(
                    f"{env_id}: backend {backend} has no option {option!r}; use backend='sync'"
                )
    if "threads" in options and backend in native.BACKENDS:
        raise UnsupportedEnv(f"{env_id}: backend {backend} has no option 'threads'; leave it out")
    reject_unknown(env_id, options, names)
    return make_task(env_id, kind, {k: v for k, v in options.items() if k in option_names(kind)})


def _gymnasium_options(task: Task, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as Gymnasium's class takes them: ranges as two numbers, not as text."""
    return {name: getattr(task, name, value) for name, value in options.items()}


class PhysicsEnv(Simulator):
    """N lanes of a MuJoCo task; observations [N, size] float64, rewards [N] float64, no infos.

    Each lane has a generator of its own. Lane i with seed s is Gymnasium's environment after
    ``reset(seed=s)`` and further bare resets, bit for bit and however many threads there are. What
    Gymnasium's infos say is in ``terms`` ([N] each, of the last step) and in `lane_info`. Returned
    arrays are fresh at every step.
    """

    releases_gil = True

    def __init__(
        self,
        env_id: str,
        mujoco: Any,
        model: Any,
        task: Task,
        num_envs: int,
        seed: int,
        limit: int,
        threads: int,
    ) -> None:
        self.task, self.model, self.limit = task, model, limit
        self._mujoco = mujoco
        self._data = [mujoco.MjData(model) for _ in range(num_envs)]
        try:
            fields = [task.fields(data) for data in self._data]
        except (IndexError, KeyError, TypeError) as error:
            raise UnsupportedEnv(f"{env_id}: no such body: {error.args[0]}") from error
        # one lane's views by name -> by name, every lane's view
        self._views = {
            name: ([lane[name].reshape(-1) for lane in fields], (num_envs, *view.shape))
            for name, view in fields[0].items()
        }
        self._ctrl = [data.ctrl for data in self._data]
        self._generators: list[np.random.Generator] = []
        self._dt = model.opt.timestep * task.frame_skip
        low, high = model.actuator_ctrlrange.astype(np.float32).T
        size = task.observe(self._now()).shape[1]
        super().__init__(
            num_envs,
            seed,
            spaces.Box(-np.inf, np.inf, (size,), np.float64),
            spaces.Box(low, high, dtype=np.float32),
        )
        self.elapsed = np.zeros(num_envs, np.int64)
        self.done = np.zeros(num_envs, np.bool_)
        self.position = task.position(model, self._now())
        self.terms: dict[str, Array] | None = None
        self._fresh = np.ones(num_envs, np.bool_)  # lanes whose last step was a reset
        bounds = [num_envs * i // threads for i in range(threads + 1)]
        self._slices = [slice(a, b) for a, b in itertools.pairwise(bounds) if a < b]
        self._pool = ThreadPoolExecutor(len(self._slices) - 1) if len(self._slices) > 1 else None

    def begin(self, seeds: list[int] | None) -> tuple[Array, dict[str, Any]]:
        """New episodes in all lanes, each from its own generator."""
        if seeds is not None:
            self._generators = [seeding.np_random(seed)[0] for seed in seeds]
        for lane in range(self.num_envs):
            self._reset_lane(lane)
        now = self._now()
        self.position = self.task.position(self.model, now)
        self.elapsed = np.zeros(self.num_envs, np.int64)
        self.done = np.zeros(self.num_envs, np.bool_)
        self.terms, self._fresh = {}, np.ones(self.num_envs, np.bool_)
        return self.task.observe(now), {}

    def advance(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes: ``(obs [N, size], reward, terminated, truncated [N], {})``."""
        ended = self.done
        self._simulate(actions, ended)
        now, before = self._now(), self.position
        self.position = self.task.position(self.model, now)
        velocity = (self.position - before) / self._dt
        reward, terminated, self.terms = self.task.judge(Step(self.model, now, actions, velocity))
        self.elapsed = np.where(ended, 0, self.elapsed + 1)
        truncated = self.elapsed >= self.limit if self.limit else np.zeros(self.num_envs, np.bool_)
        if ended.any():
            reward = np.where(ended, 0.0, reward)
            terminated, truncated = terminated & ~ended, truncated & ~ended
        self.done, self._fresh = terminated | truncated, ended
        return self.task.observe(now), reward, terminated, truncated, {}

    def lane_info(self, lane: int) -> dict[str, Any]:
        """What Gymnasium's info says after this lane's last step or reset; made when it is asked for.

        Raises:
            RuntimeError: nothing has been stepped or reset here since the beginning or `set_state`.
        """
        if self.terms is None:
            raise RuntimeError("step or reset the environment before asking for an info")
        place = self.task.place(self.model, self._data[lane])
        if self._fresh[lane]:
            return place
        return {**place, **{name: term[lane] for name, term in self.terms.items()}}

    def get_state(self) -> dict[str, Any]:
        """Physics [N, size] and ``position`` [N, k] float64, elapsed, done [N], generators.

        ``physics`` is MuJoCo's mjSTATE_INTEGRATION. What it leaves out is computed anew by every
        step, save the position that the next velocity is measured from.
        """
        if not self._generators:
            raise RuntimeError("reset the environment before asking for its state")
        what = self._mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty((self.num_envs, self._mujoco.mj_stateSize(self.model, what)))
        for data, row in zip(self._data, physics, strict=True):
            self._mujoco.mj_getState(self.model, data, row, what)
        return {
            "physics": physics,
            "position": self.position.copy(),
            "elapsed": self.elapsed.copy(),
            "done": self.done.copy(),
            "rng": [copy.deepcopy(one.bit_generator.state) for one in self._generators],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state from `get_state`."""
        self.resumed()
        what = self._mujoco.mjtState.mjSTATE_INTEGRATION
        for data, row in zip(self._data, state["physics"], strict=True):
            self._mujoco.mj_setState(self.model, data, row, what)
        self.position = np.array(state["position"], np.float64)
        self.elapsed = np.array(state["elapsed"], np.int64)
        self.done = np.array(state["done"], np.bool_)
        self._generators = [seeding.np_random(0)[0] for _ in state["rng"]]
        for one, words in zip(self._generators, state["rng"], strict=True):
            one.bit_generator.state = copy.deepcopy(words)
        self.terms = None

    def close_extras(self, **kwargs: Any) -> None:  # noqa: ARG002 - Gymnasium's signature
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _now(self) -> dict[str, Array]:
        """What the task looks at, of all lanes, as fresh arrays [N, ...]."""
        return {
            name: np.concatenate(views).reshape(shape)
            for name, (views, shape) in self._views.items()
        }

    def _simulate(self, actions: Array, ended: Array) -> None:
        """Step every lane's physics, or reset it where its episode has ended."""
        skip = ended.tolist()
        first, *rest = self._slices
        if self._pool is None:
            self._simulate_slice(first, actions, skip)
            return
        others = [self._pool.submit(self._simulate_slice, part, actions, skip) for part in rest]
        self._simulate_slice(first, actions, skip)
        for other in others:
            other.result()

    def _simulate_slice(self, lanes: slice, actions: Array, ended: Sequence[bool]) -> None:
        """`_simulate` of some lanes. Other threads work while MuJoCo steps: it lets the lock go."""
        model, mj_step, frames = self.model, self._mujoco.mj_step, self.task.frame_skip
        look_at_forces = self._mujoco.mj_rnePostConstraint if self.task.contact_forces else None
        rows = zip(
            range(self.num_envs)[lanes],
            self._data[lanes],
            self._ctrl[lanes],
            actions[lanes],
            ended[lanes],
            strict=True,
        )
        for lane, data, ctrl, action, over in rows:
            if over:
                self._reset_lane(lane)
                continue
            ctrl[:] = action
            mj_step(model, data, frames)
            if look_at_forces is not None:
                look_at_forces(model, data)

    def _reset_lane(self, lane: int) -> None:
        model, data = self.model, self._data[lane]
        self._mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = self.task.first_state(model, self._generators[lane])
        self._mujoco.mj_forward(model, data)
