"""What a sweep says in the end, and the files that it leaves."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import struct

import pytest
import scipy.stats

from runners import stats
from runners.command_line import parse_train
from runners.config import flatten, to_json
from runners.report import print_table
from runners.sweeping.outcome import outcome, record
from runners.sweeping.report import lines_of, title_of, trial_table, verdict_lines, write
from tests.runners.sweeping import toy


def printed(found):
    stream = io.StringIO()
    print_table(title_of(found), trial_table(found), lines_of(found), stream)
    return stream.getvalue()


@pytest.fixture
def sweep(plan_of, swept, tmp_path):
    return swept(plan_of(trials=9, final_seeds=3), tmp_path)


@pytest.fixture
def found(sweep):
    return outcome(sweep)


def test_trials_come_best_first_with_their_intervals(found):
    scores = [row.score for row in found.rows]
    assert scores == sorted(scores, reverse=True)
    for row in found.rows:
        assert row.scores == tuple(toy.score(row.values, seed) for seed in (0, 1))
    text = printed(found)
    assert text.startswith("dqn on CartPole-v1: 9 trials by qmc, 2 seeds of 900 steps")
    low, high = stats.t_interval(found.rows[0].scores)
    assert f"{low:.4g} .. {high:.4g}" in text
    assert "score: mean over seeds 0-1 of the final return: 100 greedy episodes" in text


def test_the_shrink_is_from_the_sweeps_seeds_to_fresh_ones(found):
    best = found.rows[0]
    fresh = [toy.score(best.values, seed) for seed in (1000, 1001, 1002)]
    assert found.best.trial == best.trial
    assert list(found.best.scores) == fresh
    shrink = found.best.shrink
    assert shrink.mean == pytest.approx(best.score - sum(fresh) / 3)
    low, high = scipy.stats.ttest_ind(best.scores, fresh, equal_var=False).confidence_interval()
    assert shrink.interval == pytest.approx((low, high))
    text = " ".join(lines_of(found))
    assert f"shrink: {best.score:.4g} - {sum(fresh) / 3:.4g} = {shrink.mean:.4g} [" in text


def test_whether_the_sweep_has_helped_is_decided_on_fresh_seeds(found):
    base = found.plan.base.hyper
    as_set = [toy.score({"lr": base.lr, "n_step": base.n_step}, s) for s in (1000, 1001, 1002)]
    assert list(found.base.scores) == as_set
    assert found.difference == stats.paired_difference(found.best.scores, as_set)
    assert verdict_lines(found)[-1].endswith("the sweep has helped")
    for difference, verdict in (
        (stats.Difference(1.0, stats.Interval(-1.0, 3.0)), "is not shown"),
        (stats.Difference(-2.0, stats.Interval(-3.0, -1.0)), "the sweep's choice is worse"),
        (stats.paired_difference([1.0], [2.0]), "one seed decides nothing"),
    ):
        assert verdict in verdict_lines(found._replace(difference=difference))[-1]


def test_a_score_that_did_not_shrink_is_not_called_luck(found):
    lucky = found.best._replace(before=(1.0, 2.0), scores=(5.0, 6.0))
    lines = verdict_lines(found._replace(best=lucky))
    assert lines[2].startswith("shrink: 1.5 - 5.5 = -4 [")
    assert lines[2].endswith(": none, its score was no luck")


def test_the_best_configuration_is_one_that_train_takes(sweep, found, tmp_path):
    write(found, sweep.folder)
    best = str(sweep.folder / "best.json")
    config = parse_train(["--config", best]).config
    assert config == sweep.plan.config(found.rows[0].values)
    assert config.hyper.lr == found.rows[0].values["lr"]
    longer = parse_train(["--config", best, "--steps", "1800", "--eval-every", "100"]).config
    assert longer == dataclasses.replace(config, steps=1800)
    assert flatten(to_json(config))["n_step"] == found.rows[0].values["n_step"]


def test_files_say_what_the_table_says(sweep, found):
    write(found, sweep.folder)
    told = json.loads((sweep.folder / "sweep.json").read_text())
    assert [row["trial"] for row in told["rows"]] == [row.trial for row in found.rows]
    assert told["best"]["shrink"]["mean"] == found.best.shrink.mean
    assert told["as_set"]["trial"] == -1
    assert told["difference"]["mean"] == found.difference.mean
    assert told["importances"][0]["name"] == found.importances[0].name
    assert json.loads(json.dumps(record(found))) is not None
    text, whole = ((sweep.folder / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert text.count("\n| ") == 11  # header, rule, nine trials
    assert "best minus as set" in text
    assert "best minus as set" in whole
    assert whole.count("<tr>") == 10
    # it opens offline: all that is referred to is in it
    assert all(place.startswith("#") for place in re.findall(r'(?:src|href)="([^"]*)"', whole))
    picture = (sweep.folder / "slices.png").read_bytes()
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 500
    assert height > 300


def test_failures_and_pruned_trials_come_last_and_say_why(plan_of, swept, tmp_path):
    n_steps = f"n_step=1,2,3,{toy.DIVERGES}"
    sweep = swept(plan_of((n_steps, "lr=1e-3,1e-2"), 8, sampler="grid", pruner="sha"), tmp_path)
    found = outcome(sweep)
    assert [row.ended for row in found.rows] == ["done", "pruned", "pruned", *["pruned"] * 3,
                                                 "failed", "failed"]  # fmt: skip
    assert [row.until for row in found.rows][:2] == [900, 300]
    text = printed(found)
    assert "of pruned trials that of the evaluation (20 episodes)" in text
    assert f"(n_step={toy.DIVERGES}, lr=0.001): the loss was not finite" in text
    assert found.compared_at == 100
    write(found, sweep.folder)


def test_where_no_trial_could_be_trained_none_is_said_to_be_best(plan_of, swept, tmp_path):
    settings = (f"n_step={toy.DIVERGES},{toy.HANGS}",)
    sweep = swept(plan_of(settings, 2, sampler="grid"), tmp_path, timeout=0.3)
    found = outcome(sweep)
    assert (found.best, found.base) == (None, None)
    assert [row.ended for row in found.rows] == ["failed", "timeout"]
    assert verdict_lines(found) == ["no trial could be trained: the loss was not finite"]
    write(found, sweep.folder)
    assert not (sweep.folder / "best.json").exists()


def test_without_fresh_seeds_it_says_so(plan_of, swept, tmp_path):
    found = outcome(swept(plan_of(trials=3, final_seeds=0), tmp_path))
    assert found.best is None
    assert "not trained on fresh seeds" in verdict_lines(found)[-1]
    assert "importance: fewer than 8 trials" in lines_of(found)[-1]


def test_with_more_trials_one_that_went_on_may_have_to_stay(plan_of, swept, tmp_path):
    few = swept(plan_of(trials=3, draw_seed=4, pruner="sha"), tmp_path)
    winner = few.ranked()[0]
    many = swept(plan_of(trials=9, draw_seed=4, pruner="sha"), tmp_path)
    found = outcome(many)
    row = next(row for row in found.rows if row.trial == winner)
    assert many.result(winner, 2) is not None  # it was trained to the end
    expected = many.fates()[winner]
    assert expected == ("pruned", 1)
    assert row.until == many.plan.rungs[expected.rung]
    alone = swept(plan_of(trials=9, draw_seed=4, pruner="sha"), tmp_path / "alone")
    assert alone.fates() == many.fates()
