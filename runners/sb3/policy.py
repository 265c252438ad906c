"""Policies of Stable-Baselines3 that act for the lab: built from a configuration, weights from safetensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecTransposeImage

from agents.contract import Array, Params, State
from envs.contract import Spec
from runners.sb3.agents import Config

CONVOLVED = 36  # pixels that the Nature paper's convolutions take at least
MEAN, VARIANCE = "obs_rms.mean", "obs_rms.var"  # of observations, beside a policy's own tensors
CLIP, EPSILON = 10.0, 1e-8  # VecNormalize's


def algorithm_of(config: Config) -> Any:
    """Stable-Baselines3's class."""
    return getattr(stable_baselines3, config.algorithm)


def stacks(spec: Spec) -> bool:
    """Whether observations are images [H, W] without channels: the newest ones become the channels."""
    return len(spec.obs_shape) == 2 and spec.obs_dtype == np.uint8


def lane_space(spec: Spec) -> spaces.Space[Any]:
    """What one lane shows to Stable-Baselines3; float64 as float32, images with a channel in front."""
    if spec.num_states:
        return spaces.Discrete(spec.num_states)
    if stacks(spec):
        return spaces.Box(0, 255, (1, *spec.obs_shape), np.uint8)
    low, high = (np.asarray(bound, spec.obs_dtype) for bound in (spec.obs_low, spec.obs_high))
    return spaces.Box(low, high, dtype=spec.obs_dtype)  # type: ignore[arg-type]


def policy_space(config: Config, spec: Spec) -> spaces.Space[Any]:
    """What its policy looks at."""
    space = lane_space(spec)
    if stacks(spec):
        return spaces.Box(0, 255, (frames_of(config), *spec.obs_shape), np.uint8)
    if not isinstance(space, spaces.Box) or not is_image_space(space):
        return space
    first = is_image_space_channels_first(space)
    return space if first else VecTransposeImage.transpose_space(space)


def action_space(spec: Spec) -> spaces.Space[Any]:
    """The actions of one lane."""
    if spec.num_actions:
        return spaces.Discrete(spec.num_actions)
    assert spec.action_low is not None
    assert spec.action_high is not None
    return spaces.Box(spec.action_low, spec.action_high, dtype=spec.action_dtype)  # type: ignore[arg-type]


def policy_name(config: Config, spec: Spec) -> str:
    """Convolutions for images that are large enough for them, else an MLP."""
    space = policy_space(config, spec)
    large = is_image_space(space) and min(space.shape[1:]) >= CONVOLVED  # type: ignore[index]
    return "CnnPolicy" if large else "MlpPolicy"


def make_policy(config: Config, spec: Spec) -> Any:
    """An untrained policy; the global generator is as it was before."""
    cls = algorithm_of(config).policy_aliases[policy_name(config, spec)]
    with torch.random.fork_rng(devices=[]):
        return cls(
            policy_space(config, spec),
            action_space(spec),
            lambda _: 0.0,  # a learning rate: it acts only
            net_arch=list(config.net_arch),
        )


def params_of(model: Any, lane_steps: int, updates: int) -> Params:
    """A copy of a model's policy, and of what normalises its observations, as one seed's parameters."""
    tensors = {
        name: t.detach().cpu()[None].clone() for name, t in model.policy.state_dict().items()
    }
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        rms = normalizer.obs_rms
        tensors |= {MEAN: torch.tensor(rms.mean)[None], VARIANCE: torch.tensor(rms.var)[None]}
    epsilon = float(getattr(model, "exploration_rate", 0.0))
    return Params(updates, lane_steps, tensors, {"epsilon": epsilon})


class SB3Actor:
    """Acts greedily by the policies of K seeds, as ``predict(obs, deterministic=True)`` does.

    Its memory are the newest images, where it looks at several.
    """

    stored = looks_back = False

    def __init__(self, policies: Sequence[Any], spec: Spec, frames: int = 1) -> None:
        self.policies, self.spec, self.frames = policies, spec, frames
        self.normalizers: list[tuple[Array, Array] | None] = [None] * len(policies)

    def initial_state(self, lanes: int) -> State:
        """``frames`` [K, n, k, H, W]; {} where there is one only."""
        if not stacks(self.spec) or self.frames == 1:
            return {}
        shape = (len(self.policies), lanes, self.frames, *self.spec.obs_shape)
        return {"frames": np.zeros(shape, np.uint8)}

    def act(
        self, obs: Array, first: Array, facts: Mapping[str, Array], state: State, explore: bool
    ) -> tuple[Array, State, dict[str, Array]]:
        """Greedy actions [K, n, ...], whatever ``explore`` says: it explores in its own loop."""
        del facts, explore
        if state:
            frames = np.roll(state["frames"], -1, axis=2)
            frames[first] = 0  # as VecFrameStack fills it
            frames[:, :, -1] = obs
            obs, state = frames, {"frames": frames}
        elif stacks(self.spec):
            obs = obs[:, :, np.newaxis]
        chosen = [
            policy.predict(_normalized(seen, normalizer), deterministic=True)[0]
            for policy, normalizer, seen in zip(self.policies, self.normalizers, obs, strict=True)
        ]
        return np.stack(chosen).astype(self.spec.action_dtype, copy=False), state, {}

    def load_params(self, params: Params) -> None:
        """Act with these from now on."""
        for k, policy in enumerate(self.policies):
            own = {name: tensor[k] for name, tensor in params.tensors.items()}
            if MEAN in own:
                self.normalizers[k] = own.pop(MEAN).numpy(), own.pop(VARIANCE).numpy()
            policy.load_state_dict(own)


def frames_of(config: Config) -> int:
    """The newest images that it looks at."""
    return getattr(config, "frame_stack", 1)


def _normalized(obs: Array, normalizer: tuple[Array, Array] | None) -> Array:
    """As VecNormalize does it, to the bit."""
    if normalizer is None:
        return obs
    mean, variance = normalizer
    return np.clip((obs - mean) / np.sqrt(variance + EPSILON), -CLIP, CLIP).astype(np.float32)


def buffer_bytes(config: Config, spec: Spec) -> int:
    """What its replay takes from the start: two observations, action, reward and two flags a transition."""
    space = policy_space(config, spec)
    obs = math.prod(space.shape or (1,)) * np.dtype(space.dtype).itemsize
    action = math.prod(spec.action_shape) * np.dtype(spec.action_dtype).itemsize
    return int(getattr(config, "buffer_size", 0) * (2 * obs + action + 3 * 4))
