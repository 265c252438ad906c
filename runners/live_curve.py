"""The learning curve of a run under way, drawn again and again by a process beside it.

matplotlib takes longer to load than a small task takes to learn. Here it loads while the training
runs, which never waits for a picture before its end; and a long run can be looked at any time.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from runners.config import DEFAULT_ENV
from runners.errors import Stopped
from runners.run_folder import RunFolder

REDRAW_SECONDS = 15.0
LIMIT_SECONDS = 60.0  # for the last picture
DRAWN = b"drawn\n"  # the process's last word


class LiveCurve:
    """The process that draws. It ends with its standard input, so with this process at the latest."""

    def __init__(self, path: Path) -> None:
        # A session of its own: Ctrl-C stops the training, and then there is one more curve to draw.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runners.live_curve", str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def finish(self) -> bool:
        """Have the last picture drawn; false if that failed, and then there may be an older one."""
        try:
            told, _ = self.process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        finally:
            self.process.kill()
        return told == DRAWN


@contextlib.contextmanager
def live_curve(path: Path) -> Iterator[LiveCurve]:
    """Draw the curve of the run folder at ``path`` until the block is left; it may not exist yet."""
    curve = LiveCurve(path)
    try:
        yield curve
    except Stopped:
        curve.finish()
        raise
    finally:
        curve.process.kill()


def follow(path: Path) -> None:
    """Draw the run's curve every few seconds, and once more at the end of standard input."""
    from runners import health_picture, lag_picture, learning_curve

    seen = 0
    while True:
        ended = bool(select.select([sys.stdin], [], [], REDRAW_SECONDS)[0])
        size = sum(file.stat().st_size for file in path.glob("seed-*/evals.jsonl"))
        if size and (ended or size != seen):
            learning_curve.draw_curve(RunFolder(path))
            health_picture.draw_health(RunFolder(path))
            lag_picture.draw_lag(RunFolder(path))
        seen = size
        if ended:
            return


def warm_up() -> None:
    """Load all that a picture takes, while there is nothing to draw yet."""
    from runners import learning_curve, pictures, stats
    from runners.resolve import threshold

    threshold(DEFAULT_ENV)
    stats.t_interval([0.0, 1.0])
    pictures.render(learning_curve.curve_figure({}, ""))


if __name__ == "__main__":
    warm_up()
    follow(Path(sys.argv[1]))
    os.write(sys.stdout.fileno(), DRAWN)
    os._exit(0)  # at once: whoever waits for the picture need not wait for matplotlib's end
