"""What Stable-Baselines3's own files say, and what is said of files that are not right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.errors import BadInput
from runners.sb3_files import read, read_evaluations, read_monitor

HEAD = '#{"t_start": 100.0, "env_id": "CartPole-v1"}\nr,l,t\n'


def test_what_eval_callback_and_monitor_write_is_read(tmp_path):
    """From a run of Stable-Baselines3 itself."""
    from stable_baselines3 import A2C
    from stable_baselines3.common.callbacks import EvalCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.monitor import load_results

    lanes = make_vec_env("CartPole-v1", 2, seed=0, monitor_dir=str(tmp_path))
    callback = EvalCallback(
        make_vec_env("CartPole-v1", 1, seed=1), n_eval_episodes=3, eval_freq=100, verbose=0,
        log_path=str(tmp_path),
    )  # fmt: skip
    A2C("MlpPolicy", lanes, seed=0, device="cpu").learn(600, callback)
    found = read(tmp_path / "evaluations.npz")
    assert found.env_steps.tolist() == [200, 400, 600]
    assert found.returns.tolist() == callback.evaluations_results
    assert found.seconds is None
    lanes.close()
    files = sorted(tmp_path.glob("*.monitor.csv"))
    both, table = read_monitor(files), load_results(str(tmp_path))
    assert both.returns[:, 0].tolist() == table["r"].tolist()
    assert both.env_steps.tolist() == table["l"].cumsum().tolist()
    np.testing.assert_allclose(both.seconds, table["t"], atol=1e-5)
    assert read(files[0]).returns.shape == (sum("," in x for x in files[0].open()) - 2, 1)


def test_lanes_are_merged_by_the_clock(tmp_path):
    a, b = tmp_path / "0.monitor.csv", tmp_path / "1.monitor.csv"
    a.write_text(HEAD + "1.5,10,1.0\n2,20,4.0\n")
    b.write_text(HEAD.replace("100.0", "101.0") + "3,30,1.0\n4,5,")  # its last line broke off
    found = read_monitor([a, b])
    # ends at seconds 1, 101 + 1 - 100 = 2, and 4
    assert found.seconds.tolist() == [1.0, 2.0, 4.0]
    assert found.returns.tolist() == [[1.5], [3.0], [2.0]]
    assert found.env_steps.tolist() == [10, 40, 60]
    assert found.training


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


STEPS, RETURNS = np.array([10, 20]), np.ones((2, 3))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"timesteps": STEPS}, "results"),
        ({"results": RETURNS}, "timesteps"),
        ({"timesteps": STEPS, "results": RETURNS[:1]}, "results: got float64(1, 3), takes numbers [2, episodes]"),
        ({"timesteps": STEPS, "results": RETURNS[0]}, "results: got float64(3,)"),
        ({"timesteps": STEPS + 0.5, "results": RETURNS}, "timesteps: got float64(2,)"),
        ({"timesteps": STEPS[::-1], "results": RETURNS}, "do not ascend"),
        ({"timesteps": STEPS - 20, "results": RETURNS}, "do not ascend"),
        ({"timesteps": STEPS, "results": RETURNS * np.nan}, "not a finite number"),
        ({"timesteps": STEPS[:0], "results": RETURNS[:0]}, "holds no evaluation"),
        ({"timesteps": STEPS, "results": np.array([[1], [2, 3]], object)}, "Object arrays"),
    ],
)  # fmt: skip
def test_evaluations_that_are_not_right_are_one_line(arrays, words, tmp_path):
    path = npz(tmp_path / "evaluations.npz", **arrays)
    with pytest.raises(BadInput) as caught:
        read_evaluations(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: got ''"),
        ("r,l,t\n1,2,3\n", "line 1: got 'r,l,t'"),
        ("#[1]\nr,l,t\n1,2,3\n", "line 1"),
        (HEAD.replace("r,l", "x,l") + "1,2,3\n", "line 2: got ['x', 'l', 't']"),
        (HEAD, "no episode has ended"),
        (HEAD + "1,2,3\n1,two,3\n", "line 4: got '1,two,3'"),
        (HEAD + "1,2\n", "line 3"),
        (HEAD + "nan,2,3\n", "line 3: got 'nan,2,3'"),
        (HEAD + "1,0,3\n", "line 3"),
        (HEAD + "1,1.5,3\n", "line 3"),
    ],
)
def test_monitors_that_are_not_right_are_one_line(text, words, tmp_path):
    path = tmp_path / "0.monitor.csv"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from(["evaluations.npz", "a.monitor.csv"]), st.booleans()
)
def test_any_bytes_are_read_or_refused(tmp_path_factory, data, name, whole):
    path = tmp_path_factory.mktemp("bytes") / name
    good = npz(path.with_name("good.npz"), timesteps=STEPS, results=RETURNS).read_bytes()
    start = good if name.endswith("npz") else (HEAD + "1,2,3\n").encode()
    path.write_bytes(data if whole else start[: len(data) * 4] + data)
    refused, found = "", None
    try:
        found = read(path)
    except BadInput as error:
        refused = str(error)
    assert str(path) in refused if found is None else np.isfinite(found.returns).all()


def test_other_files_and_none(tmp_path):
    with pytest.raises(BadInput, match="neither"):
        read(tmp_path / "x.txt")
    with pytest.raises(BadInput, match="No such file"):
        read(tmp_path / "evaluations.npz")
    with pytest.raises(BadInput, match="was named"):
        read_monitor([])
