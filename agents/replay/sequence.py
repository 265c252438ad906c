"""Replay of sequences: where a rollout began, with what the actor remembered there.

Kapturowski et al. 2019, "Recurrent Experience Replay in Distributed Reinforcement Learning" (R2D2),
section 3: stored states and a burn-in. A sequence begins at a rollout's first row and goes on over as many
rollouts as it takes; episodes may end in it, and an ignored row in it is passed over like anywhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from agents.contract import Array, Batch, Rollout, State
from agents.replay.frames import MakeFrames
from agents.replay.rows import MakePriorities, Rows
from agents.replay.segments import SegmentFrames
from agents.replay.tensor_frames import TensorFrames
from agents.replay.window import window
from agents.sequences import joined_blocks, pack
from envs.contract import Spec
from envs.kernel import kernel


class SequenceReplay(Rows):
    """Sequences of ``burn_in + length`` rows and one more observation, of K seeds of n lanes each."""

    def __init__(
        self,
        spec: Spec,
        generators: Sequence[np.random.Generator],
        lanes: int,
        *,
        capacity: int,
        batch_size: int,
        burn_in: int,
        length: int,
        n_step: int,
        gamma: float,
        reward_scale: float = 1.0,
        reward_clip: float = math.inf,
        end_on_life_loss: bool = False,
        priorities: MakePriorities | None = None,
        frames: MakeFrames | None = None,
    ) -> None:
        """Room for ``capacity`` transitions a seed; ``batch_size`` sequences are drawn at a time.

        ``frames`` makes another place for observations than an array.
        """
        self.span, self.burn_in, self.length = burn_in + length, burn_in, length
        slots = max(-(-capacity // lanes), self.span) + 1
        super().__init__(
            spec, generators, lanes, slots, end_on_life_loss, priorities, frames=frames
        )
        self.batch_size = batch_size
        self.options = (n_step, gamma, reward_scale, reward_clip)
        self.starts: list[int] = []  # rows at which rollouts began, oldest first
        self.memories: list[dict[str, Array]] = []  # of the actor there, each [K, n, ...]
        self._whole = 0  # of them, so many have all their rows
        self._allocate_batch()

    def _allocate_batch(self) -> None:
        seeds, size, rows = len(self.generators), self.batch_size, self.length + 1
        self.draws = np.empty((seeds, size))
        self.sampled = np.zeros((seeds, size), np.int64)  # first row · lanes + lane
        self.importance = np.ones((seeds, size), np.float32)
        flat = (seeds, rows, size)  # time-major
        shape = (seeds, self.span + 1, size, *self.spec.obs_shape)
        if isinstance(self.obs, TensorFrames):
            self.taken = self.obs.blank(shape)
        else:
            self.out_obs = np.zeros(shape, self.spec.obs_dtype)
            self.taken = torch.from_numpy(self.out_obs)
        self.out_first = np.zeros((seeds, self.span + 1, size), np.bool_)
        self.out_action, self.out_end = np.zeros(flat, np.int64), np.zeros(flat, np.int64)
        self.out_reward, self.out_discount, self.out_counts, self.out_weight = (
            np.zeros(flat, np.float32) for _ in range(4)
        )
        self.out_masks = np.zeros(
            (2, *flat, self.spec.num_actions * self.spec.action_mask), np.bool_
        )
        masks = [_rows(mask) if self.spec.action_mask else None for mask in self.out_masks]
        places = torch.arange(rows * size).expand(seeds, -1).contiguous()
        self.batch = Batch(
            obs=places,
            action=_rows(self.out_action),
            reward=_rows(self.out_reward),
            discount=_rows(self.out_discount),
            next_obs=_rows(self.out_end),
            next_action_mask=masks[1],
            weight=_rows(self.out_weight),
            action_mask=masks[0],
        )

    @property
    def ready(self) -> bool:
        """Whether some sequence is whole."""
        return self._whole > 0

    def add(self, rollout: Rollout) -> None:
        """Append the rows of a rollout whose columns are seed-major; a sequence may begin at its first."""
        begins = self.head
        self.write(rollout)
        gone = sum(start < self.tail for start in self.starts)
        self._give(self.starts[: min(gone, self._whole)], fresh=False)
        self._whole = max(0, self._whole - gone)
        del self.starts[:gone], self.memories[:gone]
        if begins >= self.tail:
            self.starts.append(begins)
            self.memories.append(joined_blocks(rollout.actor_state))
        before = self._whole
        self._whole = sum(start + self.span <= self.head for start in self.starts)
        self._give(self.starts[before : self._whole], fresh=True)

    def _give(self, starts: Sequence[int], fresh: bool) -> None:
        """The sequences that begin there have their first priority, or are gone."""
        if self.priorities is None:
            return
        rows = np.asarray(starts, np.int64)[:, None] % self.slots
        self.priorities.admit((rows * self.lanes + np.arange(self.lanes)).ravel(), fresh)

    def sample(self) -> Batch:
        """A batch of sequences, any that is whole as likely as another, or by their priorities.

        The batch's tensors are the same memory at every call.
        """
        self._draw()
        rows, lanes = np.divmod(self.sampled, self.lanes)
        _fill(
            rows, lanes, self.burn_in, self.length, *self.options,
            self.first, self.action, self.reward, self.terminated, self.truncated,
            self.out_action, self.out_end, self.out_reward, self.out_discount, self.out_counts,
        )  # fmt: skip
        slots = (rows[:, None, :] + np.arange(self.span + 1)[:, None]) % self.slots
        seeds = np.arange(len(rows))[:, None, None]
        where = slots, seeds, lanes[:, None, :]
        self._take_obs(where)
        self.out_first[:] = self.first[where]
        if self.spec.action_mask:
            begin = np.broadcast_to(np.arange(self.length + 1)[:, None], self.out_end.shape)
            for mask, at in zip(
                self.out_masks, (begin, self.out_end // self.batch_size), strict=True
            ):
                slots = (rows[:, None, :] + self.burn_in + at) % self.slots
                mask[:] = self.action_mask[slots, seeds, lanes[:, None, :]]
        self.out_weight[:] = self.importance[:, None, :]
        self.batch.extras = {
            **pack(
                self.taken,
                torch.from_numpy(self.out_first),
                self._memory(rows, lanes),
            ),
            "counts": _rows(self.out_counts),
        }
        return self.batch

    def _take_obs(self, where: tuple[Array, Array, Array]) -> None:
        """Copy what is at these slots, seeds and lanes into the batch."""
        if isinstance(self.obs, np.ndarray):
            self.out_obs[:] = self.obs[where]
            return
        slots, seeds, lanes = where
        places = (slots * len(self.generators) + seeds) * self.lanes + lanes
        if isinstance(self.obs, TensorFrames):
            self.obs.take(places, self.taken)
        else:
            assert isinstance(self.obs, SegmentFrames)
            frames, at = self.obs.unpack(places)
            self.out_obs[:] = frames[at]

    def _draw(self) -> None:
        for generator, draws in zip(self.generators, self.draws, strict=True):
            generator.random(out=draws)
        if self.priorities:
            self.sampled[:] = self.draw_by_priority(self.draws, self.importance)
            return
        pick = (self.draws * (self._whole * self.lanes)).astype(np.int64)
        starts = np.asarray(self.starts)
        self.sampled[:] = starts[pick // self.lanes] * self.lanes + pick % self.lanes

    def _memory(self, rows: Array, lanes: Array) -> dict[str, torch.Tensor]:
        """What the actor remembered at the first rows [K, B] of sequences, [K, B, ...] each."""
        if not self.memories[0]:
            return {}
        at = np.searchsorted(self.starts, rows)
        found = {}
        for name in self.memories[0]:
            picked = [
                [self.memories[i][name][k, lane] for i, lane in zip(at[k], lanes[k], strict=True)]
                for k in range(len(rows))
            ]
            found[name] = torch.from_numpy(np.array(picked))
        return found

    def state_dict(self) -> State:
        """Position, generators, priorities and memories, and the observation at `head`; no rows."""
        names = self.memories[0] if self.memories else ()
        memories = {name: np.stack([m[name] for m in self.memories]) for name in names}
        return {**super().state_dict(), "starts": list(self.starts), "memories": memories}

    def load_state_dict(self, state: State) -> None:
        """Go on from a `state_dict`; the rows themselves are loaded by `load_rows`."""
        super().load_state_dict(state)
        self.starts = list(state["starts"])
        self.memories = [
            {name: np.asarray(values[i]) for name, values in state["memories"].items()}
            for i in range(len(self.starts))
        ]
        self._whole = sum(start + self.span <= self.head for start in self.starts)

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        super().keep(seeds)
        kept = list(seeds)
        self.memories = [{name: m[kept] for name, m in one.items()} for one in self.memories]
        self._allocate_batch()


def _rows(column: Array) -> torch.Tensor:
    """[K, L+1, B, ...] on the host as a tensor [K, (L+1) B, ...] on the same memory."""
    return torch.from_numpy(column).flatten(1, 2)


@kernel()
def _fill(  # type: ignore[no-untyped-def]
    rows, lanes, burn_in, length, n_step, gamma, scale, clip,
    first, action, reward, terminated, truncated,
    out_action, out_end, out_reward, out_discount, out_counts,
):  # fmt: skip
    """The windows of the sequences that begin at ``rows`` [K, B]: each ends with its sequence at the latest.

    ``out_end`` is the place of a window's last observation, t B + b. The last observation of a sequence
    starts no window and counts 0, like an ignored row.
    """
    slots = first.shape[0]
    seeds, size = rows.shape
    for k in range(seeds):
        for b in range(size):
            start, lane = rows[k, b] + burn_in, lanes[k, b]
            for t in range(length + 1):
                row, end, total, discount = start + t, start + t, 0.0, 0.0
                if t < length:
                    end, total, discount = window(
                        row, k, lane, start + length, min(n_step, length - t), gamma, scale, clip,
                        first, reward, terminated, truncated,
                    )  # fmt: skip
                counts = end > row
                out_action[k, t, b] = action[row % slots, k, lane] if counts else 0
                out_end[k, t, b] = (end - start) * size + b
                out_reward[k, t, b] = total if counts else 0.0
                out_discount[k, t, b] = discount if counts else 0.0
                out_counts[k, t, b] = 1.0 if counts else 0.0
