"""What pictures have in common: colours, styles of agents, resolution, and how they get into a file."""

from __future__ import annotations

import io
import textwrap
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runners import files
from runners.errors import disk

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEAN, LINE, GOAL, OPTIMUM, INK = "#1f5fa8", "#8fb4dd", "#c2571a", "#2e7d4f", "#444444"
DPI = 110


def plain_text() -> AbstractContextManager[None]:
    """Meanwhile a name with dollars in it is a name, no formula."""
    from matplotlib import rc_context

    return rc_context({"text.parse_math": False})


class Style(NamedTuple):
    """How an agent is drawn, wherever it is: told apart without colours too."""

    color: str
    dash: Any  # of its line
    marker: str


COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which colour-blind people tell apart; without yellow, which white paper swallows.

Source: Okabe & Ito 2008, "Color universal design".
"""
DASHES = ("-", (0, (5, 1.6)), (0, (5, 1.4, 1.2, 1.4)), (0, (1.3, 1.2)))
MARKERS = "os^DvPX<*"


def style_of(index: int) -> Style:
    """The style of an agent by its place in the field; no two of the first 252 are the same."""
    return Style(
        COLORS[index % len(COLORS)], DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)]
    )


def wrapped(name: str, width: int = 26) -> str:
    """A name in lines of so many letters; a word that is longer is cut."""
    return "\n".join(textwrap.wrap(" ".join(name.split()), width)) or name


def bare(axes: Axes, grid: str = "both") -> None:
    """A quiet frame: the lines of its grid behind what is drawn, none above and at the right."""
    axes.tick_params(colors=INK, length=3, labelsize=8.5)
    axes.grid(axis=grid, color="#e6e6e6", linewidth=0.7)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color("#999999")


def settle(figure: Figure) -> None:
    """Work out where everything goes, once: a figure with an engine of its own does so for every file."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if any(axes.get_subplotspec() for axes in figure.axes):  # else it was placed by hand
        ConstrainedLayoutEngine(w_pad=0.09).execute(figure)  # inches


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
