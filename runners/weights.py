"""The weights of one seed as one file: what `evaluate`, `watch` and `load_policy` act with."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from agents.contract import Params
from runners import files
from runners.errors import BadInput, disk
from runners.state_tree import digest_state

FILE = "weights.safetensors"


def save_weights(folder: Path, params: Params) -> None:
    """Replace the weights in ``folder`` in one step; ``params`` holds one seed."""
    head = {
        "version": params.version,
        "lane_steps": params.lane_steps,
        "scalars": dict(params.scalars),
        "sha256": digest_state(dict(params.tensors)),
    }
    with disk(folder):
        folder.mkdir(exist_ok=True)
        data = save(dict(params.tensors), metadata={"params": json.dumps(head)})
        files.replace(folder / FILE, data, "weights")


def load_weights(folder: Path) -> Params:
    """The weights in ``folder``.

    Raises:
        BadInput: there are none, or their bits are not those that were saved.
    """
    path = folder / FILE
    try:
        with safe_open(path, framework="pt") as opened:
            head = json.loads((opened.metadata() or {})["params"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise BadInput(f"{path}: not there yet; train this run first") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise BadInput(f"{path}: damaged ({error}); train the run again with --fresh") from error
    if digest_state(tensors) != head["sha256"]:
        raise BadInput(f"{path}: damaged (its hash differs); train the run again with --fresh")
    return Params(head["version"], head["lane_steps"], tensors, head["scalars"])


def stack(seeds: list[Params]) -> Params:
    """Several seeds' weights as one group's."""
    import torch

    names = seeds[0].tensors
    tensors = {name: torch.cat([params.tensors[name] for params in seeds]) for name in names}
    # ε and the like belong to exploration; greedy episodes do not look at them
    return Params(seeds[0].version, seeds[0].lane_steps, tensors, seeds[0].scalars)
