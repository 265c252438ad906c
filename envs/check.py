"""Check an environment against the contract of `envs.contract`, and name what is wrong with it.

``python -m envs.check ENV_ID`` steps several copies with random actions and compares them;
`check` does the same for any factory of vector environments, as a test of a new simulator does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NoReturn

import gymnasium
import numpy as np
from rich.console import Console

import envs
from envs import probes
from envs.contract import Array, UnsupportedEnv, VectorSimulator, mdp_of
from envs.simulator import block_seeds
from envs.trace import Broken, Finding, Trace, draws, held, record

Factory = Callable[[int, int], VectorSimulator]
Scalar = tuple[Callable[[], gymnasium.Env[Any, Any]], int]

FEWEST_STEPS = 20
PROBES = {
    "spaces": "spaces are Discrete or Box, resets happen on the next step",
    "runs": "reset and step do not raise",
    "arrays": "returned arrays have the dtypes and shapes of the spaces",
    "facts": "facts are present at every step",
    "numbers": "no NaN, no infinity",
    "range": "observations lie in their space",
    "reset rule": "the step after an end resets, with reward 0 and no flags, whatever the action",
    "time limit": "truncation at the limit, neither before nor after",
    "final observation": "the observation of an end is the true final one",
    "transitions": "every step is one that the transition table allows",
    "scalar twin": "one lane does what Gymnasium's scalar environment does",
    "determinism": "the same seed and actions give the same steps",
    "seed": "the first bare reset uses the kept seed, later ones and other seeds differ",
    "lanes": "lanes have streams of their own",
    "state": "get_state and set_state bring the same steps again",
}


def check(
    factory: Factory,
    lanes: int = 3,
    steps: int = 1000,
    seed: int = 0,
    time_limit: int | None = None,
    scalar: Scalar | None = None,
) -> list[Finding]:
    """Probe the environments that ``factory(num_envs, seed)`` makes.

    Args:
        factory: makes an environment that keeps its seed, like ``envs.make``.
        lanes: lanes to step; from 2 on, lanes are compared with each other.
        steps: steps of each of the about ten runs, at least 20; ends are only checked where they occur.
        seed: of environments and actions.
        time_limit: steps after which episodes have to be truncated, 0 never, None not known.
        scalar: a factory of the scalar environment that a single lane has to equal, and its seed.

    Returns:
        Faults first; then what is only worth knowing. After a wrong type, dtype or shape, or an
        exception, nothing further is probed.
    """
    if steps < FEWEST_STEPS:
        raise ValueError(f"steps: got {steps}, takes at least {FEWEST_STEPS}")
    findings: list[Finding] = []
    try:
        _check(factory, lanes, steps, seed, time_limit, scalar, findings)
    except Broken as broken:
        findings.append(broken.finding)
    return sorted(findings, key=lambda finding: not finding.fault)


def _check(
    factory: Factory,
    lanes: int,
    steps: int,
    seed: int,
    time_limit: int | None,
    scalar: Scalar | None,
    findings: list[Finding],
) -> None:
    """`check`, in the order in which one probe's verdict is needed by the next."""
    with closing(factory(lanes, seed)) as env:
        findings += probes.declared(env)
        if findings:
            return
        uniform = draws(env, steps, seed)
        base = record(env, uniform)
        findings += _judge(base, env, time_limit)
    run = partial(_run, factory, lanes)
    unequal = list(_check_repeats(run, base, uniform, seed))
    findings += unequal
    if not unequal:
        # these compare runs, which says something only of an environment that repeats itself
        findings += _check_seeds(run, base, uniform, seed)
        findings += _check_lane_seeds(factory, lanes, seed)
        other = run(seed, uniform, other_on_ignored=True)
        what = "the step after an end does not ignore its action: another one gives other steps"
        findings += probes.equal("reset rule", base, other, what)
        with closing(factory(lanes, seed)) as env, closing(factory(lanes, seed + 1)) as fresh:
            findings += probes.round_trip(env, fresh, uniform, _behind_an_end(base))
    if scalar is not None:
        make_scalar, scalar_seed = scalar
        with closing(factory(1, seed)) as env, closing(make_scalar()) as twin:
            findings += probes.reference(env, uniform[:, :1], twin, scalar_seed)
    with closing(factory(lanes, seed)) as env:
        findings += _notes(env, uniform, base)
        findings += _not_probed(env, base, time_limit, scalar)


