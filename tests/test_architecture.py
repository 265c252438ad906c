"""Every file keeps the rules of `tests.architecture`; every rule catches what breaks it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.architecture import (
    MANY_LINES,
    PACKAGES,
    RULES,
    TOO_MANY_LINES,
    Module,
    borders,
    cuda_in_one_place,
    frameworks_in_runners_only,
    no_code_in_data,
    no_hidden_randomness_in_agents,
    no_outside_world_in_agents,
    no_tests_inside,
    no_waiting_in_steps,
    rules_import_torch_only,
    short_enough,
)

ROOT = Path(__file__).parents[1]

# -- This checkout -------------------------------------------------------------------------------


def module_at(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = parts[-1] == "__init__"
    return Module(".".join(parts[:-1] if package else parts), path.read_text("utf-8"), package)


def python_files() -> list[Path]:
    return sorted(path for top in (*PACKAGES, "tests") for path in (ROOT / top).rglob("*.py"))


@pytest.fixture(scope="module")
def modules() -> Mapping[Path, Module]:
    return {path: module_at(path) for path in python_files()}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_file_keeps_the_rule(rule, modules):
    assert len(modules) > 20
    broken = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path, module in modules.items()
        for line, what in rule(module)
    ]
    assert not broken, "\n".join([str(rule.__doc__), *broken])


def test_files_that_grow_long_are_named(modules):
    for path, module in modules.items():
        lines = len(module.source.splitlines())
        if lines > MANY_LINES:
            warnings.warn(f"{path.relative_to(ROOT)} has {lines} lines", stacklevel=1)


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


MACHINE_PATH = re.compile(r"(?<![\w.\-/~<>])/(?:work|home|root|Users)(?:/|\b(?![\w.-]))")


def machine_paths(text: str) -> list[int]:
    """Lines that name a folder of somebody's machine."""
    return [n for n, line in enumerate(text.splitlines(), 1) if MACHINE_PATH.search(line)]


def test_no_file_names_a_folder_of_somebodys_machine():
    found = []
    for path in tracked_files():
        if not path.is_file() or path == Path(__file__):
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            lines = machine_paths(data.decode("utf-8", "replace"))
            found += [f"{path.relative_to(ROOT)}:{line}" for line in lines]
    assert not found, "\n".join(found)


def loads(code: str) -> set[str]:
    """The top-level modules that are loaded after ``code`` has run in a fresh interpreter."""
    tail = "\nimport sys\nprint(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code + tail], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("name", ["agents", "runners.config", "runners.console", "runners.errors"])
def test_what_help_needs_loads_no_torch(name):
    assert not {"torch", "gymnasium", "scipy", "matplotlib"} & loads(f"import {name}")


def test_envs_load_no_torch():
    assert "torch" not in loads("import envs; envs.make('CartPole-v1', 2, 0); import envs.tabular")


def test_that_loading_is_noticed():
    assert "torch" in loads("import agents.contract")


def test_help_comes_at_once():
    seconds = []
    for _ in range(6):  # the first warms the disk's cache, and the machine may be busy
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "runners.train", "--help"], cwd=ROOT, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0, done.stderr
        assert "dqn" in done.stdout
        if seconds[-1] < 1:
            return
    pytest.fail(f"--help took {min(seconds):.2f} s")


# -- The rules themselves ------------------------------------------------------------------------

