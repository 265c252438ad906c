"""Where rollouts come from: one interface for a loop in this process, a fused kernel, or workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from agents.contract import Params, Rollout, State
from runners.timing import Times


class Plan(NamedTuple):
    """What the clock asks of the next rollout."""

    rows: int  # at most the rollout length; fewer where something is due earlier
    checkpoint: int | None  # the number of the scheduled checkpoint that follows, if one does
    following: Plan | None = None  # what comes after it; None where the source is to be at rest


def due(plan: Plan, ahead: int, begun: int) -> Iterator[Plan]:
    """What may be begun now: the next rollout and ``ahead`` more, without the first ``begun`` of them."""
    chain: Plan | None = plan
    for position in range(ahead + 1):
        if chain is None:
            return
        if position >= begun:
            yield chain
        chain = chain.following


class Simulating(Protocol):
    """What simulates, for whoever keeps the records."""

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""

    @property
    def pending(self) -> int:
        """Rollouts that are under way or done and have not been asked for; 0: at rest.

        A state is taken and seeds leave at rest only.
        """

    @property
    def resumable(self) -> bool:
        """Whether every simulator gives its state, so that any moment can be a checkpoint."""


class Source(Simulating, Protocol):
    """Gives rollouts of all lanes of a group of seeds."""

    def next(self, plan: Plan) -> Rollout:
        """The next ``plan.rows`` rows. The arrays live until the next call."""

    def publish(self, params: Params) -> None:
        """Act with these, at once or ``lag`` rollouts later. The same version again does nothing."""

    def state_dict(self) -> State:
        """All that decides the rollouts to come."""

    def load_state_dict(self, state: State) -> None:
        """Go on from a `state_dict`."""

    @property
    def replaced(self) -> int:
        """Workers that died or hung so far, and whose lanes began anew."""

    @property
    def times(self) -> Times:
        """Where this process's time goes, and that of workers."""

    def close(self) -> None:
        """Let go of the simulators."""
