"""Several learners are one: two real processes joined by gloo, and what is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from agents import AGENTS
from agents.device import machine
from runners import checkpoint, config, group, manifest, team, train
from runners.errors import BadInput, NoCheckpoint
from runners.manifest import Unusable, digest_of, read_manifest
from runners.resolve import make_config
from runners.run_folder import Group, create_run
from runners.sources import Plan
from runners.team import Place, place
from runners.team_group import Averaged, NoRecords, Part, ToldEvaluator
from tests.runners import joining

# -- The same step ---------------------------------------------------------------------------------


def processes(*arguments, count=2):
    """What so many learners say that run `joining`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = {
        **os.environ, "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.runners.joining", *map(str, arguments)],
            env={**common, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * count, "\n".join(said)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder that two learners have left."""
    folder = tmp_path_factory.mktemp("pair")
    processes(folder)
    return folder


def one_learner(name, weighted):
    """A single learner, given both learners' batches in one; weights are over the largest of it."""
    made = joining.make(name, 2 * joining.BATCH)
    for both in zip(joining.batches(0, weighted), joining.batches(1, weighted), strict=True):
        whole = {
            field: torch.cat([getattr(batch, field) for batch in both], 1)
            for field in ("obs", "action", "reward", "discount", "next_obs")
        }
        returns = torch.cat([batch.extras["returns"] for batch in both], 1)
        weight = None
        if weighted:
            raw = torch.cat([batch.weight * batch.extras["heaviest"] for batch in both], 1)
            weight = raw / raw.amax(1, keepdim=True)
        batch = replace(both[0], **whole, weight=weight, extras={"returns": returns})
        made.step(batch, made.draw(batch) if hasattr(made, "draw") else {})
    return made


@pytest.mark.parametrize("name", joining.CASES)
def test_two_learners_are_one_with_both_batches(name, pair):
    flats = [load_file(pair / f"{rank}.safetensors")[name] for rank in range(2)]
    assert torch.equal(*flats)
    weighted = joining.CASES[name][1].get("prioritized", False)
    expected = one_learner(name, weighted).online.flat
    torch.testing.assert_close(flats[0], expected, rtol=1e-3, atol=2e-4)
    # ... and not what either would have learned alone
    alone = joining.make(name)
    for batch in joining.batches(0, weighted):
        alone.step(batch, alone.draw(batch) if hasattr(alone, "draw") else {})
    assert not torch.allclose(flats[0], alone.online.flat, rtol=1e-3, atol=2e-3)


def test_what_is_told_and_added_up(pair):
    first, second = (json.loads((pair / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["told"] == {"x": [0.1, 0]}
    assert first["gathered"] == [0, 1]
    assert first["total"] == [3.0, 1.0]
    assert first["agreed"] == 15
    assert first["without"] == [[3.0, 1.0], [1.0]]
    assert not first["finite"]  # of a NaN that only the second one met


def test_parameters_that_differ_by_a_bit_are_refused_everywhere(pair):
    for rank in range(2):
        said = json.loads((pair / f"{rank}.json").read_text())["apart"]
        assert "at lane step 40 the parameters of learner 1 are not those of learner 0" in said


@pytest.mark.slow  # waits for the limits
def test_a_learner_that_hangs_is_noticed(tmp_path):
    processes(tmp_path, "hang")
    told, shared, averaged = json.loads((tmp_path / "hung.json").read_text())
    assert shared.startswith("learner 0 of 2: learner 1 has hung for 2 s")
    assert told == "learner 0: learner 1 has said nothing for 2 s"
    assert averaged.startswith("learner 0 of 2: another is gone, or has hung for 2 s")
    assert "torchrun --max-restarts" in averaged


# -- Where a process stands ------------------------------------------------------------------------

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a",
    "MASTER_PORT": "1", "TORCHELASTIC_RESTART_COUNT": "5",
}  # fmt: skip


def test_the_place_is_what_torchrun_says():
    assert place({}) == Place(0, 1, 0, 1, 0)
    assert place(TORCHRUN) == Place(3, 4, 1, 2, 5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"RANK": "x"}, "RANK: got 'x', takes a whole number"),
        ({"RANK": None}, "RANK: got '', takes a whole number; start it as torchrun"),
        ({"RANK": "4"}, "RANK: got 4, takes less than WORLD_SIZE = 4"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE: got '-1'"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR: is missing; start it as torchrun --nproc-per-node 4"),
        ({"MASTER_PORT": ""}, "MASTER_PORT: got ''"),
    ],
)
def test_a_place_that_makes_no_sense(changes, said):
    wrong = {name: value for name, value in {**TORCHRUN, **changes}.items() if value is not None}
    with pytest.raises(BadInput, match=said.replace("(", r"\(")):
        place(wrong)


