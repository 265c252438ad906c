"""MiniGrid and BabyAI: planes, missions, limits. Goldens are read off MiniGrid's own documentation."""

import itertools
import subprocess
import sys
from contextlib import closing

import gymnasium
import minigrid
import numpy as np
import pytest
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

import envs
import envs.check
from envs import grid, probes
from envs.check import check_id
from envs.contract import UnsupportedEnv, spec_of
from envs.simulator import lane_seeds
from envs.trace import draws, record

assert minigrid  # registers the ids
IDS = [i for i in gymnasium.registry if i.startswith(("MiniGrid-", "BabyAI-")) and "WFC" not in i]
OBJECTS, COLOURS = 0, 11
STATES, MISSION = 17, 20


def bare(env_id, **options):
    return gymnasium.make(gymnasium.spec(env_id), disable_env_checker=True, **options)


def run(env_id, steps, seed=0, **options):
    """``(dict observation, planes)`` of MiniGrid's own environment and of a dressed lane."""
    one, two = bare(env_id), envs.scalar(env_id, **options)
    rng = np.random.default_rng(seed)
    yield one.reset(seed=seed)[0], two.reset(seed=seed)[0]
    for _ in range(steps):
        action = int(rng.integers(one.action_space.n))
        (a, reward, terminated, truncated, _), b = one.step(action), two.step(action)
        assert (reward, terminated, truncated) == b[1:4]
        yield a, b[0]
        if terminated or truncated:
            yield one.reset()[0], two.reset()[0]


@pytest.mark.parametrize("env_id", ["MiniGrid-DoorKey-5x5-v0", "BabyAI-UnlockLocalDist-v0"])
def test_each_cell_has_one_object_one_colour_and_one_state_those_of_the_image(env_id):
    kinds = set()
    for seen, planes in itertools.chain(*(run(env_id, 150, seed) for seed in range(3))):
        assert planes.shape == (7, 7, 20)
        assert planes.dtype == np.uint8
        for i, j in np.ndindex(7, 7):
            thing, colour, state = (int(k) for k in seen["image"][i, j])
            expected = np.zeros(20, np.uint8)
            expected[[OBJECTS + thing, COLOURS + colour, STATES + state]] = 1
            assert (planes[i, j] == expected).all()
            kinds.add((thing, state))
    # a key, and doors that are locked: what was compared is not all walls
    assert {(OBJECT_TO_IDX["key"], 0), (OBJECT_TO_IDX["door"], STATE_TO_IDX["locked"])} <= kinds


def test_a_first_view_that_one_knows():
    """Empty-5x5 seen from the upper left corner, to the right: the goal is two ahead, two right.

    The agent stands at [3, 6] of its view; the first axis goes to its right, the second back to it.
    """
    obs, _ = envs.scalar("MiniGrid-Empty-5x5-v0").reset(seed=0)
    goal = np.argwhere(obs[..., OBJECT_TO_IDX["goal"]])
    assert goal.tolist() == [[5, 4]]
    assert obs[5, 4, COLOURS + COLOR_TO_IDX["green"]] == 1
    walls = obs[..., OBJECT_TO_IDX["wall"]].astype(bool)
    assert walls[2, 3:].all()  # on the left
    assert walls[2:7, 3].all()  # ahead
    assert not walls[3:6, 4:].any()


def test_raw_indices_are_minigrids_image():
    for seen, raw in run("MiniGrid-DoorKey-5x5-v0", 100, one_hot=False):
        assert (raw == seen["image"]).all()
    env = envs.make("MiniGrid-DoorKey-5x5-v0", 2, 0, one_hot=False)
    assert env.single_observation_space == gymnasium.spaces.Box(0, 255, (7, 7, 3), np.uint8)


def test_a_wider_view_has_more_cells():
    env = envs.make("MiniGrid-Empty-8x8-v0", 2, 0, agent_view_size=9)
    assert spec_of(env).obs_shape == env.reset()[0].shape[1:] == (9, 9, 20)


