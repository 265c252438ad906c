"""What DQN and the parts of its family cost, beside Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from runners.measure import Loop, Row, timed, turns

if TYPE_CHECKING:
    from agents.contract import Batch, Loss, LossOut, Network, Noise
    from agents.learner import GradientLearner

FAMILY: dict[str, dict[str, Any]] = {
    "double": {"double": True},
    "dueling": {"dueling": True},
    "munchausen": {"munchausen": True},
    "c51": {"distributional": "c51"},
    "qr": {"distributional": "qr"},
    "iqn": {"distributional": "iqn", "atoms": 32},
    "value rescaling": {"value_rescale": True},
    "prioritized": {"prioritized": True},
    "noisy": {"noisy": True},
    "dropout": {"dropout": 0.1},
    "n-step": {"n_step": 3},
    "rainbow": {
        "double": True, "dueling": True, "distributional": "c51", "prioritized": True, "noisy": True,
        "n_step": 3,
    },
}  # fmt: skip
"""What each switch costs is asked of DQN with nothing else on."""


def family() -> Iterator[Row]:
    """What each switch of DQN adds to an update (MLP 64x64, batch 32), and what those add that are off."""
    plain, bare, *others = turns(
        _updates(), _updates(written_out), *(_updates(**switches) for switches in FAMILY.values())
    )
    yield _times("dqn", plain, "written out, without any switch", bare)
    for name, rate in zip(FAMILY, others, strict=True):
        yield _times(f"and {name}", rate, "dqn", plain)


def written_out(online: Network, target: Network, batch: Batch, noise: Noise) -> LossOut:
    """DQN's loss as one writes it who knows of no switch (Mnih et al. 2015, Algorithm 1): the slow path's twin."""
    import torch
    from torch.nn.functional import huber_loss

    from agents.contract import LossOut

    def values(network: Any, obs: torch.Tensor) -> torch.Tensor:
        for layer in network.trunk:
            obs = layer(obs)
        q: torch.Tensor = network.head(obs)
        return q

    del noise
    q_tm1 = values(online, batch.obs).gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        goal = batch.reward + batch.discount * values(target, batch.next_obs).amax(-1)
        td_error = (goal - q_tm1).abs()
    metrics = {"td_error": td_error, "q_mean": q_tm1.detach(), "target_mean": goal}
    return LossOut(huber_loss(q_tm1, goal, reduction="none"), metrics)


def compiled() -> Iterator[Row]:
    """The same update as one compiled graph, `--compile`."""
    rainbow = FAMILY["rainbow"]
    eager, dqn, all_on = turns(
        _updates(), _updates(compile=True), _updates(compile=True, **rainbow)
    )
    yield _times("dqn --compile", dqn, "dqn", eager)
    yield _times("rainbow --compile", all_on, "dqn --compile", dqn)


def pixels() -> list[Row]:
    """An update of `dqn` on images: 84x84, stacks of 4, the Nature paper's convolutions, batch 32."""
    plain, bf16, small = turns(
        _pixel_updates(), _pixel_updates(bf16=True), _pixel_updates(replay_compression="lz4")
    )
    return [
        Row("dqn on 84x84x4", f"{1e3 / plain:.1f} ms an update", ""),
        Row("and --bf16", f"{1e3 / bf16:.1f} ms", f"dqn: {1e3 / plain:.1f} ms", plain / bf16),
        Row(
            "and --replay-compression lz4", f"{1e3 / small:.1f} ms", f"dqn: {1e3 / plain:.1f} ms",
            plain / small,
        ),
    ]  # fmt: skip


def _pixel_updates(**settings: Any) -> Callable[[], float]:
    """What measures updates a second, sampling included, on frames that were never played."""
    learner = pixel_learner(**settings)

    def updates() -> None:
        for _ in range(10):
            learner.update()

    updates()
    return lambda: timed(updates, 10)


