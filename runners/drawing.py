"""Pictures of what an agent does: videos of frames, and a table of values drawn on its map."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runners.console import number
from runners.errors import BadInput, DiskFault, disk
from runners.pictures import DPI, INK, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from envs.contract import Array, FiniteMDP
    from envs.mdps import Layout

# -- Videos --------------------------------------------------------------------------------------


def write_video(frames: Iterable[Array], path: str | Path, fps: float) -> None:
    """Write frames as a video that any browser plays; the file appears when it is whole.

    Args:
        frames: [H, W, 3] uint8 each, all of one size; they are taken one by one.
        path: ends in .mp4 (H.264; odd sizes are padded by a row or a column) or .gif.
        fps: frames a second; a GIF shows at most 50.

    Raises:
        BadInput: another ending.
        ValueError: no frames, or one that is no picture or has another size.
    """
    path = Path(path)
    writers: dict[str, Callable[[Iterator[Array], Path, float], None]]
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    if path.suffix not in writers:
        raise BadInput(f"{path}: videos end in .mp4 or .gif")
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with disk(path):
            writers[path.suffix](_checked(frames), temporary, fps)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _checked(frames: Iterable[Array]) -> Iterator[Array]:
    """The frames, at least one, all of the first one's size."""
    shape: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(
                f"frame {index}: got {frame.dtype}{frame.shape}, takes uint8 [H, W, 3]"
            )
        if frame.shape != shape:
            raise ValueError(f"frame {index}: got size {frame.shape[:2]} after {shape[:2]}")
        yield frame
    if shape is None:
        raise ValueError("there are no frames to write")


def _write_mp4(frames: Iterator[Array], path: Path, fps: float) -> None:
    from imageio_ffmpeg import count_frames_and_secs, write_frames

    first = _even(next(frames))
    height, width = first.shape[:2]
    writer = write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",  # half as many colours as pixels each way, hence the even sizes
        macro_block_size=1,  # any other would scale the picture
        output_params=["-crf", "18", "-movflags", "+faststart"],  # plays while it still loads
        ffmpeg_log_level="error",
    )
    writer.send(None)
    sent = 0
    try:
        for frame in itertools.chain([first], map(_even, frames)):
            writer.send(np.ascontiguousarray(frame))
            sent += 1
    except OSError as error:  # ffmpeg has gone away
        raise _incomplete(path) from error
    finally:
        writer.close()
    try:  # whether ffmpeg could write it all is told by nothing but the file
        found, _ = count_frames_and_secs(str(path))
    except (OSError, RuntimeError) as error:
        raise _incomplete(path) from error
    if found != sent:
        raise _incomplete(path)


def _incomplete(path: Path) -> DiskFault:
    place = path.parent
    return DiskFault(f"{place}: the video could not be written whole; free some space there")


def _even(frame: Array) -> Array:
    """The frame with its last row and column repeated where their number is odd."""
    height, width = frame.shape[:2]
    if not (height % 2 or width % 2):
        return frame
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _write_gif(frames: Iterator[Array], path: Path, fps: float) -> None:
    from PIL import Image

    first = Image.fromarray(next(frames))
    milliseconds = max(20, 10 * round(100 / fps))  # GIF counts hundredths; browsers slow down 1
    first.save(
        path,
        format="GIF",
        save_all=True,
        append_images=(Image.fromarray(frame) for frame in frames),
        duration=milliseconds,
        loop=0,
    )


# -- Values on a map -----------------------------------------------------------------------------

LEFT, RIGHT, UP, DOWN = (-1, 0), (1, 0), (0, -1), (0, 1)
DOWN_LEFT, DOWN_RIGHT = (-1, 1), (1, 1)
MOVES = {
    "FrozenLake": (LEFT, DOWN, RIGHT, UP),
    "FrozenLake8x8": (LEFT, DOWN, RIGHT, UP),
    "CliffWalking": (UP, RIGHT, DOWN, LEFT),
    "CliffWalkingSlippery": (UP, RIGHT, DOWN, LEFT),
    "RiverSwim": (LEFT, RIGHT),
}
"""Where each action is meant to lead, (right, down), by the environment's name."""

NAMES = {"S": "start", "G": "goal", "H": "hole", "C": "cliff"}
BARE, PALE = "#e9e9e9", 0.35
MOST_NUMBERS = 16  # columns, beyond which numbers in the cells could not be read