def test_an_index_that_no_table_has_is_an_error_not_another_plane():
    lane = grid.Image(bare("MiniGrid-Empty-5x5-v0"))
    for kind, size in enumerate((11, 6, 3)):
        image = np.zeros((7, 7, 3), np.uint8)
        image[0, 0, kind] = size - 1
        lane.observation({"image": image})
        image[0, 0, kind] = size
        with pytest.raises(IndexError):
            lane.observation({"image": image})


@pytest.mark.parametrize(
    ("env_id", "steps"),  # beyond one time limit
    [
        ("MiniGrid-Empty-5x5-v0", 110),
        ("MiniGrid-MemoryS7-v0", 255),
        ("BabyAI-GoToRedBallGrey-v0", 75),
    ],
)
def test_the_contract_is_kept(env_id, steps):
    findings = check_id(env_id, steps=steps)
    assert [str(finding) for finding in findings if finding.fault] == []


@pytest.mark.parametrize("env_id", ["MiniGrid-Fetch-5x5-N2-v0", "BabyAI-SynthS5R2-v0"])
def test_the_contract_is_kept_with_missions(env_id):
    def factory(num_envs, seed):
        return envs.make(env_id, num_envs, seed, mission="encode", max_episode_steps=40)

    def twin():
        return envs.scalar(env_id, mission="encode", max_episode_steps=40)

    found = envs.check.check(factory, 3, 90, 0, 40, (twin, lane_seeds(0, 1)[0]))
    assert [str(finding) for finding in found if finding.fault] == []


def test_a_process_a_lane_does_what_sync_does_and_writes_nothing(capfd):
    """GoToObjDoor rejects levels, which MiniGrid prints, also in the processes of the lanes."""
    options = {"mission": "encode", "max_episode_steps": 5}
    one, two = (envs.make("BabyAI-GoToObjDoor-v0", 2, 0, b, **options) for b in ("sync", "async"))
    uniform = draws(one, 60, 0)
    with closing(two):
        assert probes.difference(record(one, uniform), record(two, uniform)) is None
    assert capfd.readouterr() == ("", "")