def _run(
    factory: Factory,
    lanes: int,
    made_with: int,
    uniform: Array,
    seed: int | None = None,
    other_on_ignored: bool = False,
    resets: int = 1,
) -> Trace:
    """One environment's life from its making to its end; the last of ``resets`` runs."""
    with closing(factory(lanes, made_with)) as env:
        for _ in range(resets - 1):
            record(env, uniform[:3], seed)
        return record(env, uniform, seed, other_on_ignored)


def _judge(trace: Trace, env: VectorSimulator, time_limit: int | None) -> list[Finding]:
    """All that one trace shows."""
    findings = [
        *probes.values(trace, env.single_observation_space),
        *probes.reset_rule(trace),
        *probes.final_observation(trace),
    ]
    if time_limit is not None:
        findings += probes.time_limit(trace, time_limit)
    mdp = mdp_of(env)
    if mdp is not None:
        findings += probes.outcomes(trace, mdp)
    return findings


def _check_repeats(
    run: Callable[..., Trace], base: Trace, uniform: Array, seed: int
) -> Iterator[Finding]:
    """The same kept seed, or where that fails the same seed given, brings the same steps."""
    if probes.difference(base, run(seed, uniform)) is None:
        return
    one, two = run(seed, uniform, seed=seed), run(seed, uniform, seed=seed)
    given = list(probes.equal("determinism", one, two, "the same seed gives other steps"))
    what = "the first bare reset does not use the seed that the environment was made with"
    yield from given or [Finding("seed", what)]


def _check_seeds(
    run: Callable[..., Trace], base: Trace, uniform: Array, seed: int
) -> list[Finding]:
    """Seeds and lanes decide the stream, and nothing else does."""
    what = f"reset(seed={seed}) and the first bare reset of an environment made with {seed} differ"
    findings = list(probes.equal("seed", base, run(seed + 1, uniform, seed=seed), what))
    alike = np.broadcast_to(uniform[:, :1], uniform.shape)  # the same actions in all lanes
    one, two = run(seed, alike), run(seed + 1, alike)
    seeds_differ = probes.difference(one, two) is not None
    lanes = one.reward.shape[1]
    lanes_differ = any(probes.difference(one.lanes(0), one.lanes(i)) for i in range(1, lanes))
    if lanes_differ and not seeds_differ:
        what = f"seeds {seed} and {seed + 1} give the same steps: the seed is ignored"
        findings.append(Finding("seed", what))
    elif seeds_differ and not lanes_differ and lanes > 1:
        findings.append(Finding("lanes", "all lanes do the same for the same actions"))
    elif not seeds_differ:
        findings.append(Finding("seed", "nothing random was seen", fault=False))
        findings.append(Finding("lanes", "not probed: nothing random was seen", fault=False))
    elif probes.difference(one, run(seed, alike, resets=2)) is None:
        findings.append(
            Finding("seed", "the second bare reset begins the kept seed's stream again")
        )
    return findings


def _check_lane_seeds(factory: Factory, lanes: int, seed: int) -> Iterator[Finding]:
    """An integer means seed + i for lane i where lanes are separate; a list gives each its own."""
    with closing(factory(lanes, seed)) as env:
        if not getattr(env, "separate_lanes", False):
            what = "one generator serves all lanes: reset takes one integer as its seed"
            yield Finding("seed", what, fault=False)
            return
        by_integer, _ = env.reset(seed=seed)
        kept = np.copy(by_integer)
        one_each: Any = [seed + i for i in range(lanes)]
        by_list, _ = env.reset(seed=one_each)
        unequal = (kept != by_list).reshape(lanes, -1).any(axis=1)
        if unequal.any():
            what = f"reset(seed={seed}) is not reset(seed=[{seed}, {seed + 1}, ...])"
            yield Finding("seed", what, lane=int(unequal.argmax()), step=0)


