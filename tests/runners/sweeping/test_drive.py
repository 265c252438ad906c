"""Sweeps from end to end with trials that are toys: kills, failures, and what is left behind."""

from __future__ import annotations

import collections
import json
import os
import signal
from pathlib import Path

import pytest

from runners import files
from runners.config import run_name
from runners.errors import BadInput, DiskFault, RunFailed, Stopped
from runners.sweeping.drive import opened
from runners.sweeping.ledger import Result
from runners.sweeping.plan import BASE, FRESH, Work
from tests.runners.sweeping import toy
from tests.runners.sweeping.conftest import toy_command


def known(folder):
    """What a sweep has tried and found, without how long it took."""
    records = files.read_lines(folder / "trials.jsonl").records
    values = [record["values"] for record in records if "values" in record]
    found = {
        (record["trial"], record["until"], *record["seeds"]): (record["status"], record["scores"])
        for record in records
        if "values" not in record
    }
    return values, found


def trained(folder):
    """How often each piece of work was done by a process that got to its end."""
    return collections.Counter((folder / "runs" / "trained").read_text().splitlines())


def noted_without_a_process(sweep):
    """The work whose runs were there before the sweep looked, as lines of the toys' log."""
    return {
        f"{sweep.run(work.trial).name} {work.first} {work.last} {work.until}"
        for work, result in sweep.ledger.results.items()
        if result.attempts == 0
    }


def test_every_trial_is_trained_on_the_same_seeds_and_scored_by_their_mean(
    plan_of, swept, tmp_path
):
    plan = plan_of(trials=5)
    sweep = swept(plan, tmp_path)
    values, found = known(sweep.folder)
    assert len(values) == 5
    for trial, chosen in enumerate(values):
        scores = [toy.score(chosen, seed) for seed in (0, 1)]
        assert found[trial, 900, 0, 1] == ("done", scores)
        assert sweep.result(trial, 0).score == sum(scores) / 2
    ranked = sweep.ranked()
    assert [sweep.result(t, 0).score for t in ranked] == sorted(
        (sum(scores) / 2 for (t, _, first, _), (_, scores) in found.items() if first == 0),
        reverse=True,
    )


def test_the_best_and_what_was_set_are_trained_on_fresh_seeds(plan_of, swept, tmp_path, base):
    sweep = swept(plan_of(trials=4), tmp_path)
    _, found = known(sweep.folder)
    fresh = {key: value for key, value in found.items() if key[2] == FRESH}
    best, hyper = sweep.ranked()[0], {"lr": base.hyper.lr, "n_step": base.hyper.n_step}
    assert fresh == {
        (best, 900, 1000, 1001): (
            "done", [toy.score(sweep.values(best), seed) for seed in (1000, 1001)]
        ),
        (BASE, 900, 1000, 1001): ("done", [toy.score(hyper, seed) for seed in (1000, 1001)]),
    }  # fmt: skip


def test_where_the_best_is_what_was_set_it_is_trained_once(plan_of, swept, tmp_path, base):
    lr = base.hyper.lr
    settings = (f"lr={lr},1e-2", f"n_step={base.hyper.n_step},50")
    sweep = swept(plan_of(settings, 4, sampler="grid"), tmp_path)
    assert sweep.values(sweep.ranked()[0]) == sweep.plan.base_values()
    assert sweep.finalists() == sweep.ranked()[:1]
    assert set(trained(sweep.folder).values()) == {1}