SMALL = {"steps": 64, "lanes": 4, "rollout_length": 8, "eval_episodes": 2, "final_episodes": 2}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("dqn --learners 2", "learners: got 2, but 1 was started: start it as torchrun --nproc-per-node 2"),
        ("q_learning --env FrozenLake-v1 --learners 2", "gradients are averaged, which q_learning does not do"),
        ("rnd --env CartPole-v1 --steps 100 --learners 2", "takes 1: gradients are averaged, which rnd does not"),
        ("dqn --compile --learners 2", "compile: gradients are averaged in the middle of a step"),
        ("dqn --memory lstm --rollout-length 16 --learners 2", "memory: got lstm, takes none with several learners"),
        ("dqn --learners 2 --verify-resume", "verify_resume: takes one learner, got 2"),
        ("pqn --learners 0", "learners: got 0, takes a number of at least 1"),
        ("pqn --warmup-steps 9", "warmup_steps: got 9, takes 0 without --lr-scaling"),
        ("dqn --lr-scaling sqrt", "reference_batch: got 0, takes the batch that lr was found with"),
        ("pqn --reference-batch 64", "reference_batch: got 64"),
        ("dqn --compile --lr-scaling sqrt --reference-batch 64 --warmup-steps 9", "compile: a learning rate that"),
    ],
)  # fmt: skip
def test_what_is_refused_is_one_line(command, said, tmp_path, capsys):
    assert train.main([*command.split(), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) <= 2  # the preset's line and this one
    assert not list(tmp_path.iterdir())


def test_learners_that_were_started_are_the_configuration(monkeypatch):
    from runners.command_line import parse_train

    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert parse_train(["pqn"]).config.learners == 4
    assert parse_train(["pqn", "--learners", "2"]).config.learners == 2
    with pytest.raises(BadInput, match="learners: got 2, but 4 were started: start it as torchrun"):
        team.check_learners(2)
    with pytest.raises(BadInput, match="learners: got 1, but 4 were started: start it without"):
        team.check_learners(1)


def test_one_learner_keeps_the_names_of_its_folders():
    alone, two = (make_config("dqn", "CartPole-v1", learners=n, device="cpu") for n in (1, 2))
    assert "learners" not in config.to_json(alone)
    later = {"optimizer", "lr_scaling", "reference_batch", "warmup_steps"}
    assert not later & set(config.to_json(alone)["hyper"])
    assert config.to_json(two)["learners"] == 2
    assert config.config_id(alone) != config.config_id(two)
    assert config.from_json(config.to_json(alone)) == alone
    assert config.from_json(config.to_json(two)) == two
    scaled = make_config("dqn", "CartPole-v1", lr_scaling="sqrt", reference_batch=128)
    assert config.from_json(config.to_json(scaled)) == scaled
    # of the version before there were several learners
    versions = {"torch": "2.13.0", "gymnasium": "1.4.0", "mujoco": "3.17.0"}
    assert config.config_id(alone, versions) == "47f65ff8ee"


def test_agents_that_join_can():
    for name, entry in AGENTS.items():
        if entry.joins:
            assert entry.gradient, name
    assert {"dqn", "pqn", "rainbow"} <= {name for name, entry in AGENTS.items() if entry.joins}


# -- Lanes and streams -----------------------------------------------------------------------------


def worker(rank, learners, lanes, **more):
    c = make_config("dqn", "CartPole-v1", lanes=lanes, block_size=2, learners=learners, **more)
    setting = replace(group.make_setting(replace(c, learners=1)), config=c, rank=rank)
    made = group.make_worker(setting, [5, 6])
    learner = group.make_learner(setting, [5, 6])
    made.load_params(learner.params())
    return made, learner


def test_learners_have_the_lanes_of_one_with_more():
    whole, _ = worker(0, 1, 8)
    parts = [worker(rank, 2, 4)[0] for rank in range(2)]
    # the same parameters everywhere
    params = worker(0, 1, 8)[1].params()
    for one in (whole, *parts):
        one.load_params(params)
    expected = whole.collect(Plan(16, None), 0)
    found = [part.collect(Plan(16, None), 0) for part in parts]
    for name in ("obs", "action", "first", "terminated"):
        columns = getattr(expected, name)
        by_seed = columns.reshape(len(columns), 2, 8, *columns.shape[2:])
        for rank, rollout in enumerate(found):
            mine = getattr(rollout, name)
            assert np.array_equal(
                mine.reshape(len(mine), 2, 4, *mine.shape[2:]),
                by_seed[:, :, 4 * rank : 4 * rank + 4],
            ), name
    numbers = [block.env.first_lane for part in parts for block in part.blocks]
    assert len(set(numbers)) == len(numbers)


def test_learners_draw_other_batches_and_the_first_draws_as_one_alone():
    learners = [worker(0, 1, 4)[1], worker(0, 2, 4)[1], worker(1, 2, 4)[1]]
    drawn = [learner.replay.generators[0].random() for learner in learners]
    assert drawn[0] == drawn[1] != drawn[2]
    noise = [torch.rand(1, generator=group_of(learner)).item() for learner in learners]
    assert noise[0] == noise[1] != noise[2]


def group_of(learner):
    """The stream of a learner's noise; plain DQN keeps none, so what its weights were drawn from."""
    generator = torch.Generator()
    generator.manual_seed(int(learner.online.flat.abs().sum().item() * 1e6))
    return generator


def test_the_clock_counts_all_lanes():
    class Two:
        learners = 2
        average = largest = None

    _, learner = worker(0, 2, 4)
    learner.join(Two())
    made, _ = worker(0, 2, 4)
    learner.observe(made.collect(Plan(10, None), 0))
    assert learner.lane_steps == 80
    c = make_config("pqn", "CartPole-v1", learners=3)
    assert c.lanes_of_all == 3 * c.lanes
    assert c.eval_every % (3 * c.lanes * c.rollout_length) == 0 or c.eval_every == 8_192


# -- What is kept ----------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """A run folder with checkpoints of two learners at 0, 10 and 20."""
    run, seeds = create_run(tmp_path, "dqn-X-0123456789", {"a": 1}), Group(0, 1)
    part = Part(run, 1)
    for step in (0, 10, 20):
        state = {"x": np.arange(3) + step}
        path = checkpoint.save(part, seeds, step, state, None, [0, 1], keep=3)
        digest = digest_of(read_manifest(path))
        checkpoint.save(run, seeds, step, state, None, [0, 1], learners=[digest])
    return run, part, seeds


def test_both_parts_are_loaded(saved):
    run, part, seeds = saved
    assert checkpoint.load_newest(run, seeds).lane_steps == 20
    assert checkpoint.load_step(part, seeds, 20).state["x"].tolist() == [20, 21, 22]


def test_a_checkpoint_without_a_part_is_none(saved):
    run, part, seeds = saved
    step = part.group(seeds) / "checkpoints" / "step-000000000020"
    (step / "tensors.safetensors").write_bytes(b"x")
    loaded = checkpoint.load_newest(run, seeds)
    assert loaded.lane_steps == 10
    assert "learner 1's part: tensors.safetensors" in loaded.skipped[0]
    # the second goes back too, and its damaged part is put aside
    assert checkpoint.load_step(part, seeds, 10).lane_steps == 10
    assert not step.exists()


def test_a_part_of_another_line_of_history_is_refused(saved):
    run, part, seeds = saved
    checkpoint.save(part, seeds, 20, {"x": np.arange(4)}, None, [0, 1], keep=3)
    with pytest.raises(Unusable, match="learner 1's part is of another checkpoint"):
        manifest.verify(run.group(seeds) / "checkpoints" / "step-000000000020")


def test_a_part_that_was_saved_before_a_kill_is_put_aside(saved):
    run, part, seeds = saved
    checkpoint.save(part, seeds, 30, {"x": np.arange(4)}, None, [0, 1], keep=3)
    assert checkpoint.load_newest(run, seeds).lane_steps == 20
    assert checkpoint.load_step(part, seeds, 20).lane_steps == 20
    checkpoint.save(part, seeds, 30, {"x": np.arange(4)}, None, [0, 1], keep=3)
    with pytest.raises(NoCheckpoint):
        checkpoint.load_step(part, seeds, 25)


# -- What the first does for all -------------------------------------------------------------------


class Says(team.Alone):
    """A team of two in which this is one, and the other adds as much and tells what is given."""

    def __init__(self, rank, told=None):
        self.place, self.first, self.told = Place(rank, 2), rank == 0, told

    def tell(self, value):
        return value if self.first else self.told

    def total(self, values):
        return values + np.ones_like(values)


class Fixed:
    """A learner and an evaluator that give what they are told."""

    updates = 3

    def metrics(self):
        return {"loss": np.array([3.0, np.nan]), "q_mean": np.array([1.0, 5.0])}

    def returns(self, params, seeds):
        return np.array([[0.1, 0.2]]) * params


def test_metrics_are_means_over_learners():
    found = Averaged(Fixed(), Says(0)).metrics()
    assert found["q_mean"].tolist() == [1.0, 3.0]
    assert found["loss"][0] == 2.0
    assert np.isnan(found["loss"][1])  # and all see that it is


def test_only_the_first_evaluates():
    assert ToldEvaluator(Fixed(), Says(0)).returns(2.0, [0]).tolist() == [[0.2, 0.4]]
    assert ToldEvaluator(None, Says(1, [[7.0]])).returns(2.0, [0]).tolist() == [[7.0]]
    assert NoRecords(3).add_eval({}) is None


# -- Devices ---------------------------------------------------------------------------------------


def test_learners_share_what_gpus_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [machine.learner_device("cuda", n).index for n in range(4)] == [0, 1, 0, 1]
    assert machine.learner_device("cuda") == torch.device("cuda")  # the only one, as ever
    assert machine.learner_device("cpu", 3) == torch.device("cpu")
    assert machine.reduce_backend("cuda", 2) == "cpu:gloo,cuda:nccl"
    assert machine.reduce_backend("cuda", 4) == "gloo"  # NCCL wants a GPU for each
    assert machine.reduce_backend("cpu", 2) == "gloo"