def test_rejected_levels_are_there_to_be_printed(capfd):
    """The test above can fail: in a process of its own, MiniGrid prints for one of its seeds."""
    code = """
import gymnasium, minigrid
env = gymnasium.make("BabyAI-GoToObjDoor-v0", disable_env_checker=True)
for seed in range(12):
    env.reset(seed=seed)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Sampling rejected" in done.stdout


# -- Time limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "limit"),
    [
        ("MiniGrid-Empty-5x5-v0", 100),  # 4 * 5 * 5
        ("MiniGrid-MemoryS7-v0", 245),  # 5 * 7 * 7
        ("BabyAI-GoToRedBallGrey-v0", 64),  # one room of 8 x 8, one errand
        ("BabyAI-PutNextLocal-v0", 128),  # the same with two errands
        ("BabyAI-FindObjS5-v0", 500),  # 20 * 5 * 5
        ("BabyAI-BossLevel-v0", 0),  # differs between missions
    ],
)
def test_limits(env_id, limit):
    assert envs.time_limit(env_id) == limit


@pytest.mark.slow
@pytest.mark.parametrize("env_id", [env_id for env_id in IDS if env_id.startswith("BabyAI-")])
def test_limits_that_are_said_to_be_the_same_in_every_episode_are(env_id):
    env = bare(env_id)
    limits = {(env.reset(seed=1000 + seed), env.unwrapped.max_steps)[1] for seed in range(200)}
    assert envs.time_limit(env_id) == (limits.pop() if len(limits) == 1 else 0)


@pytest.mark.parametrize("env_id", ["MiniGrid-Empty-Random-5x5-v0", "BabyAI-BossLevel-v0"])
def test_the_option_sets_the_limit(env_id):
    env = envs.make(env_id, 1, 0, max_episode_steps=7)
    assert envs.time_limit(env_id, max_episode_steps=7) == 7
    env.reset()
    ends = [bool(env.step(np.array([0]))[3][0]) for _ in range(16)]  # turns on the spot
    assert [i for i, end in enumerate(ends, 1) if end] == [7, 15]


def test_no_limit():
    assert envs.time_limit("MiniGrid-Empty-5x5-v0", max_episode_steps=0) == 0
    env = envs.make("MiniGrid-Empty-5x5-v0", 1, 0, max_episode_steps=0)
    env.reset()
    assert not any(env.step(np.array([0]))[3][0] for _ in range(150))


@pytest.mark.parametrize(("limit", "expected"), [(None, 1 - 0.9 * 5 / 100), (10, 1 - 0.9 * 5 / 10)])
def test_the_reward_depends_on_the_limit(limit, expected):
    options = {} if limit is None else {"max_episode_steps": limit}
    env = envs.make("MiniGrid-Empty-5x5-v0", 1, 0, **options)
    env.reset()
    for action in (2, 2, 1, 2, 2):  # forward twice, right, forward twice: the goal
        _, reward, terminated, _, _ = env.step(np.array([action]))
    assert terminated[0]
    assert reward[0] == expected


# -- Missions ------------------------------------------------------------------------------------


def test_a_gap_of_minigrids_mission_is_one_hot():
    """GoToDoor: "go to the {colour} door", with the colours in the order of COLOR_NAMES."""
    colours = sorted(COLOR_TO_IDX)
    for seed in range(5):
        for seen, planes in run("MiniGrid-GoToDoor-5x5-v0", 1, seed, mission="encode"):
            colour = seen["mission"].split()[3]
            expected = np.array([c == colour for c in colours], np.uint8)
            assert (planes[..., MISSION:] == expected).all()
            assert planes.shape == (7, 7, 26)


def test_a_mission_without_gaps_has_no_planes():
    env = envs.make("MiniGrid-Empty-5x5-v0", 1, 0, mission="encode")
    assert spec_of(env).obs_shape == (7, 7, 20)


def test_missions_can_go_with_raw_indices():
    for seen, planes in run("MiniGrid-GoToDoor-5x5-v0", 1, one_hot=False, mission="encode"):
        assert (planes[..., :3] == seen["image"]).all()
        assert (planes[..., 3:].sum(axis=2) == 1).all()


def test_a_mission_outside_of_the_space_is_an_error():
    lane = grid.Image(bare("MiniGrid-GoToDoor-5x5-v0"), encode_mission=True)
    with pytest.raises(ValueError, match="the mission 'go home' is not in"):
        lane.observation({"image": np.zeros((7, 7, 3), np.uint8), "mission": "go home"})


def words(bits):
    """What stands in each of the 2 x 2 x 2 parts."""
    parts = bits.reshape(2, 2, 2, -1)
    return {
        at: {word for word, i in grid.WORDS.items() if parts[at][i]}
        for at in np.ndindex(2, 2, 2)
        if parts[at].any()
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("go to the red ball", {(0, 0, 0): {"go", "red", "ball"}}),
        ("pick up an object".replace("an", "a"), {(0, 0, 0): {"pick", "object"}}),
        ("open a door in front of you", {(0, 0, 0): {"open", "door", "front"}}),
        (
            "put the key on your left next to a grey box behind you",
            {(0, 0, 0): {"put", "key", "left"}, (0, 0, 1): {"grey", "box", "behind"}},
        ),
        (
            "go to a box and open the blue door, then pick up the key",
            {
                (0, 0, 0): {"go", "box"},
                (0, 1, 0): {"open", "blue", "door"},
                (1, 0, 0): {"pick", "key"},
            },
        ),
        (
            "pick up the key after you go to a box and open the blue door",
            {
                (0, 0, 0): {"go", "box"},
                (0, 1, 0): {"open", "blue", "door"},
                (1, 0, 0): {"pick", "key"},
            },
        ),
    ],
)
def test_the_parts_of_an_instruction_stand_in_the_order_of_doing(text, expected):
    assert words(grid.BabyAIMissions()(text)) == expected


@pytest.mark.parametrize("text", ["go to the pink ball", "go to a and go to a and go to a", "hop"])
def test_what_is_not_of_the_language_is_an_error(text):
    with pytest.raises(ValueError, match="is not in the Baby Language"):
        grid.BabyAIMissions()(text)


@pytest.mark.parametrize("env_id", IDS)
def test_every_mission_can_be_encoded(env_id):
    """All ids; different missions have different planes but for BabyAI's articles and orders."""
    env, lane = bare(env_id), envs.scalar(env_id, mission="encode")
    told: dict[bytes, str] = {}
    for seed in range(4):
        text = env.reset(seed=seed)[0]["mission"]
        planes, _ = lane.reset(seed=seed)
        assert (planes[..., MISSION:] == planes[0, 0, MISSION:]).all()
        same = told.setdefault(planes[0, 0, MISSION:].tobytes(), plain(text))
        assert same == plain(text)


