"""The compiled step does what the eager one does."""

from __future__ import annotations

import pytest
import torch

from agents import AGENTS, dqn
from agents.compiled import CompiledStep
from agents.learner import share
from runners import group as groups
from runners import verify
from runners.errors import BadInput
from runners.options import Options
from runners.resolve import make_config
from tests.agents.test_dqn_parts import learner, some_batch
from tests.agents.test_meta import SPECS, make_learner, meta_batch

RAINBOW = {
    "distributional": "c51", "double": True, "dueling": True, "noisy": True, "prioritized": True,
}  # fmt: skip
SWITCHES = [
    {},
    RAINBOW,
    {"distributional": "qr", "munchausen": True, "value_rescale": True},
    {"distributional": "iqn", "atoms": 8, "noisy": True, "layer_norm": True, "max_grad_norm": 0.01},
    {"dropout": 0.3, "dueling": True, "max_grad_norm": 0.01},
    {"optimizer": "lamb"},
]


def batches(count):
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        batch = some_batch()
        batch.obs = torch.randn(batch.obs.shape, generator=generator)
        batch.next_obs = torch.randn(batch.obs.shape, generator=generator)
        batch.reward = torch.randn(batch.reward.shape, generator=generator)
        batch.discount = torch.rand(batch.reward.shape, generator=generator)
        batch.weight = torch.rand(batch.reward.shape, generator=generator)
        batch.action = torch.randint(0, 3, batch.action.shape, generator=generator)
        yield batch


def compare(switches, compiled, steps):
    """Take the same steps both ways, from a target network that is not the online one."""
    eager, other = (learner(lr=1e-2, **switches) for _ in range(2))
    for made in (eager, other):
        made.target.flat.mul_(0.5)
    step = CompiledStep(other.loss, other.online, other.target, other.optimizer)
    for batch in batches(steps):
        drawn = eager.draw(batch)
        total = eager.step(batch, drawn)
        call = (batch, share(batch), drawn, eager.hyper.lr)
        found, out = step(*call) if compiled else step.plain(*call, other.optimizer.bias())
        torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(out.priority, eager._priority, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other.online.flat, eager.online.flat, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(other.online.flat, learner(**switches).online.flat, atol=1e-2)


@pytest.mark.parametrize("switches", SWITCHES)
def test_its_operations_are_those_of_the_eager_step(switches):
    compare(switches, compiled=False, steps=30)


@pytest.mark.slow  # half a minute of compiling
@pytest.mark.parametrize("switches", [{}, RAINBOW])
def test_compiled(switches):
    compare(switches, compiled=True, steps=30)


@pytest.mark.parametrize("switches", SWITCHES)
def test_it_runs_where_nothing_can_be_read(switches):
    made, batch = make_learner("dqn", SPECS["box"], **switches), meta_batch(SPECS["box"])
    step = CompiledStep(made.loss, made.online, made.target, made.optimizer)
    total, _ = step.plain(batch, share(batch), made.draw(batch), 1e-3, made.optimizer.bias())
    assert total.device.type == "meta"


@pytest.mark.parametrize("name", [name for name, entry in AGENTS.items() if entry.compiles])
def test_every_agent_that_is_said_to_compile_has_such_a_step(name):
    made, batch = make_learner(name, SPECS["box"]), meta_batch(SPECS["box"])
    made.compile()
    made._compiled._compiled = made._compiled.plain
    assert made.step(batch, made.draw(batch)).device.type == "meta"
    assert made._metrics["td_error"].shape == batch.reward.shape


@pytest.mark.slow  # three processes that compile
def test_a_compiled_run_goes_on_to_the_same_bits():
    small = {"steps": 4_096, "learning_starts": 500, "checkpoint_every": 1_024}
    config = make_config("dqn", "CartPole-v1", compile=True, **small)
    assert verify.verify_resume(config, Options(seeds=1)) == 0


@pytest.mark.parametrize(
    ("agent", "more", "said"),
    [("pqn", {}, "pqn's step is not compiled"), ("dqn", {"memory": "lstm"}, "unrolled")],
)
def test_what_cannot_be_compiled_is_refused(agent, more, said):
    with pytest.raises(BadInput, match=said):
        make_config(agent, "CartPole-v1", compile=True, **more)


def test_a_compiled_seed_trains_alone():
    sizes = [
        groups.make_setting(make_config("dqn", "CartPole-v1", compile=how)).group_size
        for how in (False, True)
    ]
    assert sizes == [dqn.GROUP, 1]
