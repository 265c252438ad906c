"""What the lab's own vector environments share: seeds, the check of actions, and the end of life."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.contract import Array


def lane_seeds(seed: int, lanes: int) -> list[int]:
    """One integer a lane from a block's one: distinct even where blocks have neighbouring seeds."""
    return [int(word >> 1) for word in np.random.SeedSequence(seed).generate_state(lanes)]


def block_seeds(env: Any, seed: int) -> Any:
    """The integer, or list of one integer a lane, that ``env.reset`` takes so that the block starts from one integer.

    ``reset(seed=s)`` of separate lanes means s + i for lane i, as in Gymnasium; two blocks with
    neighbouring integers would share lanes. So separate lanes get integers from the block's own tree.
    An environment that does not say that its lanes are separate gets the integer itself.
    """
    separate = getattr(env, "separate_lanes", False)
    return lane_seeds(seed, env.num_envs) if separate else seed


def check_seeds(seeds: Sequence[int], lanes: int, separate_lanes: bool) -> None:
    """Refuse a list of seeds where one generator serves all lanes, and one of another length.

    Raises:
        ValueError: which of the two it is.
    """
    if not separate_lanes:
        raise ValueError("one generator serves all lanes: reset takes one integer as its seed")
    if len(seeds) != lanes:
        raise ValueError(f"{len(seeds)} seeds for {lanes} lanes")


class Actions:
    """Checks the actions of N lanes before an engine sees them: some would hang on a bad one."""

    def __init__(self, space: spaces.Space[Any], num_envs: int) -> None:
        self.space, self.shape = space, (num_envs, *(space.shape or ()))
        self.discrete = isinstance(space, spaces.Discrete)
        if isinstance(space, spaces.Discrete):
            self.last = int(space.n) - 1
        elif isinstance(space, spaces.Box):
            self.low, self.high = space.low, space.high

    def __call__(self, actions: Any) -> Array:
        """The actions as an array [N, ...]: int64, or the dtype they came in where they are a Box's.

        Raises:
            ValueError: another shape, NaN or out of range; the message names the lane.
            TypeError: actions are not numbers of the space's kind.
        """
        given = np.asarray(actions)
        if given.shape != self.shape:
            raise ValueError(f"actions have shape {given.shape}, not {self.shape}")
        if self.discrete:
            if given.dtype.kind not in "iu":
                raise TypeError(f"actions are {given.dtype}, not integers")
            chosen = given.astype(np.int64, copy=False)
            # One pass for both bounds: a union of bits is at least each number, and below 0 if one is.
            if not 0 <= int(np.bitwise_or.reduce(chosen)) <= self.last:
                wrong = (chosen < 0) | (chosen > self.last)
                if wrong.any():
                    lane = int(np.argmax(wrong))
                    raise ValueError(f"lane {lane}: action {chosen[lane]} is not in 0..{self.last}")
            return chosen
        if given.dtype.kind not in "fiu":
            raise TypeError(f"actions are {given.dtype}, not numbers")
        # a comparison with NaN is false, so this asks for what is right
        right = (given >= self.low) & (given <= self.high)
        if not right.all():
            lane = int(np.argwhere(~right)[0][0])
            raise ValueError(f"lane {lane}: action {given[lane]} is not in {self.space}")
        return given


class Simulator(VectorEnv[Any, Any, Any]):
    """A vector environment under the contract of `envs.contract`.

    A subclass has `begin` and `advance`, and `get_state` and `set_state` where it can. It says by
    ``separate_lanes`` whether each lane has a generator of its own, or one generator serves all.
    """

    separate_lanes = True
    releases_gil = False  # a step lets other threads of the process compute

    def __init__(
        self,
        num_envs: int,
        seed: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
    ) -> None:
        """``seed`` is kept for the first bare ``reset``; the spaces are one lane's."""
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self._kept_seed: int | None = seed
        self._begun = False
        self._check_actions = Actions(action_space, num_envs)

    def reset(
        self,
        *,
        seed: Any = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002 - Gymnasium's signature
    ) -> tuple[Array, dict[str, Any]]:
        """Begin new episodes in all lanes; without a seed, with the kept one once.

        Args:
            seed: an integer, which stands for seed + i in lane i where lanes are separate, or then
                one integer a lane; None goes on with the same streams.
            options: not used.

        Raises:
            ValueError: a list where one generator serves all lanes, or one of another length.
            RuntimeError: the environment is closed.
        """
        self._check_open()
        if seed is None and self._kept_seed is not None:
            seed = block_seeds(self, self._kept_seed)
        elif seed is None and not self._begun:
            seed = block_seeds(self, int(np.random.SeedSequence().generate_state(1)[0]))
        self._kept_seed = None
        self._begun = True
        return self.begin(None if seed is None else self._expanded(seed))

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes: ``(obs [N, ...], reward, terminated, truncated [N], infos)``.

        Raises:
            ValueError: actions have another shape, are NaN or out of range.
            TypeError: actions are not numbers of the space's kind.
            RuntimeError: `reset` has not been called, or the environment is closed.
        """
        self._check_open()
        if not self._begun:
            raise RuntimeError("call reset before step")
        return self.advance(self._check_actions(actions))

    def begin(self, seeds: list[int] | None) -> tuple[Array, dict[str, Any]]:
        """New episodes in all lanes.

        ``seeds`` has one integer a lane (one for all where lanes are not separate) that starts its
        stream anew; None goes on with the streams as they are.
        """
        raise NotImplementedError  # each subclass has its own

    def advance(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all lanes with actions that are right; lanes behind an end are reset by it."""
        raise NotImplementedError  # each subclass has its own

    def resumed(self) -> None:
        """To be called by ``set_state``: the kept seed is not wanted any more, a step may follow."""
        self._check_open()
        self._kept_seed, self._begun = None, True

    def _expanded(self, seed: Any) -> list[int]:
        if isinstance(seed, int | np.integer):
            return [int(seed) + i for i in range(self.num_envs if self.separate_lanes else 1)]
        check_seeds(seed, self.num_envs, self.separate_lanes)
        return [int(one) for one in seed]

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError("the environment is closed; make another")