def plain(text):
    """A mission but for "the" and "a", and with "B after you A" as "A, then B"."""
    text = " ".join("a" if word == "the" else word for word in text.split())
    return ", then ".join(text.split(" after you ")[::-1])


# -- Making one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("MiniGrid-Emty-5x5-v0", {}, "did you mean 'MiniGrid-Empty-5x5-v0'"),
        ("BabyAI-GoToRedBal-v0", {}, "did you mean 'BabyAI-GoToRedBall-v0'"),
        ("MiniGrid-Empty-5x5-v0", {"one_hot": 1}, "option one_hot: got 1, takes true or false"),
        ("MiniGrid-Empty-5x5-v0", {"mission": "x"}, "got 'x', takes drop or encode"),
        ("MiniGrid-Empty-5x5-v0", {"max_steps": 5}, "write max_episode_steps instead"),
        ("MiniGrid-Empty-5x5-v0", {"agent_view": 5}, "has no option 'agent_view'"),
        ("MiniGrid-Empty-5x5-v0", {"backend": "native"}, "it has sync, async"),
    ],
)
def test_bad_input_is_one_line(env_id, options, message):
    with pytest.raises(UnsupportedEnv) as error:
        envs.make(env_id, 2, 0, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_package_has_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(UnsupportedEnv, match=r"needs minigrid .*'\.\[grid\]'"):
        envs.make("MiniGrid-Empty-5x5-v0", 1, 0)


def test_missions_that_are_too_many_are_refused(monkeypatch):
    monkeypatch.setattr(grid, "MOST_MISSIONS", 5)  # GoToDoor has six
    with pytest.raises(UnsupportedEnv, match="use mission=drop"):
        envs.make("MiniGrid-GoToDoor-5x5-v0", 1, 0, mission="encode")


def test_it_can_be_drawn():
    env = envs.scalar("MiniGrid-Empty-5x5-v0", render_mode="rgb_array", highlight=False)
    env.reset(seed=0)
    frame = env.render()
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    red = (frame[..., 0] == 255) & (frame[..., 1] == 0)  # the agent
    assert 50 < red.sum() < 0.1 * red.size


def test_the_ids_come_with_the_family_and_nothing_is_printed():
    code = "import envs; envs.make('MiniGrid-Empty-5x5-v0', 1, 0).reset()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_level_whose_files_are_missing_is_refused_in_one_line():
    with pytest.raises(
        UnsupportedEnv, match=r"^MiniGrid-WFC-MazeSimple-v0: .* lacks its file \S+\.png$"
    ):
        envs.make("MiniGrid-WFC-MazeSimple-v0", 1, 0)
