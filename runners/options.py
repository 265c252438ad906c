"""What of a command of `runners.train` does not enter the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from agents.hyper import at_least, check_value, kinds
from runners.errors import BadInput

TRAIN_ALONE = ("fresh", "replay_device", "resume", "tensorboard", "verify_resume", "workers")
"""Options that commands which train many runs do not take."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a run is made and where it goes; none of it changes a bit."""

    seeds: Annotated[int, at_least(1)] = 5
    """how many seeds to train"""
    seed: Annotated[int, at_least(0)] = 0
    """the first of them"""
    out: str = "runs"
    """parent of run folders"""
    config: str = ""
    """JSON or TOML file with settings, as a run folder's config.json"""
    resume: str = ""
    """go on with this run: a path, the beginning of a folder's name, or last"""
    fresh: bool = False
    """begin anew; an older folder is moved aside"""
    verify_resume: bool = False
    """train twice, once with a stop in between, and compare the bits"""
    workers: Annotated[int, at_least(0)] = 0
    """processes that simulate, at lag 1 unless --lag says 0; 0: this process simulates"""
    ray: str = ""
    """Ray cluster that the workers run on, --async: auto, HOST:PORT, or local, a node of its own"""
    replay_device: Literal["auto", "host", "device", "disk"] = "auto"
    """where a replay keeps observations: host, the learner's device, or disk, for more than memory holds;
    auto: the device where it is a GPU with room, else the host"""
    tensorboard: bool = False
    """write TensorBoard files too"""
    quiet: bool = False
    """print only the run folder's path"""

    def __post_init__(self) -> None:
        """Refuse wrong types and what excludes each other."""
        for name, kind in kinds(Options).items():
            check_value(name, getattr(self, name), kind)
        if not self.out:
            raise BadInput("out: got an empty text, takes a folder, as in --out runs")
        for other in ("fresh", "config"):
            if self.resume and getattr(self, other):
                raise BadInput(f"resume: takes the run as it is; leave --{other} out")

    def refuse(self, names: Sequence[str], command: str) -> None:
        """Of these, whatever is not as it is by default is not for ``command``."""
        for name in names:
            if getattr(self, name) != getattr(Options(), name):
                flag = f"--{name.replace('_', '-')}"
                raise BadInput(f"{flag}: is for train, not for {command}; leave it out")
