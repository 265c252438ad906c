from pathlib import Path

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from envs import native
from runners import seeding, train, watch
from runners.errors import BadInput
from runners.evaluation import Purpose
from runners.policy import load_policy, open_setting
from runners.resolve import make_config


def decode(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader]


def first_episode(run):
    """The length, the return and the first picture of the first episode, played by hand."""
    env = native.scalar(run.config()["env"], {"render_mode": "rgb_array"})
    path = (Purpose.COMMAND, watch.EPISODES, 0)
    obs, _ = env.reset(seed=seeding.integer(0, seeding.Stream.EVALUATION, *path))
    picture = np.array(env.render())
    policy, total, length, done = load_policy(run), 0.0, 0, False
    while not done:
        obs, reward, terminated, truncated, _ = env.step(policy(np.asarray(obs)[None])[0])
        total, length, done = total + float(reward), length + 1, terminated or truncated
    env.close()
    return length, total, picture


@pytest.mark.parametrize("name", ["lake", "cartpole"])
def test_the_video_shows_an_episode_from_its_reset_to_its_end(name, request, tmp_path):
    run = request.getfixturevalue(name)
    length, total, picture = first_episode(run)
    watched = watch.watch(run, episodes=1, out=tmp_path, fps=10)
    assert watched.returns == [total]
    shown = decode(tmp_path / "watch-seed0.mp4")
    assert len(shown) == length + 1 + 5  # the end stays for half a second
    assert shown[0].shape == picture.shape
    assert np.abs(shown[0].astype(int) - picture).mean() < 4  # H.264 is lossy
    if length > 2:
        assert (shown[0] != shown[length]).any()


def test_in_the_run_folder(lake, capsys):
    assert watch.main([str(lake.path), "--seed", "1", "--episodes", "2"]) == 0
    returns, *paths = capsys.readouterr().out.splitlines()
    assert returns.startswith("returns: ")
    assert len(returns.split(",")) == 2
    assert paths == [str(lake.path / name) for name in ("values-seed1.png", "watch-seed1.mp4")]
    with Image.open(paths[0]) as picture:
        colors = picture.convert("RGB").getcolors(1 << 20)
    assert len(colors) > 100  # not blank
    assert max(count for count, _ in colors) < 0.6 * sum(count for count, _ in colors)


def test_a_gif(cartpole, tmp_path, capsys):
    argv = [
        str(cartpole.path),
        "--format",
        "gif",
        "--episodes",
        "1",
        "--out",
        str(tmp_path / "new"),
    ]
    assert watch.main(argv) == 0
    path = capsys.readouterr().out.splitlines()[-1]
    with Image.open(path) as gif:
        assert gif.size == (600, 400)
        assert gif.n_frames > 5


def test_a_name_of_its_own(cartpole, tmp_path, capsys):
    path = tmp_path / "new" / "pole.gif"
    assert watch.main([str(cartpole.path), "--episodes", "1", "--out", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    assert [file.name for file in path.parent.iterdir()] == ["pole.gif"]


@pytest.mark.parametrize(
    ("out", "format", "path"),
    [
        ("a", None, "a/watch-seed3.mp4"),
        ("a.b", "gif", "a.b/watch-seed3.gif"),
        ("a.gif", None, "a.gif"),
        ("a.mp4", "mp4", "a.mp4"),
        ("a.mp4", "gif", None),
        ("a.avi", None, None),
        ("a.png", None, None),
    ],
)
def test_a_folder_or_the_video_itself(out, format, path):
    if path is None:
        with pytest.raises(BadInput, match="takes a folder or a file ending in"):
            watch.video_path(Path(out), 3, format)
    else:
        assert str(watch.video_path(Path(out), 3, format)) == path


def test_own_problems_have_a_map_instead(tmp_path, capsys):
    config = make_config("q_learning", "RiverSwim-v0", steps=2_000)
    run = train.run(config, [0], tmp_path)
    assert watch.main([str(run.path)]) == 0
    why, path = capsys.readouterr().out.splitlines()
    assert why == "no video of RiverSwim-v0: it has no renderer"
    assert path == str(run.path / "values-seed0.png")
    with Image.open(path) as picture:
        assert picture.width > 4 * picture.height  # one row of six


def test_an_option_and_its_time_limit_hold(tmp_path):
    config = make_config(
        "pqn", "CartPole-v1", steps=512, lanes=8, env_options={"max_episode_steps": 7}
    )
    run = train.run(config, [0], tmp_path)
    assert max(watch.watch(run, episodes=2).returns) == 7
    assert len(decode(run.path / "watch-seed0.mp4")) == 2 * (8 + 25)


def test_without_a_limit_an_episode_is_cut(tmp_path, monkeypatch):
    config = make_config("q_learning", "CliffWalking-v1", steps=500, eval_every=500)
    run = train.run(config, [0], tmp_path)
    monkeypatch.setattr("runners.evaluation.EPISODE_LIMIT", 12)
    recorder = watch.Recorder(open_setting(run), lambda obs, first, mask: np.zeros(1, int), 0, 2)
    assert len(list(recorder.frames(1))) == 13 + 1
    assert (recorder.returns, recorder.cut_after) == ([-12.0], 12)


@pytest.mark.parametrize(
    ("agent", "env"),
    [
        ("q_learning", "Garnet-v0"),
        ("ucb_hoeffding", "RiverSwim-v0"),
    ],  # which has no one value a state
)
def test_nothing_to_draw_is_one_line(agent, env, tmp_path, capsys):
    config = make_config(agent, env, steps=1_000)
    run = train.run(config, [0], tmp_path)
    assert watch.main([str(run.path), "--out", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "no renderer" in err


def test_a_renderer_that_fails_is_one_line(cartpole, tmp_path, monkeypatch):
    def render(self):
        raise OSError("no screen")

    monkeypatch.setattr(gymnasium.envs.classic_control.CartPoleEnv, "render", render)
    with pytest.raises(BadInput, match="CartPole-v1: cannot be rendered here: no screen"):
        watch.watch(cartpole, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", [["--format", "avi"], ["--seed", "9"], ["--fps", "0"]])
def test_bad_input_is_one_line(cartpole, capsys, argv):
    assert watch.main([str(cartpole.path), *argv]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_simulators_of_the_labs_own_are_drawn(tmp_path):
    """MinAtar is in no registry of Gymnasium's; its planes are drawn."""
    pytest.importorskip("pgx")
    config = make_config(
        "dqn", "MinAtar/Breakout", steps=64, final_episodes=1, eval_episodes=1,
        env_options={"max_episode_steps": 9},
    )  # fmt: skip
    run = train.run(config, [0], tmp_path)
    watched = watch.watch(run, episodes=1)
    assert len(watched.returns) == 1
    assert watched.no_video is None
    assert decode(watched.files[-1])
