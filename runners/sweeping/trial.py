"""The process of a trial: train seeds of a run folder up to a rung, and leave.

``python -m runners.sweeping.trial RUN FIRST LAST UNTIL`` trains the seeds FIRST to LAST of the
configuration in RUN as ``train`` does, but draws nothing. Where UNTIL is less than the configuration's
steps it stops behind the evaluation at that lane step, as a signal would stop it: what it leaves goes
on from there. A run with fewer steps would be another one, for schedules go by its steps.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from runners.config import RunConfig, from_json
from runners.console import SilentConsole, Status
from runners.errors import Stopped, command, leave
from runners.run_folder import RunFolder


class Rung(SilentConsole):
    """Asks a run to stop at a lane step; a console, for it is told where the run is, and then asked."""

    def __init__(self, until: int, stop_asked: Callable[[], int]) -> None:
        self.until, self.stop_asked = until, stop_asked
        self.reached = False

    def update(self, status: Status) -> None:
        """Note whether the run is there."""
        self.reached = status.lane_steps >= self.until

    def __call__(self) -> int:
        """The signal that asks the run to stop; at the rung one that nobody sends."""
        return self.stop_asked() or signal.SIGUSR1 * self.reached


def train_until(
    folder: RunFolder, seeds: range, until: int, stop_asked: Callable[[], int] = lambda: 0
) -> None:
    """Train the seeds of a run folder to lane step ``until``, an evaluation or the end.

    Raises:
        BadInput, NoCheckpoint, DiskFault, RunFailed, Stopped, SimulatorError: as `runners.train.run`.
    """
    from runners.train import run

    config, out = from_json(folder.config()), str(folder.path.parent)
    if until >= config.steps:
        run(config, seeds, out, stop_asked=stop_asked)
        return
    for group in _groups(config, seeds):
        if scores_at(folder, group, until) is not None:
            continue  # a group that goes on from there would do one rollout more
        rung = Rung(until, stop_asked)
        try:
            run(config, group, out, console=rung, stop_asked=rung)
        except Stopped as stop:
            if stop.signum != signal.SIGUSR1:
                raise


def _groups(config: RunConfig, seeds: range) -> list[range]:
    """The seeds that train together, as a run divides them."""
    from runners.group import make_setting

    size = make_setting(config).group_size
    return [seeds[i : i + size] for i in range(0, len(seeds), size)]


def scores_at(folder: RunFolder, seeds: Sequence[int], until: int) -> list[float] | None:
    """What seeds have come to: means of the evaluation at a rung, or of the end's; None before that.

    At the end it is the mean of ``final_episodes`` greedy episodes of the last weights, as the
    ``final_return`` of any run; before, that of the ``eval_episodes`` of the evaluation there.
    """
    from runners.series import scores

    steps = folder.config()["steps"]
    if until >= steps:
        done = all((folder.seed_path(seed) / "result.json").is_file() for seed in seeds)
        return scores(folder, seeds, "final_return") if done else None
    found = []
    for seed in seeds:
        if not folder.seed_path(seed).is_dir():
            return None
        records = folder.seed(seed).read_evals().records
        means = [record["mean"] for record in records if record["lane_steps"] >= until]
        if not means:
            return None
        found.append(float(means[0]))
    return found


@command
def main(argv: Sequence[str]) -> int:
    """Train what the sweep asks for."""
    run, first, last, until = argv
    from runners.train import SignalFlag, importing

    with importing():
        import runners.run_group  # noqa: F401 - and torch with it

    seeds = range(int(first), int(last) + 1)
    train_until(RunFolder(Path(run)), seeds, int(until), SignalFlag())
    return 0


if __name__ == "__main__":
    leave(main())
