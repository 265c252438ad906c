"""The command line of ``train``: settings of flags, files and presets, and the help.

Names and types are checked by `runners.flags` before tyro sees them, because tyro answers in boxes; tyro then
converts the values and writes the help. torch is imported only with the agent that was named.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from agents.hyper import Kind
from runners import presets, run_folder
from runners.config import (
    AGENTS,
    DEFAULT_AGENT,
    DEFAULT_ENV,
    Json,
    RunConfig,
    agent_entry,
    check_hyper_names,
    difference,
    flatten,
    load_file,
    to_json,
)
from runners.errors import BadInput
from runners.flags import Flag, check_tokens, flags_of
from runners.options import Options
from runners.resolve import default_settings, resolve
from runners.team import place

USAGE = (
    "python -m runners.train [AGENT] [--env ID] [--seeds K] [--seed S] [--steps N] [--flag X]..."
)


class Train(NamedTuple):
    """What a command line of ``train`` asks for."""

    config: RunConfig
    options: Options
    preset: str | None
    seeds: Sequence[int]
    resumed: run_folder.RunFolder | None  # the run that --resume means


def parse_train(argv: Sequence[str]) -> Train:
    """The configuration, options and preset that ``argv`` asks for.

    Raises:
        BadInput: something in it cannot be; one line says what to write instead.
        SystemExit: help was asked for and printed.
    """
    named, tokens = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else (None, argv)
    if named is None and {"-h", "--help"} & set(tokens):
        sys.stdout.write(general_help())
        raise SystemExit(0)
    if named is not None:
        agent_entry(named)
    base = _base(tokens)
    agent = _agent(named, base)
    check_hyper_names(agent, base.get("hyper", {}))
    env = _peek(tokens, "env") or base.get("env", DEFAULT_ENV)
    if _peek(tokens, "resume") and env != base["env"]:
        raise BadInput(
            f"resume: a run goes on as it began, but env: {env} here, {base['env']} there"
        )
    flags = flags_of(agent)
    given = check_tokens(tokens, flags)
    defaults = {**default_settings(agent, env), **flatten(base), "env": env}
    values = _convert(agent, tokens, flags, defaults)
    if named is None and not base and all(flags[name].group == "other" for name in given):
        values["until_solved"] = True  # nothing was asked for: show what the lab does
    options = Options(
        **{f.field: values.pop(f.field) for f in flags.values() if f.group == "other"}
    )
    if options.ray:
        values["source"] = "ray"
    free = values["async_"] or values["source"] == "ray"
    lag_is_told = free or "lag" in given or "lag" in flatten(base)
    entry = agent_entry(agent)
    if options.workers and not (lag_is_told or entry.tabular or entry.own_loop):
        # in processes of their own they may as well simulate while the learner learns
        values["lag"] = 1
    if not {"learners"} & {*given, *flatten(base)}:
        values["learners"] = place().learners
    values["env_options"] = defaults["env_options"] | _env_options(values["env_options"])
    config = resolve(agent, values.pop("env"), values)
    if options.verify_resume and config.learners > 1:
        raise BadInput(f"verify_resume: takes one learner, got {config.learners}")
    made = Train(
        config,
        options,
        presets.preset(agent, env)[0],
        range(options.seed, options.seed + options.seeds),
        None,
    )
    return _resumed(made, base, given) if options.resume else made


def _peek(tokens: Sequence[str], name: str) -> str:
    """The value of ``--name`` before the flags of the agent are known."""
    found = ""
    for token, following in itertools.pairwise([*tokens, ""]):
        if token == f"--{name}":
            found = following
        elif token.startswith(f"--{name}="):
            found = token.partition("=")[2]
    return found


def _base(tokens: Sequence[str]) -> Json:
    """The settings of ``--config`` or of the run to resume."""
    if run := _peek(tokens, "resume"):
        return run_folder.find_run(run, _peek(tokens, "out") or Options.out).config()
    path = _peek(tokens, "config")
    if not path and any(token.partition("=")[0] == "--config" for token in tokens):
        raise BadInput("--config: its value is missing; takes the path of a JSON or TOML file")
    return load_file(path) if path else {}


def _agent(named: str | None, base: Json) -> str:
    stored = base.get("agent")
    if named and stored and named != stored:
        raise BadInput(f"agent: {named} here, {stored} in the file; leave {named} out")
    return named or stored or DEFAULT_AGENT


def _resumed(made: Train, base: Json, given: set[str]) -> Train:
    """Go on with a run where it is: with the seeds it has, unless others are named."""
    config, options = made.config, made.options
    changed = difference(to_json(config), base)
    if changed:
        raise BadInput(f"resume: a run goes on as it began, but {'; '.join(changed)}")
    folder = run_folder.find_run(options.resume, options.out)
    seeds = [seed for group in folder.groups() for seed in group.seeds]
    return made._replace(
        options=dataclasses.replace(options, out=str(folder.path.parent)),
        seeds=made.seeds if {"seeds", "seed"} & given else seeds or made.seeds,
        resumed=folder,
    )


def _env_options(pairs: Sequence[str]) -> dict[str, Any]:
    """``size=20 is_slippery=false``: JSON scalars where they are such, else texts."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise BadInput(f"--env-options: got {pair!r}, takes name=value, as in size=20")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        options[name] = text if isinstance(value, list | dict) else value
    return options