def _behind_an_end(trace: Trace) -> int:
    """A step from the second quarter, one that ends an episode where there is one.

    That a lane is about to be reset is the part of a state that is most easily forgotten.
    """
    steps = len(trace.reward)
    ends = np.flatnonzero(trace.done[steps // 4 : steps // 2].any(axis=1))
    return steps // 4 + int(ends[0]) + 1 if ends.size else steps // 2


def _notes(env: VectorSimulator, uniform: Array, base: Trace) -> Iterator[Finding]:
    """What is no fault, but good to know."""
    for name in held(env, uniform[:50]):
        what = f"{name} is written to by later steps: who keeps it has to copy it"
        yield Finding("aliasing", what, fault=False)
    if not hasattr(env, "get_state"):
        what = "no get_state: an interrupted run begins new episodes at checkpoints"
        yield Finding("state", what, fault=False)
    if not base.done.any():
        what = f"no episode ended in {len(base.reward)} steps: resets were not probed"
        yield Finding("reset rule", what, fault=False)
        yield Finding("final observation", "not probed: no episode ended", fault=False)


def _not_probed(
    env: VectorSimulator, base: Trace, time_limit: int | None, scalar: Scalar | None
) -> Iterator[Finding]:
    """What this environment gives no means to probe: silence must not look like approval."""
    if time_limit is None:
        yield Finding("time limit", "not probed: none is known", fault=False)
    if mdp_of(env) is None:
        yield Finding("transitions", "not probed: there is no transition table", fault=False)
    if scalar is None:
        yield Finding("scalar twin", "not probed: there is no scalar environment", fault=False)
    if base.reward.shape[1] == 1:
        yield Finding("lanes", "not probed: there is one lane", fault=False)


def check_id(
    env_id: str,
    backend: str = "auto",
    lanes: int = 3,
    steps: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """`check` of what ``envs.make`` gives for an id; by default enough steps for two time limits.

    ``options`` are the environment's.

    Raises:
        UnsupportedEnv: there is no such id or backend.
    """
    resolved, options = envs.resolve_backend(env_id, backend), options or {}

    def factory(num_envs: int, seed: int) -> VectorSimulator:
        return envs.make(env_id, num_envs, seed, resolved, **options)

    limit, name = envs.time_limit(env_id, **options), envs.registered(env_id)
    scalar = None
    spec = gymnasium.registry.get(name)
    # EnvPool draws from generators of its own, which no scalar environment has
    if spec is not None and spec.entry_point is not None and resolved != "envpool":
        with closing(factory(1, seed)) as env:
            seeds = block_seeds(env, seed)
        scalar = (
            partial(envs.scalar, name, **options),
            seeds if isinstance(seeds, int) else seeds[0],
        )
    # an id without a registered limit may truncate by itself; a table says that it never does
    known = limit if limit or resolved == "tabular" else None
    return check(factory, lanes, steps or default_steps(limit), seed, known, scalar)


def default_steps(limit: int) -> int:
    """Two episodes up to the time limit and their resets, between 500 and 2,500 steps."""
    return min(max(500, 2 * limit + 2), 2500)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    try:
        options = _parser().parse_args(arguments)
    except UnsupportedEnv as error:
        sys.stderr.write(f"envs.check: {error}\n")
        return 2
    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        backend = envs.resolve_backend(options.env_id, options.backend)
        findings = check_id(options.env_id, backend, options.lanes, options.steps, options.seed)
    except UnsupportedEnv as error:
        sys.stderr.write(f"envs.check: {error}\n")
        return 2
    steps = options.steps or default_steps(envs.time_limit(options.env_id))
    console.print(
        f"{options.env_id}: backend {backend}, {options.lanes} lanes, {steps:,} steps a run, "
        f"seed {options.seed}",
        style="bold",
    )
    _report(console, findings)
    return 1 if any(finding.fault for finding in findings) else 0


def _report(console: Console, findings: list[Finding]) -> None:
    """Faults, notes, and what was found to be in order."""
    for finding in findings:
        kind, style = ("FAULT", "red") if finding.fault else ("note ", "dim")
        console.print(f"  {kind}  {finding}", style=style)
    if any(finding.fault for finding in findings):
        return  # a fault can stop or spoil later probes
    spoken_of = {finding.probe for finding in findings}
    for name in (probe for probe in PROBES if probe not in spoken_of):
        console.print(f"  ok     {name}: {PROBES[name]}", style="green")


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, and how to see the rest."""

    def error(self, message: str) -> NoReturn:
        raise UnsupportedEnv(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    probed = "\n".join(f"  {name:18} {meaning}" for name, meaning in PROBES.items())
    parser = _OneLineParser(
        prog="python -m envs.check",
        description="Step an environment with random actions and compare it with the contract of\n"
        "envs/contract.py: what is wrong, in which lane, at which step (0 is the reset).",
        epilog=f"what is probed:\n{probed}\n\nexit status: 0 no fault, 1 faults, 2 bad input",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("env_id", metavar="ENV_ID", help="for example CartPole-v1 or Taxi-v4")
    parser.add_argument(
        "--backend", default="auto", help="one of the id's; a wrong one lists them (default: auto)"
    )
    parser.add_argument("--lanes", type=partial(_at_least, 1), default=3, help="default: 3")
    parser.add_argument(
        "--steps",
        type=partial(_at_least, FEWEST_STEPS),
        help="of each run (default: two time limits, 500 to 2,500)",
    )
    parser.add_argument("--seed", type=partial(_at_least, 0), default=0, help="default: 0")
    return parser


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"got {text}, takes a whole number of at least {least}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
