"""A report is read field by field: whatever else is in a file is one clear line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from runners import crash_report, replay_crash
from runners.crash_report import Simulated, report_of
from runners.journal import Block, Reset, new_journal
from tests.runners.crashing import ID, changed, packed_rows


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A report of a fault of the environment's reset."""
    journal = new_journal(Block(2, simulator_seed=1, seed=0))
    journal.was_reset(Reset(None, 0))
    journal.add(0, np.array([0, 1]))
    report = report_of(Simulated(ID, "sync", {}, "float32"), journal, "it fell", "", 1)
    return crash_report.write(tmp_path_factory.mktemp("good"), report)


BAD = {
    "format": (2, "format is 2"),
    "env": (7, "env: got 7, takes a text"),
    "options": ({"a": [1]}, "options: got"),
    "lanes": (0, "lanes: got 0, takes 1 to"),
    "lane": (5, "lane: got 5, which is not one of the block's"),
    "simulator_seed": (-1, "simulator_seed: got -1, takes a whole number"),
    "step": (True, "step: got True"),
    "point": ("elsewhere", "point: got 'elsewhere', takes one of unknown, made, reset, state"),
    "purpose": (None, "purpose: got None"),
    "reward_dtype": ("float16", "takes one of float32, float64"),
    "actions": ("!!!", "damaged"),
    "state": ("AAAA", "damaged"),
    "complete": (1, "complete: got 1, takes true or false"),
    "versions": ([], "versions: got"),
    "last_actions": ("x", "last_actions: got"),
}


@pytest.mark.parametrize("name", BAD)
def test_every_field_is_looked_at(name, good, capsys):
    value, told = BAD[name]
    assert replay_crash.main([str(changed(good, **{name: value}))]) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_no_field_is_missing(good, tmp_path, capsys):
    whole = json.loads(good.read_text())
    path = tmp_path / "crash.json"
    for name in whole:
        path.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        assert replay_crash.main([str(path)]) == 2
        assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "format is None"),
    ],
)
def test_a_file_that_is_no_report(data, told, tmp_path, capsys):
    path = tmp_path / "crash.json"
    path.write_bytes(data)
    assert replay_crash.main([str(path)]) == 2
    assert told in capsys.readouterr().err


def test_a_file_that_is_not_there_or_too_large(tmp_path, capsys, monkeypatch):
    assert replay_crash.main([str(tmp_path / "none.json")]) == 2
    assert replay_crash.main([str(tmp_path)]) == 2
    monkeypatch.setattr(crash_report, "LIMIT", 10)
    path = tmp_path / "large.json"
    path.write_bytes(b" " * 11)
    assert replay_crash.main([str(path)]) == 2
    assert "larger than" in capsys.readouterr().err


def test_a_report_of_what_is_not_here(good, capsys):
    for other in ({"env": "Nowhere-v0"}, {"backend": "native"}, {"options": {"colour": 1}}):
        assert replay_crash.main([str(changed(good, **other))]) == 2
    assert "colour" in capsys.readouterr().err
    assert replay_crash.main([str(changed(good, actions=packed_rows((1, 2, 3))))]) == 2
    assert replay_crash.main([str(changed(good, actions=packed_rows((1, 3))))]) == 2
    assert replay_crash.main([str(changed(good, actions=packed_rows((1, 2), np.float32)))]) == 5


def test_text_that_no_file_can_hold(tmp_path, capsys):
    """An exception's words may have lone surrogates, as names of files have."""
    made = new_journal(Block(1, simulator_seed=1))
    report = report_of(Simulated(ID, "sync", {}, "float32"), made, "no \udcff", "\udcfe", 0)
    assert crash_report.read(crash_report.write(tmp_path, report)).what == "no \\udcff"
