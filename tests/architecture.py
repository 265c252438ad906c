"""The borders between the packages, and what may not be written inside them, as rules.

Every rule walks a file's syntax tree and yields the line and the name of what breaks it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

PACKAGES = ("envs", "agents", "runners")
IMPORTERS = ("importlib.import_module", "__import__")
MANY_LINES, TOO_MANY_LINES = 400, 450


@dataclass
class Module:
    """A source file: its dotted name, its tree, and what the names in it stand for."""

    name: str
    source: str
    is_package: bool = False

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.source)
        self.package = self.name.split(".")[0]
        self.aliases = dict(self._aliases())

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full name of everything imported, wherever it stands in the file."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._base(node)
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Call) and self.full_name(node.func) in IMPORTERS:
                yield from ((node.lineno, str(a.value)) for a in node.args[:1] if is_constant(a))

    def names(self) -> Iterator[tuple[int, str]]:
        """Line and full name of everything that is read: np.random.rand is numpy.random.rand."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name | ast.Attribute):
                yield node.lineno, self.full_name(node)

    def calls(self) -> Iterator[tuple[ast.Call, str]]:
        """Every call and the full name of what is called."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield node, self.full_name(node.func)

    def full_name(self, node: ast.AST) -> str:
        """The dotted name with import aliases undone; '.x' is the attribute x of an expression."""
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self.full_name(node.value)}.{node.attr}"
        return ""

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        kept = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*kept, node.module] if node.module else kept)

    def _aliases(self) -> Iterator[tuple[str, str]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.asname:
                        yield alias.asname, alias.name
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield alias.asname or alias.name, f"{self._base(node)}.{alias.name}"


def is_constant(node: ast.expr) -> TypeGuard[ast.Constant]:
    """Whether an expression is a literal."""
    return isinstance(node, ast.Constant)


def inside(name: str, *tops: str) -> bool:
    """Whether a dotted name is one of these or lies below one."""
    return any(name == top or name.startswith(f"{top}.") for top in tops)


Findings = Iterator[tuple[int, str]]

# -- The rules -----------------------------------------------------------------------------------

FRAMEWORKS = ("stable_baselines3", "sb3_contrib", "ray", "optuna")
SIMULATORS = ("gymnasium", "ale_py", "mujoco", "envpool", "minigrid", "pettingzoo", "gymnax")


def borders(module: Module) -> Findings:
    """runners import agents, agents import envs.contract and envs.kernel, envs import neither."""
    for line, name in module.imports():
        if module.package == "envs" and inside(name, "agents", "runners", "torch"):
            yield line, f"envs import {name}"
        if module.package == "agents":
            simulator = inside(name, "envs") and not inside(name, "envs.contract", "envs.kernel")
            if simulator or inside(name, "runners", *SIMULATORS):
                yield line, f"agents import {name}"


def rules_import_torch_only(module: Module) -> Findings:
    """agents/rules are equations: torch, types, and each other."""
    if not inside(module.name, "agents.rules"):
        return
    allowed = ("torch", "typing", "collections.abc", "math", "__future__", "agents.rules")
    for line, name in module.imports():
        if not inside(name, *allowed):
            yield line, f"a rule imports {name}"


def frameworks_in_runners_only(module: Module) -> Findings:
    """Only runners know other frameworks."""
    if module.package in ("envs", "agents"):
        for line, name in module.imports():
            if inside(name, *FRAMEWORKS):
                yield line, f"{module.package} import {name}"


def no_tests_inside(module: Module) -> Findings:
    """Only bench loads the slow twins, and nothing else of the tests."""
    if module.package not in PACKAGES:
        return
    bench = inside(module.name, "runners.bench_basics")
    for line, name in module.imports():
        twins = bench and inside(name, "tests.reference")
        if inside(name, "tests", "pytest", "hypothesis") and not twins:
            yield line, f"{module.name} imports {name}"


OUTSIDE_WORLD = (
    "time", "datetime", "logging", "random", "secrets", "multiprocessing", "threading",
    "concurrent", "subprocess", "os", "io", "pathlib", "shutil", "tempfile", "socket", "signal",
    "asyncio", "sqlite3", "torch.multiprocessing", "torch.distributed",
)  # fmt: skip
FILES_AND_OUTPUT = (
    "open", "print", "input", "torch.save", "torch.load", "numpy.save", "numpy.savez",
    "numpy.load", "numpy.fromfile", "numpy.savetxt", "numpy.loadtxt", "numpy.memmap",
)  # fmt: skip
DROPOUT = re.compile(
    r"torch\.(nn\.functional\.|nn\.)?(feature_)?(alpha_)?dropout"
    r"|torch\.nn\.(Feature)?(Alpha)?Dropout"
)
GLOBAL_GENERATORS = (
    "torch.manual_seed", "torch.seed", "torch.initial_seed", "torch.default_generator",
    "torch.get_rng_state", "torch.set_rng_state", "torch.random", "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
)  # fmt: skip
NUMPY_GENERATORS = ("Generator", "BitGenerator", "PCG64", "Philox", "SeedSequence")
"""Those that are built from a seed that was passed; the rest of numpy.random is global or fresh."""


def no_outside_world_in_agents(module: Module) -> Findings:
    """Agents touch no files, clocks, processes or logs."""
    if module.package != "agents":
        return
    for line, name in module.imports():
        if inside(name, *OUTSIDE_WORLD):
            yield line, f"agents import {name}"
    for line, name in module.names():
        if name in FILES_AND_OUTPUT:
            yield line, f"agents use {name}"


def no_hidden_randomness_in_agents(module: Module) -> Findings:
    """Agents draw from generators that are passed to them; a loss gets its noise as an argument."""
    if module.package != "agents":
        return
    for line, name in [*module.names(), *module.imports()]:
        kind = name.removeprefix("numpy.random.").split(".")[0]
        fresh = name.startswith("numpy.random.") and kind not in NUMPY_GENERATORS
        if fresh or DROPOUT.match(name) or inside(name, *GLOBAL_GENERATORS):
            yield line, f"agents use {name}"
    for call, name in module.calls():
        given = any(keyword.arg == "generator" for keyword in call.keywords)
        if not given and draws(name):
            yield call.lineno, f"{name} without generator="


TORCH_DRAWS = {
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like",
    "normal", "bernoulli", "multinomial", "poisson",
}  # fmt: skip
IN_PLACE_DRAWS = {
    "uniform_", "normal_", "random_", "bernoulli_", "exponential_", "cauchy_", "geometric_",
    "log_normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
    "kaiming_normal_", "orthogonal_", "sparse_",
}  # fmt: skip


def draws(name: str) -> bool:
    """Whether a function of torch draws random numbers."""
    last = name.rpartition(".")[2]
    return last in IN_PLACE_DRAWS or (inside(name, "torch") and last in TORCH_DRAWS)


WAITS = {"item", "cpu", "numpy", "tolist"}


def no_waiting_in_steps(module: Module) -> Findings:
    """`step` and losses run on the device: reading a value back would make the host wait."""
    if module.package != "agents":
        return
    for function in ast.walk(module.tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        if not re.fullmatch(r"step|(.*_)?loss", function.name):
            continue
        for node in ast.walk(function):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in WAITS:
                yield called.lineno, f"{function.name} calls .{called.attr}()"


CUDA_WORDS = {"cuda", "pin_memory", "record_stream", "CUDAGraph"}


def cuda_in_one_place(module: Module) -> Findings:
    """Only agents.device.machine talks to CUDA; others may at most name the device."""
    if module.package not in PACKAGES or module.name == "agents.device.machine":
        return
    for line, name in [*module.names(), *module.imports()]:
        if inside(name, "torch.cuda") or name.rpartition(".")[2] in CUDA_WORDS:
            yield line, f"{module.name} uses {name}"
    for call, name in module.calls():
        if any(keyword.arg in CUDA_WORDS for keyword in call.keywords):
            yield call.lineno, f"{module.name} calls {name} with pinned memory"


CODE_IN_DATA = ("pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "yaml")
SHELLS = ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput")


def no_code_in_data(module: Module) -> Findings:
    """Nothing that is read can run: no pickle, no YAML, no shell."""
    for line, name in module.imports():
        if inside(name, *CODE_IN_DATA):
            yield line, f"import of {name}"
    for line, name in module.names():
        if name in ("torch.load", *SHELLS):
            yield line, f"use of {name}"
    for call, name in module.calls():
        for keyword in call.keywords:
            value = keyword.value
            if keyword.arg in ("shell", "allow_pickle") and not (
                is_constant(value) and value.value is False
            ):
                yield call.lineno, f"{name}({keyword.arg}=...)"


def short_enough(module: Module) -> Findings:
    """A file of the packages is read in one sitting."""
    lines = len(module.source.splitlines())
    if module.package in PACKAGES and lines > TOO_MANY_LINES:
        yield lines, f"{lines} lines, more than {TOO_MANY_LINES}"


RULES = (
    borders, rules_import_torch_only, frameworks_in_runners_only, no_tests_inside,
    no_outside_world_in_agents, no_hidden_randomness_in_agents, no_waiting_in_steps,
    cuda_in_one_place, no_code_in_data, short_enough,
)  # fmt: skip
