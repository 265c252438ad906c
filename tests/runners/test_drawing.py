import os

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from envs import mdps
from runners import drawing
from runners.errors import BadInput, DiskFault
from runners.pictures import DPI


def frames(count, height=20, width=30):
    """Each of one grey, so that a decoder can tell them apart."""
    for i in range(count):
        yield np.full((height, width, 3), 20 + 30 * i, np.uint8)


def decode(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    about = next(reader)
    width, height = about["size"]
    return about, [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader]


def test_an_mp4_holds_the_frames(tmp_path):
    path = tmp_path / "x.mp4"
    drawing.write_video(frames(5), path, fps=10)
    about, pictures = decode(path)
    assert about["codec"] == "h264"
    assert about["pix_fmt"].startswith("yuv420p")
    assert about["fps"] == 10
    assert [round(float(picture.mean())) for picture in pictures] == pytest.approx(
        [20, 50, 80, 110, 140], abs=3
    )
    assert os.listdir(tmp_path) == ["x.mp4"]


def test_an_mp4_can_be_played_while_it_loads(tmp_path):
    path = tmp_path / "x.mp4"
    drawing.write_video(frames(3), path, fps=30)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("found", [4, None])
def test_an_mp4_that_is_not_whole_is_no_success(tmp_path, monkeypatch, found):
    """On a full disk ffmpeg complains and ends; only the file tells that frames are missing."""

    def count(path):
        if found is None:
            raise RuntimeError("moov atom not found")
        return found, 0.5

    monkeypatch.setattr(imageio_ffmpeg, "count_frames_and_secs", count)
    with pytest.raises(DiskFault, match="could not be written whole"):
        drawing.write_video(frames(5), tmp_path / "x.mp4", fps=10)
    assert os.listdir(tmp_path) == []


def test_odd_sizes_are_padded_not_scaled(tmp_path):
    path = tmp_path / "x.mp4"
    picture = np.zeros((21, 33, 3), np.uint8)
    picture[:, -1] = 255  # a bright last column is what padding repeats
    drawing.write_video([picture] * 2, path, fps=5)
    about, pictures = decode(path)
    assert about["size"] == (34, 22)
    assert pictures[0][:, -2:].mean() > 200
    assert pictures[0][:, :30].mean() < 20


def test_a_gif_holds_the_frames(tmp_path):
    path = tmp_path / "x.gif"
    drawing.write_video(frames(4, 21, 33), path, fps=10)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"]) == (4, (33, 21), 100)
        assert gif.info["loop"] == 0
        means = []
        for k in range(4):
            gif.seek(k)
            means.append(np.asarray(gif.convert("RGB")).mean())
    assert means == pytest.approx([20, 50, 80, 110], abs=2)


def test_frames_are_taken_one_by_one(tmp_path):
    """A long video is never in memory as a whole."""
    alive, most = set(), 0

    class Frame(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    def make():
        nonlocal most
        for _ in range(60):
            frame = np.zeros((16, 16, 3), np.uint8).view(Frame)
            alive.add(id(frame))
            most = max(most, len(alive))
            yield frame

    drawing.write_video(make(), tmp_path / "x.mp4", fps=30)
    assert most < 10


@pytest.mark.parametrize("name", ["x.mp4", "x.gif"])
@pytest.mark.parametrize(
    ("pictures", "what"),
    [
        ([], "no frames"),
        ([np.zeros((4, 4), np.uint8)], "frame 0"),
        ([np.zeros((4, 4, 3), np.float32)], "frame 0"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)], "frame 1"),
    ],
)
def test_what_is_no_video_leaves_nothing_behind(name, pictures, what, tmp_path):
    (tmp_path / name).write_bytes(b"an older one")
    with pytest.raises(ValueError, match=what):
        drawing.write_video(pictures, tmp_path / name, fps=10)
    assert (tmp_path / name).read_bytes() == b"an older one"
    assert os.listdir(tmp_path) == [name]


def test_a_simulator_that_fails_leaves_nothing_behind(tmp_path):
    def failing():
        yield from frames(3)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        drawing.write_video(failing(), tmp_path / "x.mp4", fps=10)
    assert os.listdir(tmp_path) == []


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"\.mp4 or \.gif"):
        drawing.write_video(frames(1), tmp_path / "x.webm", fps=10)


