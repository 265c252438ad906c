"""State taken apart into arrays and JSON and put together again; digests of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from runners import checkpoint
from runners.state_tree import digest_jsonl, digest_state, join, split, to_bytes

dtypes = st.sampled_from(["?", *"bBhHiIqQefd", ">f4", ">i8"])
leaves = (
    npst.arrays(dtypes, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    | st.none() | st.booleans() | st.integers(-(2**130), 2**130) | st.floats() | st.text()
)  # fmt: skip
names = st.text().filter(lambda name: not name.startswith("$"))
states = st.dictionaries(
    names,
    st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=3) | st.lists(inner, max_size=3)),
    max_size=4,
)  # fmt: skip


def same(a, b):
    if isinstance(a, np.ndarray):
        assert isinstance(b, np.ndarray)
        assert a.dtype.newbyteorder("=") == b.dtype
        assert a.shape == b.shape
        assert a.astype(b.dtype).tobytes() == b.tobytes()
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            same(a[name], b[name])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert type(a) is type(b)
        assert repr(a) == repr(b)


@given(states)
@settings(max_examples=200, deadline=None)
def test_split_and_join_give_the_state_back(state):
    arrays, rest = split(state)
    data = checkpoint.to_safetensors(arrays)
    back = join(checkpoint.from_safetensors(data), json.loads(to_bytes(rest)))
    same(state, back)
    assert digest_state(state, ()) == digest_state(back, ())


def test_no_two_leaves_share_a_path():
    state = {"a/b": np.zeros(1), "a": {"b": np.ones(1), "~1b": np.ones(2)}, "a~1b": np.zeros(3)}
    arrays, rest = split(state)
    assert len(arrays) == 4
    same(state, join(arrays, rest))


def test_torch_tensors_come_back_as_torch_tensors():
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(3)
    state = {
        "w": torch.arange(6.0).reshape(2, 3).t(),  # not contiguous
        "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "scalar": torch.tensor(3),
        "grad": torch.ones(2, requires_grad=True),
        "generators": [generator.get_state()],
    }
    arrays, rest = split(state)
    data = checkpoint.to_safetensors(arrays)
    back = join(checkpoint.from_safetensors(data), json.loads(to_bytes(rest)))
    for name in ("w", "half", "scalar", "grad"):
        assert back[name].dtype == state[name].dtype
        assert torch.equal(back[name].nan_to_num(7), state[name].detach().nan_to_num(7))
        back[name].add_(1)  # and can be written to
    torch.Generator().set_state(back["generators"][0])


def test_generators_go_on_where_they_were():
    rng = np.random.default_rng(5)
    rng.random(3)
    arrays, rest = split({"g": rng.bit_generator.state})
    expected = rng.random(4)
    other = np.random.default_rng(0)
    other.bit_generator.state = join(arrays, json.loads(to_bytes(rest)))["g"]
    np.testing.assert_array_equal(other.random(4), expected)


def test_numpy_numbers_become_numbers():
    assert split({"a": np.float32(0.5), "b": np.int64(3), "c": np.True_})[1] == {
        "a": 0.5,
        "b": 3,
        "c": True,
    }


@pytest.mark.parametrize(
    "leaf",
    [(1, 2), {1: 2}, {"$array": "x"}, object(), np.array(["a"]), np.array([None]), 1j, b"x", {3}],
    ids=range(9),
)
def test_what_would_not_come_back_is_refused_with_its_place(leaf):
    with pytest.raises(TypeError, match="/a/0"):
        split({"a": [leaf]})


def test_digest_ignores_times_only():
    base = {"x": {"seconds": 1.0, "w": np.ones(2)}, "n": 1}
    assert digest_state(base) == digest_state({"x": {"seconds": 2.0, "w": np.ones(2)}, "n": 1})
    for other in (
        {"x": {"seconds": 1.0, "w": np.ones(2, np.float32)}, "n": 1},
        {"x": {"seconds": 1.0, "w": np.ones((2, 1))}, "n": 1},
        {"x": {"seconds": 1.0, "w": -np.zeros(2)}, "n": 1},
        {"x": {"seconds": 1.0, "w": np.ones(2)}, "n": 2},
        {"x": {"seconds": 1.0, "v": np.ones(2)}, "n": 1},
    ):
        assert digest_state(base) != digest_state(other)


def test_digest_jsonl(tmp_path):
    def lines(*records):
        path = tmp_path / "metrics.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return digest_jsonl(path)

    base = lines({"lane_steps": 1, "loss": 0.5, "seconds": 3.0})
    assert base == lines({"seconds": 4.0, "loss": 0.5, "lane_steps": 1, "env_steps_per_s": 7})
    assert base != lines({"lane_steps": 1, "loss": 0.25, "seconds": 3.0})
    assert base != lines(*[{"lane_steps": 1, "loss": 0.5}] * 2)
