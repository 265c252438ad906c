"""A sweep's trial that trains nothing: ``toy.py RUN FIRST LAST UNTIL`` makes scores up and writes them.

They are a function of the settings and the seed, highest at lr = 0.001 and small n_step. What n_step is
may also say what goes wrong: see `MISHAPS`. Started without a site, it takes 20 ms.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

DIVERGES, HANGS, DIES_ONCE, FULL = 91, 92, 93, 94
MISHAPS = {DIVERGES, HANGS, DIES_ONCE, FULL}


def score(hyper, seed, share=1.0):
    """What the last weights would bring, or those after a share of the steps."""
    luck = math.sin(1e5 * hyper["lr"] + 7.3 * seed)
    return share * (100 - 20 * abs(math.log10(hyper["lr"]) + 3) - hyper["n_step"] + 5 * luck)


def main():
    run, first, last, until = Path(sys.argv[1]), *map(int, sys.argv[2:])
    config = json.loads((run / "config.json").read_text())
    steps, every, n_step = config["steps"], config["eval_every"], config["hyper"]["n_step"]
    if n_step == DIVERGES:
        sys.exit("error: the loss was not finite")
    if n_step == HANGS and not (run.parent / "well").exists():
        time.sleep(1000)
    if n_step == FULL:
        sys.stderr.write("error: no space left on the device\n")
        sys.exit(4)
    if n_step == DIES_ONCE and not (run / "died").exists():
        (run / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    for seed in range(first, last + 1):
        folder = run / f"seed-{seed}"
        folder.mkdir(exist_ok=True)
        lines = [
            {"lane_steps": at, "mean": score(config["hyper"], seed, at / steps)}
            for at in range(every, until + 1, every)
        ]
        (folder / "evals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if until == steps:
            result = {"seed": seed, "final_returns": [score(config["hyper"], seed)]}
            (folder / ".tmp").write_text(json.dumps(result))
            (folder / ".tmp").rename(folder / "result.json")
    with (run.parent / "trained").open("a") as log:  # who got to the end
        log.write(f"{run.name} {first} {last} {until}\n")


if __name__ == "__main__":
    main()
