"""Flags under the names that other libraries, and other agents here, give them."""

from __future__ import annotations

from collections.abc import Mapping

OTHER_NAMES: Mapping[str, str] = {
    "learning-rate": "lr",
    "discount": "gamma",
    "buffer-size": "replay-size",
    "num-envs": "lanes",
    "n-envs": "lanes",
    "total-timesteps": "steps",
    "timesteps": "steps",
    "net-arch": "hidden",
    "num-steps": "rollout-length",
    "tau": "target-tau",
    "exploration-final-eps": "epsilon-end",
    "lr": "learning-rate",
    "replay-size": "buffer-size",
    "hidden": "net-arch",
    "target-tau": "tau",
    "target-period": "target-update-interval",
    "epsilon-end": "exploration-final-eps",
    "lambda-": "gae-lambda",
}
"""What other libraries call a flag, where no likeness would find it."""
