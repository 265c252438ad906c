"""What a learner does in tests of several: run as ``python -m tests.runners.joining FOLDER``, one process each.

The batches are handed in, so that a single learner can be given all of them in one.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from agents import dqn, pqn
from agents.contract import Batch
from envs.contract import Spec
from runners.errors import RunFailed, WorkerLost
from runners.files import dump
from runners.team import Team, place
from runners.team_group import begin, check_same

SPEC = Spec((3,), np.float32, 0, 4)
SEEDS, BATCH, STEPS = 2, 24, 6
_SMALL = {"hidden": (16,), "lr": 1e-2}
CASES = {
    "dqn": (dqn, {**_SMALL, "double": True, "dueling": True, "max_grad_norm": 0.05}),
    "prioritized": (
        dqn,
        {**_SMALL, "prioritized": True, "distributional": "c51", "layer_norm": True},
    ),
    "munchausen": (
        dqn,
        {**_SMALL, "munchausen": True, "distributional": "qr", "atoms": 7, "prioritized": True},
    ),
    "pqn": (pqn, {**_SMALL, "max_grad_norm": 0.5}),
    "lamb": (dqn, {**_SMALL, "optimizer": "lamb", "lr_scaling": "sqrt", "reference_batch": 12}),
    "lars": (pqn, {**_SMALL, "optimizer": "lars", "lr": 1.0, "minibatch_size": BATCH}),
}


def make(name, batch_size=BATCH):
    module, hyper = CASES[name]
    config = (dqn.DQNConfig if module is dqn else pqn.PQNConfig)(**hyper)
    size = "batch_size" if module is dqn else "minibatch_size"
    config = type(config)(**{**hyper, size: batch_size})
    seeds = [np.random.SeedSequence([k, 1]) for k in range(SEEDS)]
    generators = [np.random.default_rng([k, 2]) for k in range(SEEDS)]
    return module.make_learner(config, SPEC, 4, seeds, generators, torch.device("cpu"))


def batches(rank, weighted):
    """Those of a learner; importance weights are over the largest of its own batch, which is told."""
    draw = torch.Generator().manual_seed(100 + rank)
    shape = (SEEDS, BATCH)
    for _ in range(STEPS):
        weight = torch.rand(shape, generator=draw) * (1 + 3 * rank) + 0.1
        heaviest = weight.amax(1, keepdim=True)
        yield Batch(
            obs=torch.randn(*shape, 3, generator=draw),
            action=torch.randint(0, 4, shape, generator=draw),
            reward=torch.randn(shape, generator=draw),
            discount=torch.rand(shape, generator=draw),
            next_obs=torch.randn(*shape, 3, generator=draw),
            weight=weight / heaviest if weighted else None,
            extras={"returns": torch.randn(shape, generator=draw), "heaviest": heaviest},
        )


def learn(name, team):
    """The parameters after all steps, and the loss of the last."""
    made = make(name)
    if team.place.rank:  # whatever another one drew, all begin with the first one's
        made.online.flat.mul_(2.0)
    begin(made, team)
    for batch in batches(team.place.rank, CASES[name][1].get("prioritized", False)):
        made.step(batch, made.draw(batch) if hasattr(made, "draw") else {})
    check_same(made.state_dict(), 0, team)
    return made


def tell_apart(made, team):
    """What is said of parameters that differ in one bit."""
    if team.place.rank:
        flat = made.online.flat.view(torch.int32)
        flat[1, 3] ^= 1
    try:
        check_same(made.state_dict(), 40, team)
    except RunFailed as error:
        return str(error)
    return "nothing"


def main(folder):
    torch.set_num_threads(1)
    team = Team(place(), step_seconds=20.0)
    rank = team.place.rank
    made = {name: learn(name, team) for name in CASES}
    save_file({n: one.online.flat for n, one in made.items()}, folder / f"{rank}.safetensors")
    told = {
        "apart": tell_apart(made["dqn"], team),
        "told": team.tell({"x": [0.1, rank]}),
        "gathered": team.gather(rank),
        "total": team.total(np.array([1.5, rank])).tolist(),
        "agreed": team.agreed(lambda: 15 * rank)(),
    }
    shared, team.exchange = team.exchange, None  # as on several machines
    told["without"] = [
        team.total(np.array([1.5, rank])).tolist(),
        team.largest(torch.tensor([float(rank)])).tolist(),
    ]
    team.exchange = shared
    spoilt = make("pqn")
    begin(spoilt, team)
    batch = next(batches(rank, False))
    if rank:
        batch.extras["returns"][0, 0] = torch.nan
    told["finite"] = bool(spoilt.step(batch, {}).isfinite())
    team.close()
    (folder / f"{rank}.json").write_bytes(dump(told))


def hang(folder):
    """The second learner never comes to the update that the first one waits at."""
    team = Team(place(), step_seconds=2.0, told_seconds=2.0)
    team.total(np.zeros(1))
    if team.place.rank:
        team.store.wait(["over"], timedelta(seconds=30))
        return
    told = []
    waits = [lambda: team.gather(0), lambda: team.average(torch.zeros(1))]
    for number, wait in enumerate([*waits, waits[1]]):
        if number == len(waits):
            team.exchange = None  # as on several machines
        try:
            wait()
        except WorkerLost as error:
            told.append(str(error))
    team.store.set("over", "")
    (folder / "hung.json").write_bytes(dump(told))


if __name__ == "__main__":
    (hang if "hang" in sys.argv else main)(Path(sys.argv[1]))
