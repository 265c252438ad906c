"""``python -m runners.watch RUN``: a video of what a run has learned, and its values on the map."""

from __future__ import annotations

import mimetypes
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from runners import files
from runners.console import number
from runners.errors import BadInput, command, leave
from runners.evaluate import RunParser, at_least
from runners.policy import (
    Policy,
    first_seed,
    make_policy,
    open_run,
    open_setting,
    seed_weights,
)

if TYPE_CHECKING:
    import gymnasium

    from agents.contract import Array, Params
    from envs.mdps import Layout
    from runners.group import Setting
    from runners.run_folder import RunFolder

DESCRIPTION = """\
Record greedy episodes of one seed of a run as a video, and print their returns. On finite MDPs whose
states lie on a map (FrozenLake, CliffWalking, RiverSwim, DeepSea) also, or where nothing draws the
environment instead, write a picture of the map with the value and the greedy action of each state.

The files go into the run folder, as watch-seed0.mp4 and values-seed0.png, or where --out says; their
paths are the last lines printed."""

EPILOG = """\
examples:
  python -m runners.watch last
  python -m runners.watch pqn-CartPole --seed 3 --episodes 1 --format gif
  python -m runners.watch elsewhere/pqn-CartPole-v1-0123456789 --last --out pictures/pole.mp4

exit status: 0 done, 2 bad input or an environment that cannot be drawn, 4 disk"""

DEFAULT_FPS = 30
EPISODES = 1  # number of the evaluation: other episodes than those that evaluate plays


class Watched(NamedTuple):
    """What was shown, and where."""

    returns: list[float]  # of the episodes in the video
    files: list[Path]
    cut_after: int | None = None  # steps, where an episode did not end by itself
    no_video: str | None = None  # why there is none


def watch(
    run: RunFolder,
    seed: int | None = None,
    *,
    last: bool = False,
    episodes: int = 3,
    out: str | Path | None = None,
    format: str | None = None,
    fps: float | None = None,
) -> Watched:
    """Record a seed's greedy policy.

    Args:
        run: the run folder.
        seed: whose policy; the first seed of the run where none is named.
        last: take the last weights, not the best.
        episodes: how many to record, one after the other.
        out: the folder for the files, or the video's own name, ending in .mp4 or .gif; the run
            folder where nothing is named.
        format: mp4 or gif; mp4 where nothing is named.
        fps: frames a second; the environment's own where none is named.

    Raises:
        BadInput: no such seed, no weights yet, or an environment of which no picture can be made.
    """
    seed = first_seed(run) if seed is None else seed
    video = video_path(run.path if out is None else Path(out), seed, format)
    params = seed_weights(run, seed, last)
    setting = open_setting(run)
    layout, refusal = layout_of(setting), why_no_video(setting)
    if refusal and layout is None:
        raise BadInput(f"{refusal}, and there is no map of what was learned")
    files.make_folder(video.parent)
    watched = Watched([], [], no_video=refusal)
    if layout is not None:
        watched.files.append(video.with_name(f"values-seed{seed}.png"))
        draw_values(setting, params, layout, watched.files[0], f"seed {seed}")
    if refusal:
        return watched
    recorder = Recorder(setting, make_policy(setting, params), seed, fps)
    recorder.record(episodes, video)
    watched.files.append(video)
    return watched._replace(returns=recorder.returns, cut_after=recorder.cut_after)


def video_path(out: Path, seed: int, format: str | None = None) -> Path:
    """Where the video goes: ``out`` itself where it is named like one, else a file in it.

    Raises:
        BadInput: ``out`` is named like a picture or a video of another kind than ``format``.
    """
    kind = mimetypes.guess_type(out.name)[0] or ""
    if out.is_dir() or not kind.startswith(("video/", "image/")):
        return out / f"watch-seed{seed}.{format or 'mp4'}"
    allowed = [".mp4", ".gif"] if format is None else [f".{format}"]
    if out.suffix not in allowed:
        raise BadInput(f"out: got {out}, takes a folder or a file ending in {' or '.join(allowed)}")
    return out


# -- Videos --------------------------------------------------------------------------------------


def why_no_video(setting: Setting) -> str | None:
    """Why nothing renders the environment; None where something does."""
    import gymnasium
    from gymnasium.envs.registration import load_env_creator

    import envs
    from envs.contract import UnsupportedEnv

    env, options = setting.config.env, setting.config.env_options
    spec = gymnasium.registry.get(envs.registered(env))
    if spec is None or spec.entry_point is None:  # a simulator of the lab's own
        try:
            envs.scalar(env, render_mode="rgb_array", **options).close()
        except UnsupportedEnv as error:
            return str(error)
        return None
    entry: Any = spec.entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    modes = getattr(creator, "metadata", {}).get("render_modes", ())
    if "rgb_array" not in modes:
        return f"{env}: cannot be rendered as pictures (its render modes: {', '.join(modes) or 'none'})"
    return None


