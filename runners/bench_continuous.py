"""``python -m runners.bench continuous``: SAC on HalfCheetah beside Stable-Baselines3's, and its family.

The bound is what the matrix products of an update take when each is done again and again: nothing else,
and everything in the nearest cache.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from runners.measure import Loop, Row, timed, turns

ENV = "HalfCheetah-v5"
OBS, ACTIONS, WIDTH, BATCH = 17, 6, 256, 256
STEPS = 40  # in a round
STARTS = 300  # lane steps before the first update
FAMILY = ("crossq", "tqc", "redq", "droq", "td3", "ddpg", "naf")


def continuous() -> Iterator[Row]:
    """The whole loop and the update of SAC, the bound of its products, and the family's updates."""
    theirs = _sb3()
    ours = {
        "float32": _loop("sac"),
        "float32, --lag 1": _loop("sac", lag=1),
        "bf16": _loop("sac", bf16=True),
        "bf16, --lag 1": _loop("sac", bf16=True, lag=1),
    }
    loops = [_steps(loop) for loop in ours.values()]
    whole = turns(lambda: timed(lambda: _go_on(theirs), STEPS), *loops)
    for name, rate in zip(ours, whole[1:], strict=True):
        yield Row(
            f"sac, {ENV}, steps a second, {name}", f"{rate:.1f}", f"SB3: {whole[0]:.1f}", rate / whole[0]
        )  # fmt: skip
    kinds = ("float32", "bf16")
    updates = [_updates(ours[kind]) for kind in kinds]
    alone = turns(lambda: timed(lambda: theirs.train(STEPS, BATCH), STEPS), *updates)
    for name, rate in zip(kinds, alone[1:], strict=True):
        yield Row(
            f"sac, updates a second, {name}", f"{rate:.1f}", f"SB3: {alone[0]:.1f}", rate / alone[0]
        )
    yield from _bounds(ours["float32"])
    yield from _family(ours["float32"])


def _family(sac: Loop) -> Iterator[Row]:
    same = {"replay_ratio": 1.0, "batch_size": BATCH, "hidden": (WIDTH, WIDTH)}
    others = {name: _loop(name, **same) for name in FAMILY}
    rates = turns(_updates(sac), *[_updates(loop) for loop in others.values()], rounds=3)
    for name, rate in zip(others, rates[1:], strict=True):
        yield Row(
            f"{name}, time of an update", f"{1e3 / rate:.2f} ms", f"sac: {1e3 / rates[0]:.2f} ms",
            rates[0] / rate,
        )  # fmt: skip


class Product(NamedTuple):
    """``copies`` products of [rows, inner] and [inner, columns]; which side is transposed in memory."""

    copies: int
    rows: int
    inner: int
    columns: int
    turned: str = ""  # "left" or "right"
    times: int = 1


def products() -> list[Product]:
    """All matrix products of an update of SAC with two critics and two hidden layers."""
    policy = [(OBS, WIDTH), (WIDTH, WIDTH), (WIDTH, 2 * ACTIONS)]
    critic = [(OBS + ACTIONS, WIDTH), (WIDTH, WIDTH), (WIDTH, 1)]
    found = []
    for copies, layers, forward, of_weights, of_inputs in (
        (1, policy, 2, 1, 1),  # the next action, then its own
        (2, critic, 3, 1, 2),  # target, prediction, the policy's action; gradients of the last two
    ):
        for i, (inputs, outputs) in enumerate(layers):
            found.append(Product(copies, BATCH, inputs, outputs, times=forward))
            found.append(Product(copies, inputs, BATCH, outputs, "left", of_weights))
            # the first layer's inputs are learned by the policy alone
            to_inputs = of_inputs - 1 if i == 0 else of_inputs
            found.append(Product(copies, BATCH, outputs, inputs, "right", to_inputs))
    return [product for product in found if product.times]


def _bounds(loop: Loop) -> Iterator[Row]:
    import torch

    seconds, flops = 0.0, 0.0
    for product in products():
        copies, rows, inner, columns, turned, times = product
        left = torch.randn(copies, *((inner, rows) if turned == "left" else (rows, inner)))
        right = torch.randn(copies, *((columns, inner) if turned == "right" else (inner, columns)))
        left = left.mT if turned == "left" else left
        right = right.mT if turned == "right" else right
        (rate,) = turns(_again(left, right))
        seconds += times / rate
        flops += 2.0 * copies * rows * inner * columns * times
    (update,) = turns(_updates(loop))
    yield Row(
        "sac, its products alone, a second", f"{1.0 / seconds:.1f}",
        f"{flops / 1e6:.0f} MFLOP, {flops / seconds / 1e9:.0f} GFLOP/s",
    )  # fmt: skip
    yield Row(
        "sac, an update, of that bound", f"{update:.1f}", f"bound: {1.0 / seconds:.1f}", update * seconds
    )  # fmt: skip


def _again(left: Any, right: Any) -> Callable[[], float]:
    import torch

    count = 20
    return lambda: timed(lambda: [torch.bmm(left, right) for _ in range(count)], count)


def _loop(agent: str, **settings: Any) -> Loop:
    """A loop that has begun to learn."""
    from runners.resolve import make_config

    config = make_config(
        agent, ENV, steps=10**6, learning_starts=STARTS, replay_size=100_000, **settings
    )
    loop = Loop(config, 1)
    loop.run(STARTS + 10)
    return loop


def _steps(loop: Loop) -> Callable[[], float]:
    return lambda: timed(lambda: loop.run(STEPS), STEPS)


def _updates(loop: Loop) -> Callable[[], float]:
    return lambda: timed(lambda: loop.update(STEPS), STEPS)


def _sb3() -> Any:
    """Stable-Baselines3's SAC as it is out of the box, which has these networks, batch and ratio."""
    import gymnasium
    from stable_baselines3 import SAC

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SAC(
            "MlpPolicy", gymnasium.make(ENV), learning_starts=STARTS, buffer_size=100_000, device="cpu"
        )  # fmt: skip
        model.learn(STARTS + 10)
    return model


def _go_on(model: Any) -> None:
    model.learn(STEPS, reset_num_timesteps=False)