@pytest.mark.parametrize(
    ("sampler", "pruner", "trials"),
    [
        ("qmc", "sha", 12),
        ("tpe", "asha", 12),
        pytest.param("qmc", "none", 18, marks=pytest.mark.slow),
        pytest.param("random", "asha", 12, marks=pytest.mark.slow),
        pytest.param("tpe", "none", 40, marks=pytest.mark.slow),
    ],
)
def test_a_sweep_that_is_killed_five_times_ends_with_the_same_trials(
    plan_of, swept, tmp_path, monkeypatch, sampler, pruner, trials
):
    if sampler == "tpe":
        pytest.importorskip("optuna")
    monkeypatch.setattr("runners.sweeping.proposals.STARTUP", 3)  # and then it goes by results
    plan = plan_of(trials=trials, sampler=sampler, pruner=pruner)
    whole = swept(plan, tmp_path / "whole", 3)
    out = tmp_path / "killed"
    first = 2 if sampler == "tpe" else trials + 2  # the others note all values at once
    for lines in (first, 2, 4, 3, 2):
        # each process dies when it is about to note so many lines, jobs under way and all
        assert killed_at(f"line.write:{lines}", lambda: swept(plan, out, 2))
        if lines == 4:  # and one line broke off
            with (out / plan.folder_name / "trials.jsonl").open("ab") as file:
                file.write(b'{"trial": 1, "unt')
    again = swept(plan, out, 2)
    assert known(again.folder) == known(whole.folder)
    assert again.ranked() == whole.ranked()
    assert set(trained(whole.folder).values()) == {1}
    assert trained(again.folder) <= trained(whole.folder)  # nothing was run twice
    # a toy that dies between its result and its line in the log is noted without a process
    unseen = trained(whole.folder) - trained(again.folder)
    assert unseen.keys() <= noted_without_a_process(again)


def killed_at(fault, work):
    """Do some work in a process that dies as by kill -9 at a fault; whether it has died."""
    pid = os.fork()
    if pid == 0:
        os.environ["QLAB_FAULT"] = fault
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("point", [2, 9, 11])
def test_a_kill_at_any_line_of_the_ledger_loses_nothing(plan_of, swept, tmp_path, point):
    plan = plan_of(trials=4)  # 4 lines of values and 4 of results, 2 of fresh seeds
    whole = swept(plan, tmp_path / "whole", 1)
    died = killed_at(f"line.write:{point}", lambda: swept(plan, tmp_path, 1))
    assert died == (point <= 10)
    sweep = swept(plan, tmp_path, 1)
    assert known(sweep.folder) == known(whole.folder)
    assert set(trained(sweep.folder).values()) == {1}