class Recorder:
    """Plays a policy in one Gymnasium environment and takes a picture of every observation."""

    def __init__(self, setting: Setting, policy: Policy, seed: int, fps: float | None) -> None:
        self.setting, self.policy, self.seed = setting, policy, seed
        self.env = _drawn(setting)
        self.fps = fps or self.env.metadata.get("render_fps") or DEFAULT_FPS
        self.returns: list[float] = []
        self.cut_after: int | None = None

    def record(self, episodes: int, path: Path) -> None:
        """Write the video."""
        from runners.drawing import write_video

        try:
            write_video(self.frames(episodes), path, self.fps)
        finally:
            self.env.close()

    def frames(self, episodes: int) -> Iterator[Array]:
        """The pictures of some episodes, each from its reset to its true end, which stays a while."""
        for index in range(episodes):
            for frame in self._episode(index):
                yield frame
            yield from [frame] * round(self.fps / 2)

    def _episode(self, index: int) -> Iterator[Array]:
        from runners import seeding
        from runners.evaluation import EPISODE_LIMIT, Purpose

        stream = seeding.Stream.EVALUATION
        episode = seeding.integer(self.seed, stream, Purpose.COMMAND, EPISODES, index)
        obs, info = self.env.reset(seed=episode)
        yield self._picture()
        total, steps, first, done = 0.0, 0, True, False
        while not done:
            mask = info.get("action_mask")
            legal = None if mask is None else np.asarray(mask)[None]
            action = self.policy(np.asarray(obs)[None], [first], legal)[0]
            obs, reward, terminated, truncated, info = self.env.step(action)
            yield self._picture()
            total, steps, first = total + float(reward), steps + 1, False
            done = terminated or truncated
            if not done and not self.setting.time_limit and steps >= EPISODE_LIMIT:
                self.cut_after, done = EPISODE_LIMIT, True
        self.returns.append(total)

    def _picture(self) -> Array:
        """A copy: some renderers draw into the same array again."""
        try:
            return np.array(self.env.render(), np.uint8)
        except Exception as error:  # renderers raise whatever their graphics library does
            raise BadInput(
                f"{self.setting.config.env}: cannot be rendered here: {error}"
            ) from error


def _drawn(setting: Setting) -> gymnasium.Env[Any, Any]:
    """The environment as it was trained, options and time limit included, with a renderer."""
    import gymnasium

    import envs

    # pygame looks for a screen and a sound card unless it is told before its import.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    config = setting.config
    try:
        return envs.scalar(config.env, render_mode="rgb_array", **config.env_options)
    except (gymnasium.error.Error, ImportError) as error:
        raise BadInput(f"{config.env}: cannot be rendered here: {error}") from error


# -- Values on the map ---------------------------------------------------------------------------


def layout_of(setting: Setting) -> Layout | None:
    """The map on which the states of the environment lie; None where there is none.

    None too where what the agent knows is no function of the state, so that there is nothing to draw.
    """
    if setting.mdp is None:
        return None
    simulator = setting.simulator(1, 0)
    layout: Layout | None = getattr(simulator.unwrapped, "layout", None)
    simulator.close()
    return layout


def draw_values(setting: Setting, params: Params, layout: Layout, path: Path, whose: str) -> None:
    """Draw a seed's values, in raw reward units, and its policy on the map of the states."""
    from agents import planning
    from runners import drawing, outcome

    config, mdp = setting.config, setting.mdp
    assert mdp is not None  # who has a layout has states
    q, _ = outcome.at_states(setting, params, 1, mdp.num_states)
    drawing.draw_grid(
        path,
        layout,
        q[0] / getattr(config.hyper, "reward_scale", 1.0),
        planning.reachable(mdp),
        drawing.moves(config.env, mdp),
        f"{config.agent} on {config.env}, {whose}",
    )


# -- The command line ----------------------------------------------------------------------------


def _parser() -> RunParser:
    parser = RunParser("runners.watch", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add("--seed", type=at_least(0), metavar="S", help="whose policy (the run's first seed)")
    add("--episodes", type=at_least(1), default=3, metavar="N", help="episodes to record (3)")
    add("--out", metavar="PATH", help="folder, or name of the video (the run folder)")
    add("--format", choices=("mp4", "gif"), help="of the video (mp4)")
    add("--fps", type=at_least(1), metavar="N", help="frames a second (the environment's own)")
    return parser


@command
def main(argv: Sequence[str]) -> int:
    """Read the command line, record, say where it is."""
    asked = _parser().parse_args(argv)
    run = open_run(asked.run)
    from runners.train import torch_set

    with torch_set():
        watched = watch(
            run,
            asked.seed,
            last=asked.last,
            episodes=asked.episodes,
            out=asked.out,
            format=asked.format,
            fps=asked.fps,
        )
    if watched.returns:
        sys.stdout.write(f"returns: {', '.join(map(number, watched.returns))}\n")
    if watched.cut_after:
        sys.stdout.write(f"episodes end after {watched.cut_after:,} steps\n")
    if watched.no_video:
        sys.stdout.write(f"no video of {watched.no_video}\n")
    for path in watched.files:
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    leave(main())
