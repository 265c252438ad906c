"""Which series an ablation has, what it computes of them, and what its command does."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
import pytest

from agents import AGENTS, AgentEntry
from agents.dqn import DQNConfig
from agents.hyper import BadValue
from runners import ablate, ablation, train
from runners.config import hyper_class, to_json
from runners.resolve import make_config
from runners.run_folder import Group
from runners.series import Trained

SMALL = {
    "steps": 256, "lanes": 4, "learning_starts": 64, "hidden": (8,), "batch_size": 8,
    "eval_episodes": 1, "final_episodes": 2,
}  # fmt: skip
FLAGS = [
    word
    for name, value in SMALL.items()
    for word in (f"--{name}", str(value[0] if isinstance(value, tuple) else value))
]


@dataclass(frozen=True)
class ChoosyConfig(DQNConfig):
    """Two switches, of which one does not go without the other."""

    dueling: bool = True
    """streams"""
    noisy: bool = True
    """noise"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dueling and not self.noisy:
            raise BadValue("dueling: needs noisy; --no-dueling")


@pytest.fixture
def choosy(monkeypatch):
    entry = AgentEntry("tests.runners.test_ablate", "ChoosyConfig", "choosy", "nobody 2000")
    monkeypatch.setitem(AGENTS, "choosy", entry)


def planned(agent, **settings):
    return ablation.plan(make_config(agent, "CartPole-v1", **{"steps": 1000, **settings}))


# -- The series ----------------------------------------------------------------------------------


def test_the_series_of_rainbow():
    series = planned("rainbow")
    switches = ["double", "dueling", "distributional", "prioritized", "noisy", "n_step"]
    assert [(one.kind, one.switch) for one in series] == [
        ("full", ""), *(("without", s) for s in switches), ("plain", ""), *(("with", s) for s in switches),
    ]  # fmt: skip
    assert [one.label for one in series][:7] == [
        "rainbow", "without double", "without dueling", "without c51", "without prioritized",
        "without noisy", "without n-step 10",
    ]  # fmt: skip
    assert series[-1].label == "dqn and n-step 10"
    assert series[7].label == "dqn, without all"


def test_series_differ_by_one_switch_and_its_companions():
    full, *_, alone = planned("rainbow", lr=0.25, v_min=-3.0)
    by_switch = {(one.kind, one.switch): one.config for one in planned("rainbow", lr=0.25)}
    plain = by_switch["plain", ""].hyper
    assert type(plain) is DQNConfig
    # the switches are DQN's, the rest is the preset's and what was asked for
    assert plain == DQNConfig(
        **{
            **dataclasses.asdict(full.config.hyper),
            "double": False, "dueling": False, "distributional": "none", "prioritized": False,
            "noisy": False, "n_step": 1, "v_min": -10.0, "priority_alpha": 0.6,
            "epsilon_start": 1.0, "epsilon_end": 0.05,
        }
    )  # fmt: skip
    assert (plain.lr, plain.adam_eps, plain.layer_norm, plain.batch_size) == (
        0.25,
        1.5e-4,
        True,
        128,
    )
    quiet = by_switch["without", "noisy"].hyper
    assert (quiet.noisy, quiet.epsilon_start, quiet.epsilon_end) == (False, 1.0, 0.05)
    assert (quiet.double, quiet.dueling, quiet.n_step, quiet.priority_alpha) == (
        True,
        True,
        10,
        0.5,
    )
    noisy = by_switch["with", "noisy"].hyper
    assert (noisy.noisy, noisy.epsilon_start, noisy.double, noisy.n_step) == (True, 0.0, False, 1)
    assert dataclasses.replace(plain, n_step=10) == alone.config.hyper
    runs = [{**to_json(c), "agent": "", "hyper": {}} for c in by_switch.values()]
    assert all(run == runs[0] for run in runs)  # steps, lanes, evaluations
    assert by_switch["without", "noisy"].agent == "rainbow"
    assert by_switch["with", "noisy"].agent == "dqn"


