"""A process a lane, by Gymnasium's AsyncVectorEnv: no wait without a limit, no fault without a name."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import gymnasium
from gymnasium.vector import AsyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState

from envs.contract import Array, LaneError

Answer = TypeVar("Answer")

STEP_LIMIT = 300.0
"""Seconds in which every lane has to be made, or to answer a reset or a step."""

CLOSE_LIMIT = 5.0
"""Seconds that the processes have to end by themselves."""


class RemoteTraceback(Exception):
    """The cause of a fault in another process, as that process wrote it down."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"in the lane's own process:\n{self.text}"


class LaneProcesses(AsyncVectorEnv):
    """Lanes in processes of their own; what one of them does wrong is a `LaneError`.

    Its cause has the traceback of the lane's process. After a fault nothing but `close` is of use.
    """

    def __init__(self, makers: Sequence[Callable[[], gymnasium.Env[Any, Any]]]) -> None:
        """One function a lane that makes its environment; it has to be picklable.

        Raises:
            LaneError: a process died while it made its environment, or took too long.
            Exception: what the making of an environment raised.
        """
        self._failed = False
        # spawn: a fork after torch has started its threads can hang
        super().__init__(makers, context="spawn")

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's.

        Raises:
            LaneError: a lane raised, died or does not answer.
        """
        return self._watched(lambda: super(LaneProcesses, self).reset(seed=seed, options=options))

    def step(self, actions: Array) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """As Gymnasium's.

        Raises:
            LaneError: a lane raised, died or does not answer.
        """
        return self._watched(lambda: super(LaneProcesses, self).step(actions))

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """End the processes: by themselves within the limit, else by force."""
        waiting = self._state != AsyncState.DEFAULT or self._failed or terminate
        pipes = [pipe for pipe in self.parent_pipes if pipe is not None and not pipe.closed]
        if not waiting:
            for pipe in pipes:
                _send_close(pipe)
        until = time.monotonic() + (0 if waiting else timeout or CLOSE_LIMIT)
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join(CLOSE_LIMIT)
        for pipe in pipes:
            pipe.close()
        self.error_queue.close()
        del self.error_queue  # its semaphores go with it, which nobody else may free

    def _watched(self, call: Callable[[], Answer]) -> Answer:
        """What ``call`` gives; a lane that does not answer is named."""
        if self._failed:
            raise RuntimeError("a lane has failed: close this environment and make another")
        try:
            return call()
        except multiprocessing.TimeoutError:
            self._failed = True
            lane = next(i for i, pipe in enumerate(self.parent_pipes) if not _answers(pipe))
            raise LaneError(f"no answer within {STEP_LIMIT:g} s", lane) from None
        except (EOFError, ConnectionError):
            self._failed = True
            raise self._death() from None
        except BaseException:  # Ctrl-C too: answers that were not fetched would be the next step's
            self._failed = True
            raise

    def _death(self) -> LaneError:
        """Which process has died, and of what."""
        until = (
            time.monotonic() + CLOSE_LIMIT
        )  # a pipe is closed some time before its process is gone
        while time.monotonic() < until:
            for lane, process in enumerate(self.processes):
                if process.exitcode is not None:
                    how = f"exit status {process.exitcode}"
                    if process.exitcode < 0:
                        how = f"killed by signal {-process.exitcode}"
                    return LaneError(f"its process died ({how})", lane)
            time.sleep(0.01)
        return LaneError("its process closed the pipe")

    def _check_spaces(self) -> None:
        """Gymnasium's first question to the processes, each of which makes its environment first."""
        asked = (self.observation_mode, self.single_observation_space, self.single_action_space)
        try:
            answers = self._watched(lambda: self._ask(("_check_spaces", asked)))
            for lane, same in enumerate(answers):
                if not all(same):
                    raise LaneError("its spaces are not those of lane 0", lane)
        except BaseException:
            self.close(terminate=True)
            raise

    def _ask(self, question: tuple[str, Any]) -> list[Any]:
        for pipe in self.parent_pipes:
            pipe.send(question)
        if not self._poll_pipe_envs():
            raise multiprocessing.TimeoutError
        answers, successes = zip(*[pipe.recv() for pipe in self.parent_pipes], strict=True)
        self._raise_if_errors(successes)
        return list(answers)

    def _poll_pipe_envs(self, timeout: float | None = None) -> bool:
        return super()._poll_pipe_envs(STEP_LIMIT if timeout is None else timeout)

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """Raise what the first of the lanes that failed has raised."""
        if all(successes):
            return
        try:
            lane, kind, value, text = self.error_queue.get(timeout=CLOSE_LIMIT)
        except queue.Empty:
            raise self._death() from None
        what = f"{kind.__name__}: {value}"
        error = LaneError(value if issubclass(kind, LaneError) else what, lane)
        raise error from RemoteTraceback(text)


def _answers(pipe: Any) -> bool:
    return pipe is None or pipe.closed or pipe.poll(0)


def _send_close(pipe: Any) -> None:
    try:
        pipe.send(("close", None))
    except (BrokenPipeError, OSError):
        return  # the process is gone already
