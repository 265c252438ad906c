import importlib.util
import shutil

import numpy as np
import pytest

from runners.errors import BadInput
from runners.run_folder import RunFolder
from runners.tensorboard import FILE, INSTALL, require, write_events

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


@pytest.fixture
def run(lake, tmp_path):
    """A copy, so that the records can be changed."""
    return RunFolder(shutil.copytree(lake.path, tmp_path / lake.name))


def scalars(run, seed):
    """tag -> [(step, value)], as TensorBoard reads them."""
    read = accumulator.EventAccumulator(str(run.path / "tensorboard" / f"seed-{seed}")).Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_tensorboard_reads_what_was_recorded(run):
    write_events(run)
    for seed in (0, 1):
        found, folder = scalars(run, seed), run.seed(seed)
        for prefix, records in (("train", folder.read_metrics()), ("eval", folder.read_evals())):
            name = "loss" if prefix == "train" else "mean"
            expected = [(r["env_steps"], np.float32(r[name])) for r in records.records]
            assert found[f"{prefix}/{name}"] == expected
            assert len(expected) > 5
        metrics = folder.read_metrics().records[-1]
        assert {f"train/{name}" for name in metrics} - found.keys() == {
            "train/lane_steps", "train/env_steps", "train/seconds", "train/time_shares",
        }  # fmt: skip
        assert found["time/fused"][-1][1] == np.float32(metrics["time_shares"]["fused"])


def test_a_confirmation_is_shown_by_its_mean(run):
    run.seed(0).add_eval(
        {"lane_steps": 1, "env_steps": 1, "seconds": 1.0, "mean": 2.0, "confirmation": [1.0, 4.0]}
    )
    write_events(run)
    assert scalars(run, 0)["eval/confirmation"][-1] == (1, 2.5)


def test_health_is_shown_where_it_is_known(run):
    position = {"lane_steps": 9, "env_steps": 7, "seconds": 1.0, "alarms": ["churn"]}
    run.seed(0).add_health({**position, "churn": None, "dead_units": 0.25})
    write_events(run)
    found = scalars(run, 0)
    assert found["health/dead_units"] == [(7, 0.25)]
    assert [tag for tag in found if tag.startswith("health/")] == ["health/dead_units"]


def test_writing_again_doubles_nothing(run):
    write_events(run)
    path = run.path / "tensorboard" / "seed-0"
    before = (path / FILE).read_bytes()
    write_events(run)
    assert (path / FILE).read_bytes() == before
    assert [file.name for file in path.iterdir()] == [FILE]


def test_what_is_not_known_has_no_point(run):
    position = {"lane_steps": 9, "env_steps": 99_999, "seconds": 1.0}
    run.seed(0).add_metrics({**position, "train_return": None, "loss": 0.5})
    write_events(run)
    found = scalars(run, 0)
    assert found["train/loss"][-1] == (99_999, 0.5)
    assert found["train/train_return"][-1][0] != 99_999


def test_without_the_package_it_says_how_to_install_it(run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput) as refused:
        require()
    assert INSTALL in str(refused.value)
    assert INSTALL == "pip install -c constraints.txt -e '.[tensorboard]'"
    with pytest.raises(BadInput):
        write_events(run)