def pixel_learner(**settings: Any) -> GradientLearner:
    """DQN with the Nature paper's network, its replay full of frames that were never played."""
    import torch

    from agents.contract import Rollout
    from agents.dqn import DQNConfig, make_learner
    from envs.contract import Spec

    lanes, rows, rng = 8, 200, np.random.default_rng(0)
    spec = Spec((84, 84), np.dtype(np.uint8), 0, 4, obs_scale=1 / 255)
    config = DQNConfig(
        **{"hidden": (512,), "frame_stack": 4, "batch_size": 32, "lr": 1e-4, **settings}
    )
    seeds, generators = [np.random.SeedSequence(0)], [np.random.default_rng(0)]
    learner = make_learner(config, spec, lanes, seeds, generators, torch.device("cpu"))
    frames = np.repeat(rng.integers(256, size=(rows + 1, lanes, 84, 7), dtype=np.uint8), 12, -1)
    first, none = np.zeros((rows + 1, lanes), bool), np.zeros((rows, lanes))
    action = rng.integers(4, size=none.shape)
    learner.observe(Rollout(frames, first, action, none, none > 0, none > 0))
    return learner


def _times(what: str, rate: float, other: str, other_rate: float) -> Row:
    """An update's time beside another's; the first round of a compiled one compiles too."""
    against = f"{other}: {1e6 / other_rate:,.0f} µs"
    return Row(what, f"{1e6 / rate:,.0f} µs", against, other_rate / rate)


def _updates(loss: Loss | None = None, **settings: Any) -> Callable[[], float]:
    """What measures updates a second of DQN with these settings, or with another loss."""
    from runners.resolve import make_config

    config = make_config(
        "dqn", "CartPole-v1", **{
            "batch_size": 32, "n_step": 1, "layer_norm": False, "double": False, "lanes": 8,
            "replay_ratio": 0.5, "rollout_length": 16, "steps": 10**6, **settings,
        },
    )  # fmt: skip
    loop = Loop(config, 1)
    if loss is not None:
        loop.learner.loss = loss  # type: ignore[attr-defined]
    loop.run(20)
    return lambda: timed(lambda: loop.update(200), 200)


def sb3() -> list[Row]:
    """Network, batch and replay ratio of Stable-Baselines3's DQN; environment steps a second."""
    rows = []
    for hidden in ((64, 64), (256, 256)):
        ours = _ours(hidden)
        single, eight = _theirs(hidden, 1), _theirs(hidden, 8)
        mine, one, many = turns(ours, single, eight)
        name = f"dqn {hidden[0]}x{hidden[1]}, batch 64, an update every 2 steps"
        rows.append(Row(name, f"{mine:,.0f} steps/s", f"SB3, 1 env: {one:,.0f}", mine / one))
        rows.append(Row("", "", f"SB3, 8 envs: {many:,.0f}", mine / many))
    return rows


def _ours(hidden: tuple[int, ...]) -> Callable[[], float]:
    from runners.resolve import make_config

    config = make_config(
        "dqn", "CartPole-v1", hidden=hidden, n_step=1, layer_norm=False, double=False,
        batch_size=64, replay_ratio=0.5, learning_starts=1_000, lanes=8, rollout_length=16, steps=10**6,
    )  # fmt: skip
    loop = Loop(config, 1)
    loop.run(20)
    return lambda: timed(lambda: loop.run(10), 10 * 16 * 8)


def _theirs(hidden: tuple[int, ...], envs: int) -> Callable[[], float]:
    """SB3 with ``envs`` environments; the same updates a step."""
    from stable_baselines3 import DQN
    from stable_baselines3.common.env_util import make_vec_env

    # train_freq counts calls of the vector environment, gradient_steps updates after them
    frequency, updates = (2, 1) if envs == 1 else (1, envs // 2)
    model = DQN(
        "MlpPolicy", make_vec_env("CartPole-v1", envs), learning_starts=1_000, batch_size=64,
        train_freq=frequency, gradient_steps=updates, policy_kwargs={"net_arch": list(hidden)},
        device="cpu",
    )  # fmt: skip
    model.learn(1_600)
    return lambda: timed(lambda: model.learn(1_280, reset_num_timesteps=False), 1_280)