BREAKS = [
    (borders, "envs.x", "import torch"),
    (borders, "envs.x", "def f():\n    from agents.contract import Rollout"),
    (borders, "envs.x", "from runners import config"),
    (borders, "envs.x", "import importlib\nimportlib.import_module('agents.dqn')"),
    (borders, "envs.sub.x", "from ...agents import contract"),
    (borders, "agents.x", "import runners.config as c"),
    (borders, "agents.x", "import envs"),
    (borders, "agents.x", "from envs import make"),
    (borders, "agents.x", "from envs.tabular import make"),
    (borders, "agents.x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import envs.x"),
    (borders, "agents.x", "import gymnasium as gym"),
    (rules_import_torch_only, "agents.rules.td", "import numpy as np"),
    (rules_import_torch_only, "agents.rules.td", "from agents.contract import Batch"),
    (rules_import_torch_only, "agents.rules.td", "from ..contract import Batch"),
    (frameworks_in_runners_only, "agents.x", "from stable_baselines3 import DQN"),
    (frameworks_in_runners_only, "envs.x", "import ray"),
    (frameworks_in_runners_only, "agents.x", "import optuna.trial"),
    (no_tests_inside, "runners.train", "from tests.reference import slow"),
    (no_tests_inside, "runners.bench_basics", "from tests.scripted import env"),
    (no_tests_inside, "agents.x", "import tests"),
    (no_tests_inside, "envs.x", "import pytest"),
    (no_outside_world_in_agents, "agents.x", "import time"),
    (no_outside_world_in_agents, "agents.x", "from time import perf_counter"),
    (no_outside_world_in_agents, "agents.x", "import logging"),
    (no_outside_world_in_agents, "agents.x", "import random"),
    (no_outside_world_in_agents, "agents.x", "import multiprocessing.shared_memory"),
    (no_outside_world_in_agents, "agents.x", "import torch.multiprocessing"),
    (no_outside_world_in_agents, "agents.x", "import subprocess"),
    (no_outside_world_in_agents, "agents.x", "from pathlib import Path"),
    (no_outside_world_in_agents, "agents.x", "open('x')"),
    (no_outside_world_in_agents, "agents.x", "print('x')"),
    (no_outside_world_in_agents, "agents.x", "import numpy as np\nnp.save('x', 1)"),
    (no_hidden_randomness_in_agents, "agents.x", "import torch\ntorch.manual_seed(0)"),
    (no_hidden_randomness_in_agents, "agents.x", "from torch import manual_seed"),
    (no_hidden_randomness_in_agents, "agents.x", "import numpy as np\nnp.random.rand(3)"),
    (no_hidden_randomness_in_agents, "agents.x", "import numpy as np\nnp.random.default_rng()"),
    (no_hidden_randomness_in_agents, "agents.x", "from numpy import random as r\nr.seed(0)"),
    (no_hidden_randomness_in_agents, "agents.x", "from numpy.random import rand"),
    (no_hidden_randomness_in_agents, "agents.x", "import torch.nn.functional as F\nF.dropout(x)"),
    (no_hidden_randomness_in_agents, "agents.x",
     "from torch.nn import functional\nfunctional.dropout2d(x)"),
    (no_hidden_randomness_in_agents, "agents.x", "from torch import nn\nnn.Dropout(0.1)"),
    (no_hidden_randomness_in_agents, "agents.x", "from torch.nn import AlphaDropout"),
    (no_hidden_randomness_in_agents, "agents.x", "import torch\ntorch.randn(3)"),
    (no_hidden_randomness_in_agents, "agents.x", "import torch\ntorch.rand_like(x)"),
    (no_hidden_randomness_in_agents, "agents.x", "x.uniform_(-1, 1)"),
    (no_hidden_randomness_in_agents, "agents.x", "from torch import nn\nnn.init.orthogonal_(w)"),
    (no_waiting_in_steps, "agents.x", "def loss(q):\n    return q.mean().item()"),
    (no_waiting_in_steps, "agents.x", "def actor_loss(q):\n    return q.cpu()"),
    (no_waiting_in_steps, "agents.x",
     "class L:\n    def step(self, b):\n        def inner():\n            return b.numpy()"),
    (cuda_in_one_place, "agents.x", "import torch\ntorch.cuda.synchronize()"),
    (cuda_in_one_place, "agents.device.staging", "from torch.cuda import Stream"),
    (cuda_in_one_place, "runners.x", "def f(x):\n    return x.cuda()"),
    (cuda_in_one_place, "agents.x", "import torch as t\nt.empty(3, pin_memory=True)"),
    (cuda_in_one_place, "agents.x", "x.pin_memory()"),
    (no_code_in_data, "envs.x", "import pickle"),
    (no_code_in_data, "tests.x", "from yaml import safe_load"),
    (no_code_in_data, "runners.x", "import torch as t\nt.load('x')"),
    (no_code_in_data, "runners.x", "from torch import load\nload('x')"),
    (no_code_in_data, "runners.x", "import subprocess\nsubprocess.run('ls', shell=True)"),
    (no_code_in_data, "runners.x", "import os\nos.system('ls')"),
    (no_code_in_data, "runners.x", "import numpy as np\nnp.load('x', allow_pickle=True)"),
    (short_enough, "agents.x", "x = 1\n" * (TOO_MANY_LINES + 1)),
]  # fmt: skip

