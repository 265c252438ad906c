"""What a few lanes of an evaluation went through, kept for a closer look at the agent's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from agents.contract import Array

LANES = 4  # of a seed's evaluation that are kept
MOMENTS = 64  # of it whose states are kept, evenly spaced


class Episode(NamedTuple):
    """What one lane went through: T steps, and the states at n of them."""

    times: Array  # [n] int64
    seen: Array  # [n, ...] what the network looked at
    legal: Array | None  # [n, A] bool; None where all actions are
    reward: Array  # [T] raw
    ended: Array  # [T] bool: nothing is to be expected behind the step


class Recorder:
    """Keeps the first episodes of a seed's first L lanes: all rewards, and the states now and then.

    Each seed has one of its own, so that what is kept of it depends on no other.
    """

    def __init__(self, end_on_life_loss: bool = False) -> None:
        self.end_on_life_loss = end_on_life_loss
        self.stride = 1  # steps between states that are kept
        self.times: list[int] = []
        self.seen: list[Array] = []  # [L, ...] each
        self.legal: list[Array] = []  # [L, A] each
        self.reward: list[Array] = []  # [L] each
        self.ended: list[Array] = []  # [L] each
        self.length: Array | int = 0  # [L] steps of each lane's episode
        self.playing = True

    def before(
        self, extras: Mapping[str, Array], facts: Mapping[str, Array], k: int, playing: Array
    ) -> None:
        """Take in a moment at which the lanes are to act.

        Args:
            extras: of the actor, [K, n, ...]; without ``seen`` there are rewards only.
            facts: of the observation, [K, n, ...].
            k: where this seed is among them.
            playing: [n] bool, lanes whose first episode goes on.
        """
        playing = playing[:LANES]
        self.playing = bool(playing.any())
        if not self.playing:
            return
        step = len(self.reward)
        self.length = self.length + playing
        if len(self.times) == MOMENTS and step % self.stride == 0:
            self.stride *= 2  # from now on half as many, as if it had been so before
            for kept in (self.times, self.seen, self.legal):
                del kept[1::2]
        if step % self.stride or "seen" not in extras:
            return
        self.times.append(step)
        self.seen.append(extras["seen"][k, :LANES].copy())
        if "action_mask" in facts:
            self.legal.append(facts["action_mask"][k, :LANES] != 0)

    def after(self, reward: Array, terminated: Array, infos: Mapping[str, Any]) -> None:
        """Take in what that step gave the lanes [n]."""
        if not self.playing:
            return
        self.reward.append(reward[:LANES].copy())
        ended = terminated[:LANES].copy()
        self.ended.append(ended | infos["life_loss"][:LANES] if self.end_on_life_loss else ended)

    def episodes(self) -> list[Episode]:
        """Those of all lanes, as far as they were played; none where no state was kept."""
        if not self.times:
            return []
        times, seen = np.array(self.times), np.stack(self.seen)
        reward, ended = np.stack(self.reward), np.stack(self.ended)
        legal = np.stack(self.legal) if self.legal else None
        found = []
        for lane, steps in enumerate(np.asarray(self.length).tolist()):
            n = int(np.searchsorted(times, steps))
            mask = None if legal is None else legal[:n, lane]
            found.append(
                Episode(times[:n], seen[:n, lane], mask, reward[:steps, lane], ended[:steps, lane])
            )
        return found
