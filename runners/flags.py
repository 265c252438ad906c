"""The flags of ``train``: what each sets and takes, and wrong ones answered in one line."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.hyper import Kind, kinds
from runners.config import AGENTS, RUN_KINDS, RunConfig, hyper_class
from runners.errors import BadInput, nearest
from runners.flag_names import OTHER_NAMES
from runners.options import Options
from runners.resolve import OPEN


@dataclass(frozen=True)
class Flag:
    """One flag: which setting it sets, what it takes, and its help."""

    field: str
    kind: Kind
    doc: str
    group: str  # run, agent or other

    @property
    def name(self) -> str:
        return self.field.strip("_").replace("_", "-")


def flags_of(agent: str | None) -> dict[str, Flag]:
    """Every flag by name; without an agent, those that all agents share."""
    run_docs, option_docs = field_docs(RunConfig), field_docs(Options)
    flags = [
        Flag(name, _open(name, kind), run_docs[name], "run") for name, kind in RUN_KINDS.items()
    ]
    flags.insert(1, Flag("env_options", Kind(str, many=True), run_docs["env_options"], "run"))
    if agent is not None:
        cls = hyper_class(agent)
        docs = field_docs(cls)
        flags += [Flag(n, kind, docs.get(n, ""), "agent") for n, kind in kinds(cls).items()]
    flags += [Flag(n, kind, option_docs[n], "other") for n, kind in kinds(Options).items()]
    return {flag.name: flag for flag in flags}


def _open(name: str, kind: Kind) -> Kind:
    """A setting's kind on the command line, where it may be left open."""
    if kind.choices and name in OPEN:
        return dataclasses.replace(kind, choices=(OPEN[name], *kind.choices))
    return kind


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """The text under each field of a dataclass and of those it inherits from."""
    docs: dict[str, str] = {}
    for part in reversed(cls.__mro__[:-1]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                docs[field.target.id] = " ".join(str(text.value.value).split())
    return docs


def check_tokens(tokens: Sequence[str], flags: Mapping[str, Flag]) -> set[str]:
    """Refuse unknown flags, missing values and wrong types; the names of the flags given."""
    given = set()
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if token in ("-h", "--help"):
            continue
        if not token.startswith("--"):
            raise BadInput(_stray(token))
        name, equals, value = token[2:].partition("=")
        name = name.replace("_", "-")
        flag = _find(name, flags)
        given.add(flag.name)
        if flag.kind.scalar is bool:
            if equals:
                raise BadInput(f"--{name}: takes no value; write --{name} or --no-{name}")
            continue
        values = [value] if equals else list(_values(rest, flag.kind.many))
        if not values and not flag.kind.many:
            raise BadInput(f"--{name}: its value is missing; takes {flag.kind}")
        for one in values:
            _check_type(name, one, flag.kind)
    return given


def _stray(token: str) -> str:
    if token in AGENTS:
        return f"{token}: the agent comes first, before the flags"
    return f"{token}: not expected here; flags begin with --"


def _find(name: str, flags: Mapping[str, Flag]) -> Flag:
    if name in flags:
        return flags[name]
    negated = flags.get(name.removeprefix("no-"))
    if negated is not None and negated.kind.scalar is bool:
        return negated
    if OTHER_NAMES.get(name) in flags:
        raise BadInput(f"--{name}: unknown; it is called --{OTHER_NAMES[name]} here")
    raise BadInput(f"--{name}: unknown{nearest(f'--{name}', [f'--{flag}' for flag in flags])}")


def _values(rest: list[str], many: bool) -> Iterator[str]:
    """Take the values of a flag off the front of the tokens."""
    while rest and not rest[0].startswith("--") and rest[0] != "-h":
        yield rest.pop(0)
        if not many:
            return


_READ: Mapping[type, Callable[[str], Any]] = {int: int, float: float, str: str}


def _check_type(name: str, text: str, kind: Kind) -> None:
    one = dataclasses.replace(kind, many=False)
    if kind.choices:
        wrong = text not in [str(choice) for choice in kind.choices]
    else:
        try:
            _READ[kind.scalar](text)
            wrong = False
        except ValueError:
            wrong = True
    if wrong:
        raise BadInput(f"--{name}: got {text!r}, takes {one}")