KEEPS = [
    (borders, "envs.x", "import numpy\nimport torchvision_is_another_name"),
    (borders, "agents.x", "from envs.contract import Spec\nfrom agents.rules import td"),
    (borders, "runners.x", "import torch, envs.tabular, agents.dqn"),
    (rules_import_torch_only, "agents.rules.c51", "import torch\nfrom agents.rules import td"),
    (rules_import_torch_only, "agents.dqn", "import numpy"),
    (frameworks_in_runners_only, "runners.sb3", "import stable_baselines3"),
    (no_tests_inside, "runners.bench_basics", "from tests.reference import slow"),
    (no_tests_inside, "tests.test_x", "import pytest"),
    (no_outside_world_in_agents, "agents.x", "def f(self):\n    self.print = self.open()"),
    (no_outside_world_in_agents, "runners.x", "import time\nprint(open('x'))"),
    (no_hidden_randomness_in_agents, "agents.x",
     "import numpy as np\ndef f(g: np.random.Generator):\n    return g.random(), g.normal()"),
    (no_hidden_randomness_in_agents, "agents.x",
     "import numpy as np\nnp.random.Generator(np.random.PCG64(seed))"),
    (no_hidden_randomness_in_agents, "agents.x",
     "import torch\ntorch.randn(3, generator=g)\nx.normal_(generator=g)"),
    (no_waiting_in_steps, "agents.x", "def metrics(q):\n    return q.cpu().numpy().item()"),
    (no_waiting_in_steps, "runners.x", "def step(q):\n    return q.item()"),
    (cuda_in_one_place, "agents.device.machine", "import torch\ntorch.cuda.synchronize()"),
    (cuda_in_one_place, "runners.x", "import torch\ntorch.device('cuda')"),
    (no_code_in_data, "runners.x", "import subprocess, json\nsubprocess.run(['ls'], shell=False)"),
    (short_enough, "agents.x", "x = 1\n" * TOO_MANY_LINES),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "name", "source"), BREAKS)
def test_what_breaks_a_rule_is_caught(rule, name, source):
    assert list(rule(Module(name, source)))


@pytest.mark.parametrize(("rule", "name", "source"), KEEPS)
def test_what_keeps_a_rule_passes(rule, name, source):
    assert not list(rule(Module(name, source)))


def test_every_rule_is_shown_to_catch_and_to_let_pass():
    assert {rule for rule, *_ in BREAKS} == set(RULES) == {rule for rule, *_ in KEEPS}


def test_relative_imports_start_at_the_package():
    assert [name for _, name in Module("a.b", "from . import c").imports()] == ["a.c"]
    assert [name for _, name in Module("a.b", "from .c import d").imports()] == ["a.c.d"]
    package = Module("a.b", "from .c import d", is_package=True)
    assert [name for _, name in package.imports()] == ["a.b.c.d"]


def test_machine_paths_are_told_from_other_texts():
    inside_text = ["cd /" + "work/main", "'/" + "home/me'", "(/" + "root)", "x=/" + "Users/me/x"]
    assert all(machine_paths(text) == [1] for text in inside_text)
    other = ["https://a.org/" + "home/x", "net/" + "work/x", "/" + "homework", "either /" + "works"]
    assert not any(machine_paths(text) for text in other)