# -- tyro ----------------------------------------------------------------------------------------


def _convert(
    agent: str, tokens: Sequence[str], flags: Mapping[str, Flag], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Every setting's value: the flag's, else the default. Prints the help if it is asked for."""
    import tyro

    settings, default = _dataclasses(flags, {**defaults, "env_options": ()})
    entry = agent_entry(agent)
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            parsed = tyro.cli(
                settings,
                args=list(tokens),
                default=default,
                prog=f"python -m runners.train {agent}",
                description=f"{agent}: {entry.summary} ({entry.paper}).",
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        words = " ".join(caught.getvalue().split())
        raise BadInput(words.strip("─╭╮╰╯│- ")) from None
    return {flag.field: getattr(getattr(parsed, flag.group), flag.field) for flag in flags.values()}


def _dataclasses(flags: Mapping[str, Flag], defaults: Mapping[str, Any]) -> tuple[Any, Any]:
    """The flags as a dataclass of three dataclasses, which is how tyro groups its help."""
    import tyro

    groups: dict[str, list[Any]] = {"run": [], "agent": [], "other": []}
    values: dict[str, dict[str, Any]] = {group: {} for group in groups}
    option_defaults = dataclasses.asdict(Options())
    for flag in flags.values():
        argument = tyro.conf.arg(name=flag.name, help=flag.doc)
        groups[flag.group].append((flag.field, Annotated[_type(flag.kind), argument]))
        value = {**defaults, **option_defaults}[flag.field]
        # JSON knows no tuples
        values[flag.group][flag.field] = tuple(value) if isinstance(value, list) else value
    made = {group: dataclasses.make_dataclass(group, fields) for group, fields in groups.items()}
    whole = dataclasses.make_dataclass("train", list(made.items()))
    default = whole(**{group: cls(**values[group]) for group, cls in made.items()})
    return tyro.conf.OmitArgPrefixes[whole], default  # type: ignore[misc, valid-type]


def _type(kind: Kind) -> Any:
    one = Literal[kind.choices] if kind.choices else kind.scalar
    return tuple[one, ...] if kind.many else one  # type: ignore[valid-type]


# -- Help ----------------------------------------------------------------------------------------


def general_help() -> str:
    """The help of ``train`` without an agent; imports neither torch nor Gymnasium."""
    width = max(map(len, AGENTS))
    agents = "\n".join(
        f"  {name:{width}}  {entry.summary} ({entry.paper})" for name, entry in AGENTS.items()
    )
    flags = flags_of(None).values()
    defaults = {
        "env": DEFAULT_ENV, "env_options": (), **presets.RUN_DEFAULTS, **dataclasses.asdict(Options())
    }  # fmt: skip
    lines = "\n".join(_help_line(flag, defaults[flag.field]) for flag in flags)
    return _HELP.format(usage=USAGE, agents=agents, flags=lines)


def _help_line(flag: Flag, default: Any) -> str:
    takes = "" if flag.kind.scalar is bool else f" {_PLACEHOLDERS[flag.kind.scalar]}"
    if flag.kind.choices:
        takes = " " + "|".join(map(str, flag.kind.choices))
    shown = f" (default: {default})" if default and flag.kind.scalar is not bool else ""
    return f"  {'--' + flag.name + takes:26} {flag.doc}{shown}"


_PLACEHOLDERS = {int: "N", float: "X", str: "TEXT"}
_HELP = """\
usage: {usage}

Train an agent on several seeds; the same command again goes on where it stopped.
Without arguments: pqn --env CartPole-v1 --seeds 5 --until-solved

agents (python -m runners.train AGENT --help shows an agent's hyperparameters):
{agents}

options:
{flags}

A preset of (agent, environment) goes over the defaults, --config over the preset, flags over all.

exit status:
  0 done                 3 no usable checkpoint
  1 the run failed       4 disk
  2 bad input            5 simulator or workers      130, 143 stopped

examples:
  python -m runners.train
  python -m runners.train q_learning --env FrozenLake-v1 --env-options is_slippery=false
  python -m runners.train dqn --steps 50000 --lr 5e-4 --no-double --seeds 3
  python -m runners.train --resume last
"""