def moves(env: str, mdp: FiniteMDP) -> Array | None:
    """[S, A, 2]: where each action is meant to lead, (right, down); None where nobody knows."""
    name = env.partition("-")[0]
    if name == "DeepSea":
        # Which action is right differs from cell to cell; it is the one that costs something.
        right = mdp.R[:, :, 0] != 0
        return np.where(right[..., None], DOWN_RIGHT, DOWN_LEFT)
    if name not in MOVES:
        return None
    return np.tile(np.array(MOVES[name]), (mdp.num_states, 1, 1))


def draw_grid(
    path: str | Path,
    layout: Layout,
    q: Array,
    acts: Array,
    directions: Array | None,
    title: str,
) -> None:
    """Draw the values of a table and its greedy policy on the map of its states, as a PNG.

    A cell shows max_a Q(s, a) as its colour and an arrow for the first action that has it, a pale
    one where all actions are worth the same. Cells in which no action is ever taken are bare.

    Args:
        path: the file; it is replaced in one step.
        layout: where the states lie.
        q: [S, A] action values.
        acts: [S] bool, states in which an episode can take an action.
        directions: [S, A, 2] of `moves`; without them the action's number stands for the arrow.
        title: what the picture shows.
    """
    # Figure and not pyplot: no global state, no window, and less to import.
    from matplotlib.figure import Figure

    # In inches: a cell and what stands around the map, the bar's numbers on its right.
    cell = min(0.95, 14 / max(layout.rows, layout.cols))
    across, down = cell * layout.cols, cell * layout.rows
    width, height = max(across + 1.1, 4.8), down + 0.5
    figure = Figure(figsize=(width, height), dpi=DPI)
    axes = figure.add_axes((0.1 / width, 0.1 / height, across / width, down / height))
    values = _on_map(layout, q.max(axis=1), acts)
    image = axes.imshow(values, cmap=_colors(), aspect="equal")
    _mark_cells(axes, layout)
    for state in np.flatnonzero(acts & (layout.cell >= 0)):
        row, col = divmod(int(layout.cell[state]), layout.cols)
        ink = _ink(image.to_rgba(values[row, col]))
        if layout.cols <= MOST_NUMBERS:
            text = number(float(values[row, col]))
            axes.text(col, row + 0.36, text, ha="center", va="center", fontsize=8, color=ink)
        _draw_action(
            axes, (col, row), q[state], None if directions is None else directions[state], ink
        )
    bar = figure.colorbar(image, cax=axes.inset_axes((1 + 0.1 / across, 0, 0.16 / across, 1)))
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK, labelsize=8, length=2)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    save_figure(figure, Path(path))


def _on_map(layout: Layout, values: Array, acts: Array) -> Array:
    """[rows, cols], NaN where no action is taken."""
    grid: Array = np.full(layout.rows * layout.cols, np.nan)
    shown = acts & (layout.cell >= 0)
    grid[layout.cell[shown]] = values[shown]
    return grid.reshape(layout.rows, layout.cols)


def _colors() -> Any:
    from matplotlib import colormaps

    return colormaps["YlGnBu"].with_extremes(bad=BARE)


def _ink(rgba: Array) -> str:
    """What can be read on a colour."""
    red, green, blue = rgba[:3]
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else "#222222"


def _mark_cells(axes: Axes, layout: Layout) -> None:
    """Lines between the cells, and what the map says of them."""
    axes.set_xticks(np.arange(1, layout.cols) - 0.5)
    axes.set_yticks(np.arange(1, layout.rows) - 0.5)
    axes.grid(color="white", linewidth=1.5)
    axes.tick_params(bottom=False, left=False, labelbottom=False, labelleft=False)
    for side in axes.spines.values():
        side.set_visible(False)
    names = layout.cols <= MOST_NUMBERS
    for cell, label in enumerate(layout.labels):
        if label in NAMES:
            row, col = divmod(cell, layout.cols)
            place = (col - 0.46, row - 0.46)
            text = NAMES[label] if names else label
            axes.text(*place, text, ha="left", va="top", fontsize=7.5, color=INK, style="italic")


def _draw_action(
    axes: Axes, at: tuple[int, int], q: Array, directions: Array | None, ink: str
) -> None:
    """The greedy action of a state, pale where all are worth the same."""
    action = int(q.argmax())
    alpha = PALE if np.ptp(q) == 0 else 1.0
    if directions is None:
        axes.text(*at, str(action), ha="center", va="center", fontsize=11, color=ink, alpha=alpha)
        return
    dx, dy = 0.2 * directions[action] / np.linalg.norm(directions[action])
    col, row = at
    axes.annotate(
        "",
        xy=(col + dx, row + dy),
        xytext=(col - dx, row - dy),
        arrowprops={
            "arrowstyle": "-|>",
            "color": ink,
            "alpha": alpha,
            "linewidth": 1.6,
            "mutation_scale": 12,
        },
    )
