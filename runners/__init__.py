"""Running things: commands, processes, files. What a program needs of a run is here.

::

    import runners

    policy = runners.load_policy("last")
    action = policy(obs)                      # obs [N, ...] -> actions [N], greedy
    for run in runners.results("last"):
        print(run["summary"]["best_return"]["mean"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runners.policy import Policy, load_policy, results

__all__ = ["Policy", "load_policy", "results"]


def __getattr__(name: str) -> Any:
    # Looked up when it is asked for: every command imports this package, and --help needs no torch.
    if name in __all__:
        from runners import policy

        return getattr(policy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