def test_what_stands_on_a_switch_goes_with_it():
    series = planned("rainbow", distributional="qr", actor_priorities=True)
    asked = {(one.kind, one.switch): one.config.hyper.actor_priorities for one in series}
    assert len(series) == 14
    assert not asked["without", "prioritized"]
    assert not asked["plain", ""]
    assert asked["with", "prioritized"]


def test_an_agent_of_one_switch_is_plain_dqn_without_it():
    assert [one.kind for one in planned("munchausen_dqn")] == ["full", "plain"]


def test_a_switch_that_was_turned_off_is_none():
    labels = [one.label for one in planned("dueling_dqn", double=False)]
    assert labels == ["dueling_dqn", "dqn, without all"]


def test_every_field_that_a_named_agent_sets_is_a_switch_or_known_to_be_none():
    sorted_ = {"adam_eps", "gamma", *ablation.SWITCHES}.union(*ablation.SWITCHES.values())
    plain = DQNConfig()
    for name, entry in AGENTS.items():
        cls = None if entry.tabular else hyper_class(name)
        if cls is not None and issubclass(cls, DQNConfig):
            own = cls()
            fields = [f.name for f in dataclasses.fields(cls)]
            differing = {f for f in fields if getattr(own, f) != getattr(plain, f, None)}
            assert differing <= sorted_, name


def test_what_cannot_be_combined_is_said(choosy):
    series = planned("choosy")
    refused = {one.label: one.refused for one in series if one.config is None}
    assert refused == {"without noisy": "dueling: needs noisy; --no-dueling"}
    assert series[-2].config is not None  # dqn knows no such rule


# -- What is computed ----------------------------------------------------------------------------


def trained(returns, seconds=1.0, *groups):
    class Folder:
        name = "somewhere"

    return Trained(Folder(), range(len(returns)), np.array(returns), 60.0, seconds, list(groups))


def test_outcomes_by_hand(choosy):
    series = planned("choosy")
    assert [one.kind for one in series] == ["full", "without", "without", "plain", "with", "with"]
    runs = [
        trained([3.0, 4.0, 5.0], 2.0), trained([1.0, 2.0, 3.0], 1.0), None,
        trained([0.0, 0.0, 3.0], 0.5), trained([1.0, 2.0, 6.0], 1.0),
        trained([0.0, 0.0, 3.0], 0.5, Group(0, 0), Group(1, 2)),
    ]  # fmt: skip
    full, without, refused, plain, first, second = ablation.compare(series, runs)
    assert (full.mean, full.difference, full.time_ratio) == (4.0, None, None)
    # each is two lower, so the interval has no width, though the means' intervals overlap
    assert without.difference == (-2.0, (-2.0, -2.0))
    assert without.time_ratio == 0.5
    assert refused.run is refused.difference is None
    # -3, -4, -2: mean -3, s = 1, n = 3: 4.302653 / √3 = 2.484138
    assert plain.difference.mean == -3.0
    assert plain.difference.interval == pytest.approx((-3 - 2.484138, -3 + 2.484138), abs=1e-6)
    # 1, 2, 3 above plain dqn
    assert first.difference.interval == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert first.time_ratio == 2.0
    assert second.time_ratio is None  # trained in other groups: no comparison
    assert first.iqm == 3.0  # of three none goes
    assert first.iqm_interval == (1.0, 6.0)  # and of draws as wide as t's of three, all are within
    # of three pairs swaps give 2 / 8 at the least, which four of them make certain
    assert (full.p, refused.p) == (None, None)
    assert [one.p for one in (without, plain, first, second)] == [1.0] * 4
    record = ablation.to_json(refused)
    assert record["refused"] == "dueling: needs noisy; --no-dueling"
    assert record["per_seed"] is record["difference"] is None


def test_a_table_says_what_was_refused(choosy, capsys, tmp_path):
    from runners.report import print_table

    series = planned("choosy")
    runs = [None if one.config is None else trained([1.0, 2.0, 3.0]) for one in series]
    outcomes = ablation.compare(series, runs)
    print_table("choosy", ablate.outcome_table(outcomes), ablate.lines_of(outcomes))
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line for line in lines if line.startswith("| without noisy"))
    assert row.split("|")[2].strip() == "refused"
    assert lines[-1] == "without noisy: dueling: needs noisy; --no-dueling"
    assert "one seed" not in lines[-2]
    ablate.draw_forest(outcomes, tmp_path / "forest.png", "choosy")
    assert (tmp_path / "forest.png").read_bytes().startswith(b"\x89PNG")