# -- Maps ----------------------------------------------------------------------------------------


@pytest.fixture
def figure_of(monkeypatch, tmp_path):
    """Draws, and returns the axes of the map in place of the file."""

    def draw(env, q, acts=None, **options):
        mdp, layout = mdps.build(env, options)
        q = np.broadcast_to(q, (mdp.num_states, mdp.num_actions))
        acts = np.ones(mdp.num_states, bool) if acts is None else acts
        kept = []
        with monkeypatch.context() as patch:
            patch.setattr(drawing, "save_figure", lambda figure, path: kept.append(figure))
            drawing.draw_grid(tmp_path, layout, q, acts, drawing.moves(env, mdp), "title")
        return kept[0].axes[0]

    return draw


def arrows(axes):
    """(column, row) of each arrow's middle, to where it points."""
    found = {}
    for note in axes.texts:
        if getattr(note, "arrow_patch", None) is not None:
            (x1, y1), (x0, y0) = note.xy, note.xyann
            middle = round((x0 + x1) / 2), round((y0 + y1) / 2)
            found[middle] = (int(np.sign(round(x1 - x0, 6))), int(np.sign(round(y1 - y0, 6))))
    return found


def texts(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


@pytest.mark.parametrize(
    ("env", "moves"),
    [("FrozenLake-v1", ["left", "down", "right", "up"]),
     ("CliffWalking-v1", ["up", "right", "down", "left"])],
)  # fmt: skip
def test_arrows_point_where_gymnasium_goes(env, moves, figure_of):
    """Every action by itself, against the successors in the environment's own table."""
    options = {"is_slippery": False} if env.startswith("Frozen") else {}
    way = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    mdp, layout = mdps.build(env, options)
    middle = layout.cols + 1  # row 1, column 1: nothing is in its way but a hole
    state = middle if env.startswith("Cliff") else 2 * layout.cols + 1
    col, row = state % layout.cols, state // layout.cols
    for action, move in enumerate(moves):
        shown = arrows(figure_of(env, np.eye(mdp.num_actions)[action], **options))
        assert set(shown.values()) == {way[move]}
        to = int(mdp.successor[state, action, 0])
        assert (to % layout.cols - col, to // layout.cols - row) == way[move]


def test_cells_without_an_action_are_bare(figure_of):
    acts = np.ones(16, bool)
    acts[[5, 7, 11, 12, 15]] = False  # the holes and the goal of the 4x4 map
    axes = figure_of("FrozenLake-v1", [0.25, 0.5, 0, 0], acts)
    assert len(arrows(axes)) == 11
    assert texts(axes).count("0.5") == 11
    assert texts(axes).count("hole") == 4
    assert texts(axes).count("start") == texts(axes).count("goal") == 1
    assert int(np.isnan(axes.images[0].get_array().filled(np.nan)).sum()) == 5


def test_a_state_without_a_place_is_not_drawn(figure_of):
    axes = figure_of("DeepSea-v0", [0.0, 1.0], size=4)  # 16 cells and the sea floor
    assert len(arrows(axes)) == 16
    assert {way[1] for way in arrows(axes).values()} == {1}  # every dive goes down


def test_no_map_of_moves_shows_the_action(tmp_path):
    mdp, layout = mdps.build("FrozenLake-v1", {})
    assert drawing.moves("Taxi-v3", mdp) is None
    path = tmp_path / "x.png"
    q = np.zeros((16, 4))
    drawing.draw_grid(path, layout, q, np.ones(16, bool), None, "nobody knows")
    with Image.open(path) as picture:
        assert picture.width >= 4 * DPI


def test_a_map_with_nothing_on_it(tmp_path):
    """An agent may have reached no state at all, or hold no number that can be drawn."""
    mdp, layout = mdps.build("FrozenLake-v1", {})
    path, q = tmp_path / "x.png", np.zeros((16, 4))
    drawing.draw_grid(path, layout, q, np.zeros(16, bool), drawing.moves("FrozenLake-v1", mdp), "x")
    assert path.stat().st_size > 0
