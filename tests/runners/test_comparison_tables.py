import re

from runners import comparison_tables as tables
from tests.runners.test_comparison_report import curve, entry, field


def test_a_threshold_that_was_reached_and_one_that_was_not():
    """Of three seeds two reach 10, at 2 and at 3 of 4 steps: the median is the second, 3."""
    curves = [curve([0, 10, 10, 10]), curve([0, 0, 10, 10]), curve([0, 0, 0, 9])]
    grid = tables.env_grid(field(entry("a", scores=(10, 10, 9), curves=curves)), "E", 10.0)
    assert grid.header[-2:] == ["steps to 10", "time to 10"]
    assert re.fullmatch(r"2 of 3 reached, median 3 \[2 .. > 4\]", grid.rows[0][-2])
    assert grid.rows[0][-1] == "not known"
    never = tables.env_grid(field(entry("a", scores=(10, 10, 9), curves=curves)), "E", 99.0)
    assert never.rows[0][-2] == "0 of 3 reached"
    scores_only = tables.env_grid(field(entry("a")), "E", 10.0)
    assert scores_only.header == ["agent", "mean return [95 %]", "IQM", "seeds"]


def test_only_settings_that_differ_are_told():
    def config(lr, steps):
        return {"agent": "x", "env": "E", "steps": steps, "hyper": {"lr": lr, "gamma": 0.9}}

    alike = field(
        entry("a", "E", config=config(0.1, 5)), entry("b", "E", config=config(0.2, 5)),
        entry("a", "F", config=config(0.1, 9)), entry("b", "F", config=config(0.1, 9)),
    )  # fmt: skip
    grid = tables.settings_grid(alike)
    assert grid.header == ["setting", "a", "b"]
    assert grid.rows == [["lr", "0.1", "0.2 on E; 0.1 on F"]]
    assert tables.settings_grid(field(entry("a"), entry("b", config=config(1, 1)))) is None


def test_other_code_or_machines_are_warned_of():
    def start(commit="a" * 40, changed=False, cpu="x", numpy="2"):
        return {
            "commit": {"hash": commit, "changed": changed}, "versions": {"numpy": numpy},
            "machine": {"cpu": cpu, "cores": 2},
        }  # fmt: skip

    assert tables.warnings_of([start(), start()]) == []
    told = tables.warnings_of([start(), start("b" * 40, changed=True, cpu="y", numpy="3")])
    assert told == [
        "trained by different commits: aaaaaaaaaa / bbbbbbbbbb (changed)",
        "trained by different versions: numpy 2 / numpy 3",
        "trained by different machines: x, 2 cores / y, 2 cores; times do not compare",
        "1 of 2 starts had changes that no commit has",
    ]
    assert "no checkout" in tables.warnings_of([start(), {**start(), "commit": None}])[0]
