"""Averaging of areas: by hand, against OpenCV, and (in test_atari) against ALE's own."""

import numpy as np
import pytest

from envs.resize import Shrinker, taps


def shrink(picture, height, width):
    out = np.empty((height, width, picture.shape[2]), np.uint8)
    Shrinker(picture.shape[:2], (height, width), picture.shape[2])(picture, out)
    return out


def test_a_cell_is_shared_by_the_areas_that_cover_it():
    cells, weights = taps(5, 2, 2.5)
    assert cells.T.tolist() == [[0, 1, 2], [2, 3, 4]]
    assert np.array_equal(weights.T, np.float32([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]]))


def test_five_columns_become_two():
    picture = np.array([[10, 20, 30, 40, 50]] * 2, np.uint8)[:, :, None]
    # 0.4 * 10 + 0.4 * 20 + 0.2 * 30 = 18, and 0.2 * 30 + 0.4 * 40 + 0.4 * 50 = 42
    assert shrink(picture, 2, 2)[:, :, 0].tolist() == [[18, 42], [18, 42]]


@pytest.mark.parametrize(
    ("height", "width", "block", "expected"),
    [
        (2, 2, [[0, 1], [0, 1]], 1),  # 0.5: half up in blocks of 2 x 2
        (1, 2, [[0, 1]], 0),  # 0.5: half to even in all others
        (1, 2, [[1, 2]], 2),
        (1, 4, [[3, 3, 3, 4]], 3),
    ],
)
def test_how_whole_blocks_round(height, width, block, expected):
    picture = np.tile(np.array(block, np.uint8), (3, 3))[:, :, None]
    assert (shrink(picture, 3, 3) == expected).all()


def test_channels_do_not_mix():
    rng = np.random.default_rng(0)
    for size in ((84, 84), (105, 80)):
        picture = rng.integers(0, 256, (210, 160, 3), np.uint8)
        together = shrink(picture, *size)
        apart = [shrink(np.ascontiguousarray(picture[:, :, [c]]), *size) for c in range(3)]
        assert np.array_equal(together, np.concatenate(apart, axis=2))


@pytest.mark.parametrize("source", [(210, 160), (250, 160), (97, 31)])
@pytest.mark.parametrize("target", [(84, 84), (64, 31), (97, 20), (42, 16), (1, 1), (96, 30)])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_opencv(source, target, channels):
    cv2 = pytest.importorskip("cv2")
    if target[1] > source[1]:
        pytest.skip("that would make it larger")
    rng = np.random.default_rng(1)
    for _ in range(5):
        picture = rng.integers(0, 256, (*source, channels), np.uint8)
        theirs = cv2.resize(picture, target[::-1], interpolation=cv2.INTER_AREA)
        assert np.array_equal(shrink(picture, *target), theirs.reshape(*target, channels))
