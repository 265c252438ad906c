"""Atari: the list of emulators is ALE's vector class to the bit, and both keep the contract."""

import importlib
import os

import gymnasium
import numpy as np
import pytest

import envs
from envs import atari, atari_engines, check
from envs.contract import Resumable, UnsupportedEnv

ale_py = pytest.importorskip("ale_py")

BREAKOUT, QBERT = "ALE/Breakout-v5", "ALE/Qbert-v5"
GAMES = sorted(env_id for env_id in gymnasium.registry if env_id.startswith("ALE/"))
ENVPOOL = importlib.util.find_spec("envpool") is not None
BACKENDS = ["ale", "list", *(["envpool"] if ENVPOOL else [])]
FIRST = {"repeat_action_probability": 0.0, "noop_max": 0}  # nothing is drawn


def actions_for(env, steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(env.single_action_space.n, size=(steps, env.num_envs))


def played(env, actions):
    """(obs, reward, terminated, truncated, life_loss) of every step."""
    steps = [env.step(row) for row in actions]
    return [(*step[:4], step[4]["life_loss"]) for step in steps]


def first_difference(one, two):
    for t, (a, b) in enumerate(zip(one, two, strict=True)):
        for name, x, y in zip(("obs", "reward", "term", "trunc", "life_loss"), a, b, strict=True):
            if x.dtype != y.dtype or not np.array_equal(x, y):
                return t, name
    return None


def compare(env_id, steps, lanes=2, **options):
    """The two backends side by side; how many steps ended an episode, were truncated, took a life."""
    ale, own = (envs.make(env_id, lanes, 7, backend, **options) for backend in ("ale", "list"))
    assert np.array_equal(ale.reset()[0], own.reset()[0])
    actions = actions_for(ale, steps)
    theirs = played(ale, actions)
    assert first_difference(theirs, played(own, actions)) is None
    ale.close()
    return [int(sum(step[k].sum() for step in theirs)) for k in (2, 3, 4)]


# -- Ids and options -----------------------------------------------------------------------------


def test_every_game_of_the_wheel_has_the_backends():
    two_players = {"combat", "joust", "maze_craze", "warlords"}
    games = set(ale_py.roms.get_all_rom_ids()) - two_players
    assert len(GAMES) == len(games) >= 104
    for env_id in GAMES:
        assert envs.backends(env_id) == ["ale", "list", "envpool"]
        game, rom = atari.rom_of(env_id)
        assert game in games
        assert rom.exists()
    assert envs.resolve_backend(BREAKOUT) == "ale"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("ALE/Brekout-v5", BREAKOUT), ("ALE/spaceinvaders-v5", "ALE/SpaceInvaders-v5")],
)
def test_an_unknown_game_is_refused_with_the_nearest(wrong, right):
    with pytest.raises(UnsupportedEnv, match=f"{wrong}.*did you mean '{right}'"):
        envs.make(wrong, 1, 0)


