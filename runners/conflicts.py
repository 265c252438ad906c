"""Settings of a run that do not go together: each refused with the reason and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from runners.errors import BadInput

if TYPE_CHECKING:
    from agents import AgentEntry
    from runners.config import RunConfig

    Agents = Mapping[str, AgentEntry]


def check(config: RunConfig, agents: Agents) -> None:
    """Refuse what cannot be run.

    Args:
        config: settings, each of which is right by itself.
        agents: all there are.

    Raises:
        BadInput: two settings contradict each other, or the agent cannot do what is asked.
    """
    _check_blocks(config, agents)
    _check_source(config, agents)
    _check_async(config)
    _check_sequences(config)
    _check_compile(config, agents)
    _check_actor_device(config, agents)
    _check_learners(config, agents)


def _check_blocks(config: RunConfig, agents: Agents) -> None:
    if agents[config.agent].one_lane and config.lanes != 1:
        raise BadInput(
            f"lanes: got {config.lanes}, takes 1: {config.agent} learns from one stream of steps a seed; for "
            "more of them take more --seeds"
        )
    if config.lanes % config.block_size:
        raise BadInput(
            f"block_size: got {config.block_size}, takes a divisor of lanes = {config.lanes}"
        )


def _check_source(config: RunConfig, agents: Agents) -> None:
    tabular = agents[config.agent].tabular
    if config.source == "fused":
        if not agents[config.agent].fused:
            raise BadInput(f"source: fused is for tabular agents; {config.agent} takes local")
        if config.backend != "tabular":
            raise BadInput(f"source: fused needs backend tabular, got {config.backend}; take local")
        if config.block_size != config.lanes:
            raise BadInput(f"block_size: a fused source has one block, of all {config.lanes} lanes")
        if config.ahead:
            raise BadInput("lag: got 1, takes 0: a fused source acts with the newest table")
    elif config.source == "ray" and not config.async_:
        raise BadInput(
            "async: got false, takes true: workers of a Ray cluster do not wait for each other"
        )
    elif tabular and config.rollout_length != 1:
        raise BadInput(
            f"rollout_length: got {config.rollout_length}, takes 1: a tabular agent learns at every "
            "step unless its source is fused"
        )


def _check_async(config: RunConfig) -> None:
    if config.async_ and (config.lag or not config.max_lag):
        wrong = (
            f"lag: got {config.lag}, takes 0" if config.lag else "max_lag: got 0, takes 1 or more"
        )
        raise BadInput(f"{wrong}: async workers may be up to max_lag rollouts ahead")
    if config.max_lag and not config.async_:
        raise BadInput(
            f"max_lag: got {config.max_lag}, is for --async; in lockstep it is --lag 0 or 1"
        )


def _check_sequences(config: RunConfig) -> None:
    length = getattr(config.hyper, "sequence_length", 0)
    if getattr(config.hyper, "memory", "none") != "none" and 0 < length < config.rollout_length:
        raise BadInput(
            f"rollout_length: got {config.rollout_length}, takes at most sequence_length = {length}: a "
            "sequence begins where a rollout does, and rows between two would never be learned"
        )


def _check_compile(config: RunConfig, agents: Agents) -> None:
    if not config.compile:
        return
    if config.device == "cuda":
        if not agents[config.agent].records:
            raise BadInput(
                f"compile: {config.agent}'s step is not recorded as a CUDA graph; --no-compile"
            )
        return
    if not agents[config.agent].compiles:
        able = [name for name, entry in agents.items() if entry.compiles]
        raise BadInput(f"compile: {config.agent}'s step is not compiled; {', '.join(able)} take it")
    if getattr(config.hyper, "memory", "none") != "none":
        raise BadInput("compile: a memory is unrolled, too long a graph to compile; --no-compile")
    if config.hyper.warmup_steps:
        raise BadInput("compile: a learning rate that rises would be compiled anew; --no-compile")


def _check_learners(config: RunConfig, agents: Agents) -> None:
    if config.learners == 1:
        return
    if not agents[config.agent].joins:
        able = [name for name, entry in agents.items() if entry.joins]
        raise BadInput(
            f"learners: got {config.learners}, takes 1: gradients are averaged, which {config.agent} does not "
            f"do; {', '.join(able)} learn together"
        )
    if config.compile:
        raise BadInput("compile: gradients are averaged in the middle of a step; --no-compile")
    if hasattr(config.hyper, "replay_size") and config.hyper.memory != "none":
        raise BadInput(
            f"memory: got {config.hyper.memory}, takes none with several learners: a batch of sequences counts "
            "by the rows that are valid in it, and each learner's are others"
        )


def _check_actor_device(config: RunConfig, agents: Agents) -> None:
    if config.actor_device == "cpu":
        return
    if config.device == "cpu" or not agents[config.agent].records:
        why = "the learner computes on the cpu" if config.device == "cpu" else "it acts on the cpu"
        raise BadInput(f"actor_device: got cuda, takes cpu for {config.agent}: {why}")