# -- The command ---------------------------------------------------------------------------------


def test_a_command_trains_every_series_once(tmp_path, capsys, monkeypatch):
    out = tmp_path / "runs"
    first = train.run(make_config("dueling_dqn", "CartPole-v1", **SMALL), range(2), str(out))
    before = first.seed(0).metrics.read_bytes()
    line = ["dueling_dqn", *FLAGS, "--seeds", "2", "--out", str(out)]
    assert ablate.main(line) == 0
    told = capsys.readouterr()
    assert "1 of 6: dueling_dqn: finished before" in told.err
    assert "6 of 6: dqn and dueling\n" in told.err
    assert first.seed(0).metrics.read_bytes() == before
    *table, path = told.out.splitlines()
    assert path == f"{out}/ablation-{first.name}"
    rows = [text.split("|")[1].strip() for text in table if text.startswith("|")]
    assert [row for row in rows if row and "-+-" not in row] == [
        "dueling_dqn", "without double", "without dueling", "dqn, without all", "dqn and double",
        "dqn and dueling",
    ]  # fmt: skip
    folder = out / f"ablation-{first.name}"
    assert (folder / "forest.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((folder / "ablation.json").read_text())
    assert (record["agent"], record["steps"], record["seeds"]) == ("dueling_dqn", 256, [0, 1])
    full, without = record["series"][:2]
    assert full["per_seed"] == first.summary()["final_return"]["per_seed"]
    assert without["difference"] == pytest.approx(
        np.mean(np.subtract(without["per_seed"], full["per_seed"]))
    )
    assert all((out / one["run"] / "curve.png").exists() for one in record["series"])

    def refuse(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr("runners.series.run", refuse)
    assert ablate.main([*line, "--quiet"]) == 0
    assert capsys.readouterr() == (f"{path}\n", "")
    assert json.loads((folder / "ablation.json").read_text()) == record


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "agent: none is named; it comes first"),
        ("--env CartPole-v1", "agent: none is named; it comes first"),
        ("rainbw", "agent 'rainbw': unknown; did you mean rainbow?"),
        ("dqn", "dqn has no switches of DQN's family to turn off; take one of double_dqn, "),
        ("pqn", "pqn has no switches"),
        ("q_learning --env FrozenLake-v1", "q_learning has no switches"),
        ("rainbow --sedes 3", "--sedes: unknown; did you mean --seeds?"),
        ("rainbow --seeds 0", "seeds: got 0, takes a number of at least 1"),
        ("rainbow --jobs -1", "argument --jobs: got -1, takes a whole number from 0 on"),
        ("rainbow --fresh", "--fresh: is for train, not for ablate; leave it out"),
        ("rainbow --workers 2", "--workers: is for train"),
        ("rainbow --verify-resume", "--verify-resume: is for train"),
        ("rainbow --replay-device disk", "--replay-device: is for train"),
        ("rainbow --until-solved", "until_solved: an ablation trains every series equally long"),
        ("rainbow --env Acrobot-v1", "steps: there is no preset of rainbow on Acrobot-v1; say how"),
    ],
)
def test_bad_lines_are_one_line(line, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ablate.main(line.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"error: {message}")
    assert told.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_series_side_by_side_are_those_in_turn(tmp_path, capsys):
    line = ["dueling_dqn", *FLAGS, "--seeds", "2"]
    records = []
    for jobs in "12":
        out = tmp_path / jobs
        assert ablate.main([*line, "--jobs", jobs, "--out", str(out)]) == 0
        (path,) = out.glob("ablation-*/ablation.json")
        records.append(json.loads(path.read_text()))
    capsys.readouterr()
    one, two = ([(s["label"], s["per_seed"], s["p_holm"]) for s in r["series"]] for r in records)
    assert one == two


def test_help_says_how(capsys):
    assert ablate.main(["--help"]) == 0
    assert "python -m runners.ablate rainbow" in capsys.readouterr().out