def test_without_ale_py_the_line_that_installs_it_is_shown(monkeypatch):
    real = importlib.import_module

    def missing(name, *rest):
        if name == "ale_py":
            raise ImportError("No module named 'ale_py'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UnsupportedEnv, match=r"needs ale_py .*pip install .*\[atari\]"):
        envs.make(BREAKOUT, 1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_hight": 84}, "no option 'img_hight'; did you mean 'img_height'"),
        ({"frame_skip": 4}, "no option 'frame_skip'; did you mean 'frameskip'"),
        ({"stack_num": 4}, "no option 'stack_num'"),
        ({"img_height": 0}, "img_height: got 0, takes a whole number of at least 1"),
        ({"img_height": 211}, "img_height: got 211, takes at most 210"),
        ({"img_width": 161}, "img_width: got 161, takes at most 160"),
        ({"frameskip": 0}, "frameskip: got 0"),
        ({"frameskip": 2.0}, "frameskip: got 2.0"),
        ({"noop_max": -1}, "noop_max: got -1"),
        ({"max_episode_steps": -1}, "max_episode_steps: got -1"),
        ({"grayscale": 1}, "grayscale: got 1, takes true or false"),
        ({"repeat_action_probability": 1.5}, "got 1.5, takes a number from 0 to 1"),
        ({"repeat_action_probability": float("nan")}, "got nan, takes a number from 0 to 1"),
        ({"repeat_action_probability": True}, "got True, takes a number from 0 to 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UnsupportedEnv, match=message):
        envs.make(BREAKOUT, 1, 0, **options)


def test_a_wrong_rom_is_refused(monkeypatch, tmp_path):
    (tmp_path / "breakout.bin").write_bytes(b"no game")
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(UnsupportedEnv, match=r"no ROM: The hash of breakout\.bin does not match"):
        envs.make(BREAKOUT, 1, 0)
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(UnsupportedEnv, match=r"no ROM: .*doesn't exist"):
        envs.make(BREAKOUT, 1, 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_spaces(backend):
    grey = envs.make(BREAKOUT, 2, 0, backend)
    assert grey.single_observation_space == gymnasium.spaces.Box(0, 255, (84, 84), np.uint8)
    assert grey.single_action_space == gymnasium.spaces.Discrete(4)
    options = {"grayscale": False, "full_action_space": True, "img_height": 60, "img_width": 70}
    coloured = envs.make(BREAKOUT, 2, 0, backend, **options)
    assert coloured.single_observation_space.shape == (60, 70, 3)
    assert coloured.single_action_space.n == 18
    obs, _ = coloured.reset()
    assert obs.shape == (2, 60, 70, 3)
    assert obs.flags.c_contiguous
    assert (obs[..., 0] != obs[..., 2]).any()
    for env in (grey, coloured):
        env.close()


def test_the_time_limit_is_in_agent_steps():
    assert envs.time_limit(BREAKOUT) == 27_000
    assert envs.time_limit(BREAKOUT, max_episode_steps=5) == 5


# -- The two generators of C++ -------------------------------------------------------------------


def twister(seed):
    generator = np.random.MT19937()
    key = atari_engines.twister_key(seed)
    generator.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 624}}
    return generator


def test_the_twister_gives_the_number_that_the_cpp_standard_names():
    assert int(twister(5489).random_raw(10_000)[-1]) == 4123659995


class Given:
    """A generator of given numbers."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random_raw(self):
        return self.draws.pop(0)


@pytest.mark.parametrize(
    ("draws", "bound", "expected"),
    [
        ([2**31 + 1], 30, 15),
        ([2**32 - 1], 30, 29),
        ([0, 2**31, 2**31 + 1], 30, 15),  # 2**32 % 30 products of each number are too many
        ([0], 32, 0),  # 2**32 is a multiple of 32: none is too many
        ([123], 1, 0),
    ],
)
def test_drawing_below_a_bound(draws, bound, expected):
    generator = Given(*draws)
    assert atari_engines.below(generator, bound) == expected
    assert not generator.draws


# -- The list is ALE's vector class --------------------------------------------------------------


@pytest.mark.parametrize("env_id", [BREAKOUT, QBERT])
def test_equal_to_the_bit_with_the_standard_protocol(env_id):
    ends, truncated, lives = compare(env_id, 1000)
    assert ends > 2
    assert truncated == 0
    assert lives > 10


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        (BREAKOUT, {"use_fire_reset": True, "max_episode_steps": 37}),
        (BREAKOUT, {"grayscale": False, "img_height": 105, "img_width": 80}),
        ("ALE/SpaceInvaders-v5", {"full_action_space": True, "repeat_action_probability": 0.9}),
        ("ALE/Berzerk-v5", {"maxpool": False, "frameskip": 3, "max_episode_steps": 60}),
        ("ALE/DoubleDunk-v5", {"max_episode_steps": 60}),  # the menu of its reset sticks
        ("ALE/Adventure-v5", {"max_episode_steps": 60, "noop_max": 3}),  # 250 lines
        (BREAKOUT, {"frameskip": 1, "noop_max": 0, "img_height": 210, "img_width": 160}),
    ],
)
def test_equal_to_the_bit_with_other_options(env_id, options):
    compare(env_id, 150, lanes=3, **options)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", GAMES)
def test_equal_to_the_bit_in_every_game(env_id):
    compare(env_id, 1000)
    assert compare(env_id, 300, max_episode_steps=61, repeat_action_probability=0.5)[1] > 2


@pytest.mark.parametrize("settings", [{}, {"max_episode_steps": 37}])
def test_ale_gives_what_its_own_loop_gives(settings):
    """Frames, rewards and ends of AtariVectorEnv, up to the first step at the limit."""
    own = envs.make(BREAKOUT, 3, 0, "ale", **settings)
    theirs = ale_py.AtariVectorEnv(
        "breakout",
        3,
        stack_num=1,
        repeat_action_probability=0.25,
        reward_clipping=False,
        use_fire_reset=False,
    )
    assert np.array_equal(own.reset(seed=5)[0], theirs.reset(seed=5)[0][:, 0])
    lives, done = np.full(3, 5), np.zeros(3, bool)
    for actions in actions_for(own, 36 if settings else 500):
        obs, reward, terminated, truncated, infos = own.step(actions)
        frames, points, over, _, their_infos = theirs.step(actions)
        assert np.array_equal(obs, frames[:, 0])
        assert np.array_equal(reward, points)
        assert reward.dtype == np.float64
        assert np.array_equal(terminated, over)
        assert not truncated.any()
        lost = their_infos["lives"] < lives
        assert np.array_equal(infos["life_loss"], lost & ~done)
        assert not reward[done].any()
        lives, done = their_infos["lives"], terminated
    own.close()


def test_the_steps_of_gymnasium_with_its_preprocessing():
    pytest.importorskip("cv2")
    inner = gymnasium.make(
        BREAKOUT, frameskip=1, repeat_action_probability=0.0, disable_env_checker=True
    )
    theirs = gymnasium.wrappers.AtariPreprocessing(inner, noop_max=0)
    own = envs.make(BREAKOUT, 1, 0, "list", **FIRST)
    obs, _ = own.reset()
    frame, _ = theirs.reset(seed=0)
    ends = 0
    for row in actions_for(own, 600):
        assert np.array_equal(obs[0], frame)
        obs, reward, terminated, _, _ = own.step(row)
        frame, points, over, _, _ = theirs.step(int(row[0]))
        assert reward[0] == points
        assert terminated[0] == over
        if over:
            assert np.array_equal(obs[0], frame)
            obs, frame, ends = own.step(row)[0], theirs.reset()[0], ends + 1
    assert ends


def test_no_bit_depends_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert [atari_engines.threads(lanes) for lanes in (1, 3, 200)] == [1, 3, 64]
    runs = []
    for threads in (1, 4):
        monkeypatch.setattr(atari_engines, "threads", lambda _, threads=threads: threads)
        env = envs.make(BREAKOUT, 4, 3, "ale", max_episode_steps=50)
        env.reset()
        runs.append(played(env, actions_for(env, 200)))
        env.close()
    assert first_difference(*runs) is None


# -- The contract --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_checker_finds_no_fault(backend):
    def factory(num_envs, seed):
        return envs.make(QBERT, num_envs, seed, backend, max_episode_steps=30)

    findings = check.check(factory, lanes=2, steps=80, time_limit=30)
    assert not [finding for finding in findings if finding.fault]
    assert not [finding for finding in findings if finding.probe == "aliasing"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_last_observation_at_the_limit_is_the_true_one(backend):
    """It is what the same step shows where there is no limit."""
    short, long = (envs.make(BREAKOUT, 3, 2, backend, max_episode_steps=n) for n in (20, 0))
    for env in (short, long):
        env.reset()
    actions = actions_for(short, 20)
    assert not any(step[3].any() for step in played(short, actions[:19]))
    obs, _, terminated, truncated, _ = short.step(actions[19])
    assert truncated.all()
    assert not terminated.any()
    assert np.array_equal(obs, played(long, actions)[-1][0])
    for env in (short, long):
        env.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_life_loss_is_a_fact_of_the_step(backend):
    env = envs.make(BREAKOUT, 2, 1, backend)
    _, infos = env.reset()
    assert infos.keys() == {"life_loss"}
    assert infos["life_loss"].dtype == bool
    assert not infos["life_loss"].any()
    lost, done = np.zeros(2, int), np.zeros(2, bool)
    for actions in actions_for(env, 500):
        _, _, terminated, truncated, infos = env.step(actions)
        assert infos.keys() == {"life_loss"}
        assert not infos["life_loss"][done].any()
        lost += infos["life_loss"]
        # an episode of Breakout has five lives, and the last one ends it
        assert np.array_equal(terminated, lost == 5)
        assert infos["life_loss"][terminated].all()
        done = terminated | truncated
        lost[done] = 0
    env.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_seeds(backend):
    env = envs.make(BREAKOUT, 3, 0, backend)
    actions = actions_for(env, 30)

    def run(seed):
        obs, _ = env.reset(seed=seed)
        return [obs, *(step[0] for step in played(env, actions))]

    def equal(one, two):
        return all(map(np.array_equal, one, two))

    assert equal(run(40), run([40, 41, 42]))
    assert equal(run(40)[0][1:], run(41)[0][:2])
    assert not equal(run(40), run(43))
    assert not equal(run(None), run(None))
    for seed in (-1, 2**31 - 2, [0, 1, 2**31]):
        with pytest.raises(ValueError, match=r"seed \S+ is not in 0\.\.2147483647"):
            env.reset(seed=seed)
    env.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_actions_do_not_reach_the_engine(backend):
    env = envs.make(BREAKOUT, 2, 0, backend)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(2, int))
    env.reset()

    def reached(*_):
        raise AssertionError("the engine was reached")

    play, env.engine.play = env.engine.play, reached
    for wrong in ([0, 4], [-1, 0], [0], [[0, 0]]):
        with pytest.raises(ValueError, match="action"):
            env.step(np.array(wrong))
    for wrong in ([0.0, 1.0], [True, False], ["a", "b"]):
        with pytest.raises(TypeError, match="actions are"):
            env.step(np.array(wrong))
    env.engine.play = play
    env.step([0, 3])
    env.close()
    env.close()
    for use in (lambda: env.step(np.zeros(2, int)), env.reset):
        with pytest.raises(RuntimeError, match="closed"):
            use()


# -- Resuming ------------------------------------------------------------------------------------


def resume(env_id, before, steps=100, **options):
    """Whether a fresh environment goes on as the one whose state it was given, and that one too."""
    one, fresh = (envs.make(env_id, 2, seed, "list", **options) for seed in (7, 99))
    one.reset()
    actions = actions_for(one, before + steps)
    done = False
    if before:
        done = np.logical_or(*played(one, actions[:before])[-1][2:4]).any()
    state = one.get_state()
    goes_on = played(one, actions[before:])
    fresh.set_state(state)
    assert first_difference(goes_on, played(fresh, actions[before:])) is None
    one.set_state(state)
    assert first_difference(goes_on, played(one, actions[before:])) is None
    return done


@pytest.mark.parametrize("env_id", [BREAKOUT, QBERT, "ALE/Tetris-v5", "ALE/Berzerk-v5"])
@pytest.mark.parametrize(
    ("before", "done"),
    [(33, False), (50, True), (51, False), (0, False)],
    ids=["mid-episode", "behind an end", "behind a reset", "at the start"],
)
def test_the_list_resumes_exactly(env_id, before, done):
    assert resume(env_id, before, 60, max_episode_steps=50, noop_max=0) == done


def test_the_list_resumes_exactly_behind_the_end_of_a_game():
    env = envs.make(BREAKOUT, 2, 7, "list")
    env.reset()
    end = [step[2].any() for step in played(env, actions_for(env, 400))].index(True) + 1
    assert resume(BREAKOUT, end)


def test_an_action_that_sticks_is_resumed():
    """Almost every frame repeats the held action, which ALE does not save."""
    resume(BREAKOUT, 40, 60, repeat_action_probability=0.97)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", GAMES)
def test_every_game_that_can_be_saved_resumes_exactly(env_id):
    if isinstance(envs.make(env_id, 1, 0, "list"), Resumable):
        for before in (30, 61, 62, 150, 400):
            resume(env_id, before, 150, max_episode_steps=61, noop_max=3)


def test_what_cannot_be_saved_says_so():
    assert isinstance(envs.make(BREAKOUT, 1, 0, "list"), Resumable)
    assert not isinstance(envs.make(BREAKOUT, 1, 0, "ale"), Resumable)
    for game in ("MiniatureGolf", "Pitfall2", "DoubleDunk", "TicTacToe3D"):
        assert not isinstance(envs.make(f"ALE/{game}-v5", 1, 0, "list"), Resumable)
    with pytest.raises(RuntimeError, match="reset"):
        envs.make(BREAKOUT, 1, 0, "list").get_state()


# -- EnvPool -------------------------------------------------------------------------------------


@pytest.mark.skipif(not ENVPOOL, reason="needs envpool")
def test_envpool_plays_the_same_game():
    """Without anything random its steps are those of our emulator after the one no-op it makes."""
    pool = envs.make(BREAKOUT, 2, 0, "envpool", repeat_action_probability=0.0, noop_max=1)
    own = envs.make(BREAKOUT, 2, 0, "list", **FIRST)
    pool.reset(seed=3)
    own.reset(seed=3)
    for lane in own.engine.lanes:
        lane._frame(0)
    ends = 0
    for actions in actions_for(own, 300):
        obs, reward, terminated, truncated, infos = own.step(actions)
        frames, *theirs, their_infos = pool.step(actions)
        for mine, its in zip((reward, terminated, truncated), theirs, strict=True):
            assert np.array_equal(mine, its)
        assert np.array_equal(infos["life_loss"], their_infos["life_loss"])
        assert np.array_equal(obs[~terminated], frames[~terminated])
        ends += int(terminated.sum())
        if terminated.any():
            break  # the next reset makes its no-op again
    assert ends
    pool.close()


@pytest.mark.skipif(not ENVPOOL, reason="needs envpool")
@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("ALE/Adventure-v5", {}, "cuts its screen off at 210 lines"),
        (BREAKOUT, {"maxpool": False}, "no option maxpool=False; use backend='ale'"),
        (BREAKOUT, {"noop_max": 0}, "at least one no-op"),
    ],
)
def test_what_envpool_cannot_do(env_id, options, message):
    with pytest.raises(UnsupportedEnv, match=message):
        envs.make(env_id, 1, 0, "envpool", **options)


# -- One lane as a Gymnasium environment ---------------------------------------------------------


def test_scalar_is_one_lane():
    options = {"max_episode_steps": 25, "grayscale": False}
    lane = envs.make(QBERT, 1, 0, "ale", **options)
    env = envs.scalar(QBERT, render_mode="rgb_array", **options)
    assert env.observation_space == lane.single_observation_space
    assert env.action_space == lane.single_action_space
    assert env.metadata == {"render_modes": ["rgb_array"], "render_fps": 15}
    obs, infos = env.reset(seed=4)
    assert np.array_equal(obs, lane.reset(seed=4)[0][0])
    assert infos == {"life_loss": False}
    ends, done = 0, False
    for row in actions_for(lane, 120):
        frames, reward, terminated, truncated, facts = lane.step(row)
        assert env.render().shape == (210, 160, 3)
        if done:
            obs, infos = env.reset()
        else:
            obs, *rest, infos = env.step(row[0])
            assert rest == [reward[0], terminated[0], truncated[0]]
            assert [type(value) for value in rest] == [float, bool, bool]
        done = terminated[0] or truncated[0]
        ends += int(done)
        assert np.array_equal(obs, frames[0])
        assert infos["life_loss"] == facts["life_loss"][0]
    assert ends > 2
    lane.close()


def test_scalar_refuses():
    with pytest.raises(UnsupportedEnv, match="render_mode: got 'human', takes 'rgb_array'"):
        envs.scalar(BREAKOUT, render_mode="human")
    with pytest.raises(UnsupportedEnv, match="did you mean 'frameskip'"):
        envs.scalar(BREAKOUT, frame_skip=2)
    env = envs.scalar(BREAKOUT, max_episode_steps=1)
    assert env.render() is None
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(0)
    env.reset()
    with pytest.raises(ValueError, match="action 4 is not in"):
        env.step(4)
    assert env.step(0)[3]
    with pytest.raises(RuntimeError, match="has ended: call reset"):
        env.step(0)
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        env.reset()
