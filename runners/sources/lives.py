"""How often workers may be lost: some times, and more often only where much work lies between."""

from __future__ import annotations

from runners.errors import WorkerLost

LIVES = 3  # replacements until ...
REGAIN = 100  # ... rollouts handed over, which win one back


class Lives:
    """The budget of a source."""

    def __init__(self, advice: str) -> None:
        """``advice``: what to look at where it is spent."""
        self.left, self.advice = float(LIVES), advice

    def regain(self) -> None:
        """A rollout was handed over."""
        self.left = min(LIVES, self.left + 1 / REGAIN)

    def lose(self, told: str, replaced: int) -> None:
        """A worker was lost, as ``told``, after so many were replaced.

        Raises:
            WorkerLost: once too often.
        """
        self.left -= 1
        if self.left < 0:
            raise WorkerLost(
                f"{told}; workers were replaced too often, {replaced} times: {self.advice}"
            )