def test_the_number_of_processes_changes_nothing(plan_of, swept, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setattr("runners.sweeping.proposals.STARTUP", 3)
    plan = plan_of(trials=12, sampler="tpe", pruner="asha")
    one, four = (swept(plan, tmp_path / str(jobs), jobs) for jobs in (1, 4))
    assert known(one.folder) == known(four.folder)


def test_more_trials_add_to_a_sweep(plan_of, swept, tmp_path):
    few = swept(plan_of(trials=3), tmp_path)
    before = known(few.folder)
    more = swept(plan_of(trials=7), tmp_path)
    assert more.folder == few.folder
    after = known(more.folder)
    assert after[0][:3] == before[0]
    assert len(after[0]) == 7
    assert after[1].items() >= before[1].items()
    assert set(trained(more.folder).values()) == {1}


def test_fewer_trials_look_at_the_first_ones_only(plan_of, swept, tmp_path):
    swept(plan_of(trials=6), tmp_path)
    few = swept(plan_of(trials=2), tmp_path)
    assert sorted(few.ranked()) == [0, 1]


def test_what_goes_wrong_with_a_trial_is_noted_and_the_sweep_goes_on(plan_of, swept, tmp_path):
    n_steps = f"n_step=1,{toy.DIVERGES},{toy.HANGS},{toy.DIES_ONCE}"
    plan = plan_of((n_steps,), 4, sampler="grid")
    sweep = swept(plan, tmp_path, timeout=0.6)
    results = {sweep.values(trial)["n_step"]: sweep.result(trial, 0) for trial in range(4)}
    assert results[1].status == "done"
    assert results[toy.DIVERGES][:2] == ("failed", ())
    assert results[toy.DIVERGES].why == "the loss was not finite"
    assert results[toy.HANGS].status == "timeout"
    assert "timed out after 1 s" in results[toy.HANGS].why
    assert (results[toy.DIES_ONCE].status, results[toy.DIES_ONCE].attempts) == ("done", 2)
    assert [sweep.values(trial)["n_step"] for trial in sweep.ranked()] == [1, toy.DIES_ONCE]
    again = swept(plan, tmp_path)  # and it stays so: nothing is begun again
    assert known(again.folder) == known(sweep.folder)
    assert set(trained(again.folder).values()) == {1}


def test_what_failed_is_tried_again_when_asked(plan_of, swept, tmp_path):
    plan = plan_of((f"n_step=1,{toy.DIVERGES},{toy.HANGS}",), 3, sampler="grid")
    first = swept(plan, tmp_path, timeout=0.6)
    (first.folder / "runs" / "well").touch()  # what hung hangs no more
    with opened(plan, tmp_path, 2, command=toy_command, timeout=5.0) as sweep:
        sweep.ledger.forget_failures()
        sweep.train()
    for last in (sweep, swept(plan, tmp_path)):
        found = {last.values(trial)["n_step"]: last.result(trial, 0) for trial in range(3)}
        assert [found[n].status for n in (1, toy.DIVERGES, toy.HANGS)] == ["done", "failed", "done"]
    assert set(trained(sweep.folder).values()) == {1}


def test_a_timeout_is_of_all_rungs_together(plan_of, tmp_path):
    plan = plan_of(pruner="sha")
    with opened(plan, tmp_path, 1, command=toy_command, timeout=10.0) as sweep:
        sweep._propose()
        seconds = sweep._job(sweep._work(3, 0)).timeout
        assert seconds == 10.0
        sweep.ledger.record(sweep._work(3, 0), sweep_result(seconds=4.0))
        sweep.ledger.record(sweep._work(2, 0), sweep_result(seconds=3.0))
        assert sweep._job(sweep._work(3, 1)).timeout == 6.0


def sweep_result(score=1.5, seconds=1.0):
    return Result("done", (score - 0.5, score + 0.5), seconds, 1, "")


def test_tpe_knows_the_same_whichever_of_the_later_trials_have_ended(
    plan_of, tmp_path, monkeypatch
):
    pytest.importorskip("optuna")
    monkeypatch.setattr("runners.sweeping.proposals.STARTUP", 1)
    plan = plan_of(trials=9, sampler="tpe")
    proposed = []
    for ended in ([0], [0, 1, 2, 3], [3, 1, 0]):
        with opened(plan, tmp_path / str(ended), 2) as sweep:
            sweep._propose()
            assert len(sweep.ledger.values) == sweep.ahead == 4
            for trial in ended:
                result = sweep_result(score=10.0 * trial)
                sweep.ledger.record(sweep._work(trial, 0), result)
            sweep._propose()
            proposed.append(sweep.ledger.values[:5])
    assert proposed[0] == proposed[1] == proposed[2]


def test_a_full_disk_ends_the_sweep_and_loses_nothing(plan_of, swept, tmp_path, monkeypatch):
    plan = plan_of(trials=4)
    monkeypatch.setenv("QLAB_FAULT", "line.write:6:enospc")
    with pytest.raises(DiskFault, match="No space left on device"):
        swept(plan, tmp_path, 1)
    monkeypatch.delenv("QLAB_FAULT")
    sweep = swept(plan, tmp_path, 1)
    assert known(sweep.folder) == known(swept(plan, tmp_path / "whole").folder)
    assert set(trained(sweep.folder).values()) == {1}


def test_a_trial_that_finds_the_disk_full_ends_the_sweep(plan_of, swept, tmp_path):
    plan = plan_of((f"n_step=1,{toy.FULL}",), 2, sampler="grid")
    with pytest.raises(DiskFault, match=r"trial 1.*no space left"):
        swept(plan, tmp_path, 1)
    _, found = known(tmp_path / plan.folder_name)
    assert list(found) == [(0, 900, 0, 1)]  # the full disk is nobody's score


def test_asked_to_stop_it_notes_what_is_done(plan_of, swept, tmp_path):
    asked = iter([0] * 12)
    with pytest.raises(Stopped, match="the same command goes on"):
        swept(plan_of(trials=9), tmp_path, 1, stop_asked=lambda: next(asked, signal.SIGTERM))
    sweep = swept(plan_of(trials=9), tmp_path, 2)
    assert len(sweep.ranked()) == 9
    assert set(trained(sweep.folder).values()) == {1}


def test_two_processes_cannot_have_one_sweep(plan_of, tmp_path):
    plan = plan_of()
    with opened(plan, tmp_path), pytest.raises(BadInput, match=r"is being swept by process \d+"):
        opened(plan, tmp_path).__enter__()


def test_a_damaged_ledger_is_said_where(plan_of, swept, tmp_path):
    plan = plan_of(trials=3)
    path = swept(plan, tmp_path).folder / "trials.jsonl"
    whole = path.read_text()
    for damage in ("{}\n", '{"trial": 9, "values": {}}\n', "[]\n", "what\n"):
        path.write_text(damage + whole)
        with pytest.raises(RunFailed, match=r"trials.jsonl: line 1 is damaged"):
            swept(plan, tmp_path)


def test_values_that_do_not_go_together_are_refused_before_anything_is_written(plan_of, tmp_path):
    plan = plan_of(("double=true,false", "munchausen=true,false"), 4, sampler="grid")
    with pytest.raises(BadInput, match=r"double=true, munchausen=true: double: munchausen takes"):
        opened(plan, tmp_path).__enter__()
    assert not list(tmp_path.iterdir())


def test_values_that_tpe_should_not_have_put_together_are_noted(plan_of, swept, tmp_path):
    pytest.importorskip("optuna")
    plan = plan_of(("double=true,false", "munchausen=true,false"), 9, sampler="tpe")
    sweep = swept(plan, tmp_path)
    assert len(sweep.fates()) == 4  # there are no more
    results = {tuple(sweep.values(t).values()): sweep.result(t, 0) for t in range(4)}
    assert results[True, True].status == "failed"
    assert "munchausen takes a mean" in results[True, True].why
    assert [r.status for r in results.values()].count("done") == 3


def test_trials_stop_at_rungs_and_the_best_go_on(plan_of, swept, tmp_path):
    plan = plan_of(trials=9, pruner="sha")
    assert plan.rungs == (100, 300, 900)
    sweep = swept(plan, tmp_path)
    _, found = known(sweep.folder)
    sweep_only = [key for key in found if key[2] == 0]
    assert collections.Counter(until for _, until, *_ in sweep_only) == {100: 9, 300: 3, 900: 1}
    first = {t: sweep.result(t, 0).score for t in range(9)}
    best = sorted(first, key=lambda t: -first[t])[:3]
    assert {t for t, until, *_ in sweep_only if until == 300} == set(best)
    assert sweep.ranked() == [max(best, key=lambda t: sweep.result(t, 1).score)]


def test_plan_and_ledger_say_all_that_is_needed(plan_of, swept, tmp_path):
    plan = plan_of(trials=2)
    sweep = swept(plan, tmp_path)
    told = json.loads((sweep.folder / "plan.json").read_text())
    assert told["searched"] == ["lr=log:0.0001..0.01", "n_step=1..5"]
    assert told["ahead"] == 4
    names = {run_name(plan.config(sweep.values(t))) for t in (0, 1, BASE)}
    runs = {p.name for p in (sweep.folder / "runs").iterdir() if p.is_dir()}
    assert runs == names


def test_how_far_tpe_is_ahead_is_settled_by_the_first_process(plan_of, tmp_path):
    plan = plan_of()
    for jobs, ahead in ((7, 7), (2, 7)):
        with opened(plan, tmp_path, jobs) as sweep:
            assert sweep.ahead == ahead
    assert Path(tmp_path / plan.folder_name / "plan.json").exists()
    assert Work(0, 900, 0, 1).seeds == range(2)
