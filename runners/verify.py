"""``train --verify-resume``: does this very configuration go on to the same bits after a kill?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from runners import checkpoint
from runners.config import AGENTS, RunConfig, run_name, to_json
from runners.errors import BadInput, RunFailed
from runners.options import Options
from runners.run_folder import RunFolder
from runners.state_tree import digest_jsonl

KILL_AT = 0.6  # of the records that the whole run writes


def verify_resume(config: RunConfig, options: Options) -> int:
    """Train without a stop; train, die by SIGKILL on the way, go on; compare all that is left.

    Compared are the newest checkpoint (all tensors, states, replay rows), metrics and evaluations,
    without seconds and rates. Returns the exit status: 0 for the same bits, 1 where they differ.

    Raises:
        RunFailed: one of the runs failed by itself.
        BadInput: no two runs of the configuration have the same bits.
    """
    if AGENTS[config.agent].own_loop:
        raise BadInput(
            f"verify_resume: {config.agent} cannot go on where it stopped: it begins again; leave it out"
        )
    if config.async_:
        raise BadInput(
            "verify_resume: async workers go at their own pace, no two runs have the same bits; leave "
            "--async out"
        )
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as scratch:
        whole, resumed = Path(scratch, "whole"), Path(scratch, "resumed")
        settings = Path(scratch, "config.json")
        settings.write_text(json.dumps(to_json(config)))
        name = run_name(config)
        _say("1/3 training without a stop ...")
        _train(settings, options, whole)
        lines = _lines(RunFolder(whole / name))
        at = max(2, int(KILL_AT * lines))
        _say(f"2/3 training, killed by SIGKILL at record {at} of {lines} ...")
        _train(settings, options, resumed, kill_at=at)
        _say("3/3 going on ...")
        _train(settings, options, resumed)
        differing = compare(RunFolder(whole / name), RunFolder(resumed / name))
    for what in differing:
        sys.stdout.write(f"differs: {what}\n")
    if not differing:
        sys.stdout.write("the resumed run has the same bits\n")
    return 1 if differing else 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _train(settings: Path, options: Options, out: Path, kill_at: int = 0) -> None:
    """One training in a process of its own; with ``kill_at`` it kills itself at that record."""
    command = [
        sys.executable, "-m", "runners.train", "--config", str(settings), "--quiet",
        "--seeds", str(options.seeds), "--seed", str(options.seed), "--out", str(out),
        "--workers", str(options.workers), "--replay-device", options.replay_device,
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "QLAB_FAULT"}
    if kill_at:
        environment["QLAB_FAULT"] = f"line.write:{kill_at}"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != (-signal.SIGKILL if kill_at else 0):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunFailed(f"training ended with status {done.returncode}: {last}")


def _lines(run: RunFolder) -> int:
    """Records that a run has written, one after the other."""
    per_seed = (
        sum(len(read().records) for read in (of.read_metrics, of.read_evals, of.read_health))
        for of in map(run.seed, run.seeds())
    )
    return len(run.provenance()) + sum(per_seed)


def compare(a: RunFolder, b: RunFolder) -> list[str]:
    """What differs between two runs of one configuration; empty for the same bits."""
    if a.seeds() != b.seeds() or a.groups() != b.groups():
        return ["the seeds that were trained"]
    differing = []
    for group in a.groups():
        one, other = (checkpoint.load_newest(run, group, read_only=True) for run in (a, b))
        assert one is not None
        assert other is not None
        if checkpoint.digest(one) != checkpoint.digest(other):
            differing.append(f"the last checkpoint of seeds {group}")
    for seed in a.seeds():
        for name in ("metrics", "evals", "health"):
            paths = (getattr(run.seed(seed), name) for run in (a, b))
            one_digest, other_digest = (digest_jsonl(path) for path in paths)
            if one_digest != other_digest:
                differing.append(f"seed {seed}'s {name}.jsonl")
    return differing
