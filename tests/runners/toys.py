"""Two agents that exist in tests only, so that configurations can be tested without a real one."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from agents import AGENTS, AgentEntry
from agents.hyper import BadValue, at_least, check, positive, unit
from runners.errors import BadInput
from runners.resolve import make_config


@dataclass(frozen=True)
class ToyConfig:
    """A toy agent."""

    lr: Annotated[float, positive()] = 1e-3
    """step size"""
    n_step: Annotated[int, at_least(1)] = 1
    """length of the window"""
    lambda_: Annotated[float, unit()] = 0.9
    """trace"""
    double: bool = True
    """two estimators"""
    rule: Literal["mean", "max"] = "mean"
    """how to join them"""
    hidden: tuple[Annotated[int, at_least(1)], ...] = (64, 64)
    """widths"""

    def __post_init__(self) -> None:
        check(self)
        if self.n_step == 13:
            raise ValueError("n_step: got 13, takes anything else")


@pytest.fixture
def toys(monkeypatch):
    """Two agents of this file: one deep, one tabular."""
    monkeypatch.setitem(AGENTS, "toy", AgentEntry(__name__, "ToyConfig", "a toy", "nobody 2000"))
    entry = AgentEntry(__name__, "ToyConfig", "a toy", "nobody 2000", tabular=True)
    monkeypatch.setitem(AGENTS, "toytable", entry)


def toy(**changes):
    return make_config("toy", **{"steps": 1000, "device": "cpu", **changes})


REFUSED = (BadInput, BadValue)
