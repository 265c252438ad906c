"""What pictures have in common: colours, resolution, and how they get into a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from runners import files
from runners.errors import disk

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEAN, LINE, GOAL, OPTIMUM, INK = "#1f5fa8", "#8fb4dd", "#c2571a", "#2e7d4f", "#444444"
DPI = 110


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG in one step, so that no half of one is ever seen."""
    picture = render(figure)
    with disk(path):
        files.replace(path, picture, "picture")


def render(figure: Figure) -> bytes:
    """The figure as a PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
