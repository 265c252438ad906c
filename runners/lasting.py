"""Streams that a run outlives."""

from __future__ import annotations

import contextlib
from typing import Any, TextIO, cast


class _Lasting:
    """What its terminal does not take any more is lost, and no fault."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def lasting(stream: TextIO) -> TextIO:
    """The stream, without errors when the terminal that watched is gone."""
    return cast("TextIO", _Lasting(stream))
