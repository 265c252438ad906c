"""How a loss of single rows learns a network with a memory: from sequences.

A sequence is ``burn_in`` rows, which only bring the memory up to date, L rows to be learned, and one more
observation; Kapturowski et al. 2019 (R2D2), section 3. The loss stays what it is: the observations that it
hands to a network are *places* in the sequences, and what it gets back are the outputs there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from agents.contract import Array, Batch, Loss, LossOut, Network, Noise, State
from agents.layers import NO_NOISE
from agents.networks import QNetwork

PEAK = 0.9
"""η, how much a sequence's priority goes by its largest error and not by their mean (R2D2, section 2.3)."""
_STATE = "state."
_TINY = torch.finfo(torch.float32).tiny


def pack(obs: Tensor, first: Tensor, memory: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The extras of a batch of sequences.

    Args:
        obs: [K, T, B, ...].
        first: [K, T, B] bool.
        memory: [K, B, ...] each, before the first row; {}: nothing is remembered then.
    """
    named = {_STATE + name: value for name, value in memory.items()}
    return {"sequence": obs, "sequence_first": first, **named}


def joined_blocks(actor_state: State) -> dict[str, Array]:
    """What an actor of several blocks remembered, side by side: [K, n, ...] each."""
    blocks = [actor_state[str(b)] for b in range(len(actor_state))]
    names = blocks[0] if blocks else ()
    return {name: np.concatenate([block[name] for block in blocks], 1) for name in names}


def unrolled(network: QNetwork, batch: Batch, burn_in: int, noise: Mapping[str, Tensor]) -> Network:
    """The network's outputs over a batch of sequences, as a function of places [K, R] in them.

    Place t B + b is row t of sequence b, the burn-in not counted; ``batch.obs`` holds all of them in order.
    """
    assert network.memory is not None
    obs, first = batch.extras["sequence"], batch.extras["sequence_first"]
    memory: Mapping[str, Tensor] = {
        name.removeprefix(_STATE): value
        for name, value in batch.extras.items()
        if name.startswith(_STATE)
    } or network.memory.initial_state(obs.shape[2])
    if burn_in:
        with torch.no_grad():
            _, memory = network.remember(obs[:, :burn_in], first[:, :burn_in], memory)
    features, _ = network.remember(obs[:, burn_in:], first[:, burn_in:], memory, noise)
    out = network.decode(features, noise)

    def at(places: Tensor, noise: Mapping[str, Tensor] = NO_NOISE) -> Tensor:
        del noise  # it has been drawn for the whole sequence
        if places is batch.obs:
            return out
        index = places.view(*places.shape, *[1] * (out.dim() - 2)).expand(-1, -1, *out.shape[2:])
        return out.gather(1, index)

    return at


def over_sequences(loss: Loss, burn_in: int) -> Loss:
    """The loss of single rows, of sequences: rows that do not count are NaN in metrics."""

    def of_sequences(online: Network, target: Network, batch: Batch, noise: Noise) -> LossOut:
        assert isinstance(online, QNetwork)
        assert isinstance(target, QNetwork)
        with torch.no_grad():
            values = unrolled(target, batch, burn_in, noise.get("target", NO_NOISE))
        prediction = unrolled(online, batch, burn_in, noise.get("online", NO_NOISE))
        out = loss(prediction, values, batch, noise)
        counts = batch.extras["counts"]
        share = counts / counts.mean(-1, keepdim=True).clamp(min=_TINY)
        metrics = {n: value.masked_fill(counts == 0, torch.nan) for n, value in out.metrics.items()}
        priority = None if out.priority is None else sequence_priority(out.priority, batch)
        return LossOut(out.loss * share, metrics, priority)

    return of_sequences


def sequence_priority(error: Tensor, batch: Batch) -> Tensor:
    """``p = η max|δ| + (1 - η) mean|δ|`` over a sequence's rows that count.

    Args:
        error: [K, (L+1) B] at least 0.
        batch: what the errors are of.

    Returns:
        [K, B].

    Source:
        Kapturowski et al. 2019, section 2.3.
    """
    lanes = batch.extras["sequence"].shape[2]
    counts = batch.extras["counts"].view(error.shape[0], -1, lanes)
    counted = error.view(counts.shape) * counts
    mean = counted.sum(1) / counts.sum(1).clamp(min=1.0)
    return PEAK * counted.amax(1) + (1.0 - PEAK) * mean
