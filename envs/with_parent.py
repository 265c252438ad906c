"""A process that ends with the one that started it, however that ends.

As a script, ``with_parent.py PID COMMAND...`` becomes COMMAND, for programs that do not see to it
themselves. That takes 15 ms, and unlike a ``preexec_fn`` it is safe beside threads. It imports
nothing of this package, and runs without a site.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys


def end_with_parent(parent: int) -> None:
    """Be killed when the process ``parent`` dies, even while hanging or stopped (Linux).

    The kernel watches the thread that started this process: it has to stay as long as its children.
    Elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died just before
        os._exit(1)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"error: {sys.argv[2]} cannot be started: {error.strerror}")
