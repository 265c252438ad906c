"""Replay of single transitions: n-step windows and stacks of frames are put together on sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from agents.contract import Array, Batch, Rollout
from agents.replay.frames import LZ4Frames, MakeFrames, stacked_last
from agents.replay.prioritized import SMALLEST, Priorities, put
from agents.replay.rows import Rows, action_dtype
from agents.replay.segments import SegmentFrames
from agents.replay.tensor_frames import TensorFrames
from agents.replay.window import window
from envs.contract import Spec
from envs.kernel import inlined, kernel

_NOTHING = np.zeros((0, 0, 0), np.float32)
_ATTEMPTS = 10_000  # rounds of draws before a replay without any usable row is called a mistake


class RingReplay(Rows):
    """Replay for K seeds of n lanes each; seeds never see each other's rows."""

    def __init__(
        self,
        spec: Spec,
        generators: Sequence[np.random.Generator],
        lanes: int,
        *,
        capacity: int,
        batch_size: int,
        n_step: int,
        gamma: float,
        reward_scale: float = 1.0,
        reward_clip: float = math.inf,
        frame_stack: int = 1,
        end_on_life_loss: bool = False,
        priorities: Callable[[int, int], Priorities] | None = None,
        compression: str = "none",
        acted_values: bool = False,
        frames: MakeFrames | None = None,
    ) -> None:
        """Allocate room for ``capacity`` transitions a seed (and the frames before the oldest).

        ``priorities(seeds, places)`` makes those to sample by; None: all rows alike. ``compression``
        of observations, "none" or "lz4", changes their size alone, and so does another place that ``frames``
        makes for them. ``acted_values``: a new row's first
        priority is its error by what acting thought of it, the extras "q" and "v" of rollouts.
        """
        slots = max(-(-capacity // lanes), n_step + 1) + frame_stack
        super().__init__(
            spec, generators, lanes, slots, end_on_life_loss, priorities, compression, acted_values,
            frames,
        )  # fmt: skip
        self.batch_size, self.frame_stack = batch_size, frame_stack
        self.options = (n_step, gamma, reward_scale, reward_clip)
        self._allocate_batch()

    def _allocate_batch(self) -> None:
        shape = (len(self.generators), self.batch_size)
        # A quarter more draws than needed make a second round rare.
        draws = shape[1] if self.priorities else shape[1] + shape[1] // 4 + 8
        self.draws = np.empty((shape[0], draws))
        self.picks = np.empty(self.draws.shape, np.int64)
        self.sampled = np.zeros(shape, np.int64)  # row · lanes + lane
        self.out_weight = np.ones(shape, np.float32)
        self.indices = np.zeros((2, *shape, self.frame_stack), np.int64)  # -1: a blank frame
        self.out_action = np.zeros((*shape, *self.spec.action_shape), action_dtype(self.spec))
        self.out_reward = np.zeros(shape, np.float32)
        self.out_discount = np.zeros(shape, np.float32)
        obs, next_obs = self._allocate_obs(shape)
        if self.frame_stack == 1:
            obs, next_obs = obs.squeeze(2), next_obs.squeeze(2)
        masks: list[torch.Tensor | None] = [None, None]
        if self.spec.action_mask:
            self.out_masks = np.zeros((2, *shape, self.spec.num_actions), np.bool_)
            masks = [torch.from_numpy(mask) for mask in self.out_masks]
        self.batch = Batch(
            obs=obs,
            action=torch.from_numpy(self.out_action),
            reward=torch.from_numpy(self.out_reward),
            discount=torch.from_numpy(self.out_discount),
            next_obs=next_obs,
            next_action_mask=masks[1],
            weight=torch.from_numpy(self.out_weight) if self.priorities else None,
            extras=self._extras(),
            action_mask=masks[0],
        )

    def _extras(self) -> dict[str, torch.Tensor]:
        extras = {"number": torch.from_numpy(self.sampled)}
        if self.priorities:
            extras["heaviest"] = torch.from_numpy(self.heaviest)
        return extras

    def _allocate_obs(self, shape: tuple[int, int]) -> torch.Tensor:
        """Both stacks of frames, [2, K, B, S, ...]; of grey images the stack lies last in memory."""
        self.stacked_last = self.frame_stack > 1 and len(self.spec.obs_shape) == 2
        stacked = (2, *shape, self.frame_stack, *self.spec.obs_shape)
        if self.stacked_last:
            stacked = (2, *shape, *self.spec.obs_shape, self.frame_stack)
        if isinstance(self.obs, TensorFrames):
            blank = self.obs.blank(stacked)
            self.taken = blank.movedim(-1, 3) if self.stacked_last else blank
            return self.taken
        self.memory = np.zeros(stacked, self.spec.obs_dtype)
        self.out_obs = np.moveaxis(self.memory, -1, 3) if self.stacked_last else self.memory
        return torch.from_numpy(self.out_obs)

    @property
    def ready(self) -> bool:
        """Whether some window is whole; of fewer rows there may be none."""
        return self._head >= self.options[0] + 2

    def add(self, rollout: Rollout) -> None:
        """Append the rows of a rollout whose columns are seed-major."""
        start = self.write(rollout)
        if self.priorities:
            self._admit(start)

    def sample(self) -> Batch:
        """A batch of windows, drawn uniformly over the rows that may start one.

        The batch's tensors are the same memory at every call.

        Raises:
            RuntimeError: no row can start a window (the replay is nearly empty).
        """
        self._draw()
        self._take_obs()
        actions = self.action.reshape(-1, *self.spec.action_shape)
        np.take(actions, self.indices[0, :, :, -1], axis=0, out=self.out_action, mode="clip")
        if self.spec.action_mask:
            masks = self.action_mask.reshape(-1, self.spec.num_actions)
            np.take(masks, self.indices[..., -1], axis=0, out=self.out_masks, mode="clip")
        return self.batch

    def _take_obs(self) -> None:
        """Copy the frames of both stacks into the batch."""
        if isinstance(self.obs, TensorFrames):
            self.obs.take(self.indices, self.taken)
            return
        if isinstance(self.obs, LZ4Frames | SegmentFrames):
            frames, places = self.obs.unpack(self.indices)
        else:
            assert isinstance(self.obs, np.ndarray)
            frames, places = self.obs.reshape(-1, *self.spec.obs_shape), self.indices
        if self.stacked_last:
            stacks = (-1, *self.memory.shape[3:])
            stacked_last(frames, places.reshape(-1, self.frame_stack), self.memory.reshape(stacks))
            return
        # 'clip' lets numpy write to `out` without a buffer; only -1 is out of range.
        np.take(frames, places, axis=0, out=self.memory, mode="clip")
        if self.frame_stack > 1:
            self.memory[places < 0] = 0

    def _draw(self) -> None:
        filled = np.zeros(len(self.generators), np.int64)
        for _ in range(_ATTEMPTS):
            for k, generator in enumerate(self.generators):
                if filled[k] < self.batch_size:
                    generator.random(out=self.draws[k])
            if _fill(
                self._picks(), filled, self.tail, self._head, *self.options,
                self.first, self.reward, self.terminated, self.truncated,
                self.frame_stack, self.indices, self.sampled, self.out_reward, self.out_discount,
            ):  # fmt: skip
                return
        raise RuntimeError(f"none of the rows {self.tail} to {self._head} can start a window")

    def _picks(self) -> Array:
        """Rows to try, [K, D] as row · lanes + lane."""
        if self.priorities is None:
            _uniform(self.draws, self.tail * self.lanes, self._head * self.lanes, self.picks)
            return self.picks
        return self.draw_by_priority(self.draws, self.out_weight)

    def _admit(self, start: int) -> None:
        """Give the rows from ``start`` on their first priority, or none; and look again at their edges.

        The windows of ``n_step`` rows before ``start`` may be whole only now, or cut where a lane began
        anew; the stacks of the oldest rows may have lost their frames.
        """
        priorities = self.priorities
        assert priorities is not None
        n_step, head, tail = self.options[0], self._head, self.tail
        acted = (self.acted_q, self.acted_v) if self.acted_values else (_NOTHING, _NOTHING)
        for k in range(len(self.generators)):
            priorities.count[k] += _admit(
                k, start, max(tail, start - n_step), tail, head, *self.options, self.first, self.reward,
                self.terminated, self.truncated, self.frame_stack, self.indices,
                priorities.trees[k], priorities.largest[k] ** priorities.alpha, priorities.alpha, *acted,
            )  # fmt: skip

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        super().keep(seeds)
        self._allocate_batch()


@kernel()
def _uniform(draws, low, high, picks):  # type: ignore[no-untyped-def]
    """Whole numbers from ``low`` to below ``high`` by uniform draws [K, D]; in one pass."""
    for k, d in np.ndindex(draws.shape):
        picks[k, d] = low + np.int64(draws[k, d] * (high - low))


@kernel()
def _fill(  # type: ignore[no-untyped-def]
    picks, filled, tail, head, n_step, gamma, scale, clip,
    first, reward, terminated, truncated,
    frames, indices, sampled, out_reward, out_discount,
):  # fmt: skip
    """Turn picked rows into windows, seed by seed, until each has a batch. True when all have.

    A row is passed over which cannot start a window: an ignored reset row, one
    whose window runs into rows that are not there yet, or one whose stack of frames reaches back to
    rows that are not there any more.
    """
    _, seeds, lanes = first.shape
    batch = out_reward.shape[1]
    complete = True
    for k in range(seeds):
        b = filled[k]
        for pick in picks[k]:
            if b == batch:
                break
            row, lane = pick // lanes, pick % lanes
            end, total, discount = window(
                row, k, lane, head, n_step, gamma, scale, clip, first, reward, terminated, truncated
            )
            if end == row or _stack(indices, 0, k, b, row, lane, tail, frames, first):
                continue
            _stack(indices, 1, k, b, end, lane, tail, frames, first)
            sampled[k, b] = pick
            out_reward[k, b] = total
            out_discount[k, b] = discount
            b += 1
        filled[k] = b
        complete = complete and b == batch
    return complete


@kernel()
def _admit(  # type: ignore[no-untyped-def]
    k, start, again, tail, head, n_step, gamma, scale, clip,
    first, reward, terminated, truncated, frames, indices, tree, fresh, alpha, acted_q, acted_v,
):  # fmt: skip
    """Priorities of seed k's rows after rows ``start`` to ``head`` were added; how many more may be drawn.

    A row that may be drawn keeps its priority, and has ``fresh`` where it has none; or that of its error by
    the values that acted, where there are any (Horgan et al. 2018, arXiv:1803.00933, section 3). The value of
    the newest observation is not known yet: a window that ends there has ``fresh`` as well.
    """
    slots, _, lanes = first.shape
    leaves = tree.shape[0] // 2
    more = 0
    for row in range(start, head + 1):  # what these places held is gone
        for lane in range(lanes):
            place = (row % slots) * lanes + lane
            if tree[leaves + place] > 0.0:
                more -= 1
                put(tree, place, 0.0)
    for part in range(2):  # the oldest rows, of which stacks are cut, and the newest
        low, high = (tail, min(tail + frames - 1, again)) if part == 0 else (again, head)
        for row in range(low, high):
            for lane in range(lanes):
                end, total, discount = window(
                    row, k, lane, head, n_step, gamma, scale, clip,
                    first, reward, terminated, truncated,
                )  # fmt: skip
                may = end != row and not _stack(indices, 0, k, 0, row, lane, tail, frames, first)
                place = (row % slots) * lanes + lane
                had = tree[leaves + place] > 0.0
                if may and not had:
                    more += 1
                    known = acted_q.size and (end < head or discount == 0.0)
                    priority = (
                        _priority(row, end, k, lane, total, discount, alpha, acted_q, acted_v)
                        if known
                        else fresh
                    )
                    put(tree, place, priority)
                elif had and not may:
                    more -= 1
                    put(tree, place, 0.0)
    return more


@inlined()
def _priority(row, end, k, lane, total, discount, alpha, acted_q, acted_v):  # type: ignore[no-untyped-def]
    """By the error of a window, by the values that acted."""
    slots = acted_q.shape[0]
    goal = total
    if discount != 0.0:
        goal += discount * acted_v[end % slots, k, lane]
    return (abs(goal - acted_q[row % slots, k, lane]) + SMALLEST) ** alpha


@inlined()
def _stack(indices, which, k, b, row, lane, tail, frames, first):  # type: ignore[no-untyped-def]
    """Write the places of the frames at a row, oldest first; -1 before the episode began.

    True where the stack is not whole: the episode began before ``tail``, and so did the stack.
    """
    slots, seeds, lanes = first.shape
    begun = False
    for back in range(frames):
        slot = (row - back) % slots
        if not begun and row - back < tail:
            return True
        indices[which, k, b, frames - 1 - back] = -1 if begun else (slot * seeds + k) * lanes + lane
        begun = begun or first[slot, k, lane]
    return False
