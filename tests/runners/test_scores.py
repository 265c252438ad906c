"""What is compared: read from tables and run folders, told apart, on the same environments and seeds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from runners import scores
from runners.errors import BadInput
from runners.run_folder import RunFolder


def table(tmp_path, text, name="scores.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_table_of_scores(tmp_path):
    path = table(tmp_path, "agent,env,seed,score,note\na,e,1,3.5,x\na,e,0,2,\nb,e,0,1,\n")
    first, second = scores.of_csv(path)
    assert (first.agent, first.env, first.seeds) == ("a", "e", (0, 1))
    np.testing.assert_array_equal(first.finals, [2, 3.5])  # in the order of the seeds
    assert first.curves == ()
    assert np.isnan(first.budget)
    assert second.seeds == (0,)


def test_rows_with_steps_are_a_curve_whose_end_is_the_score(tmp_path):
    path = table(tmp_path, "agent,env,seed,env_steps,seconds,score\na,e,0,100,1,5\na,e,0,200,2,7\n")
    (entry,) = scores.of_csv(path)
    np.testing.assert_array_equal(entry.curves[0].env_steps, [100, 200])
    np.testing.assert_array_equal(entry.curves[0].means, [5, 7])
    assert entry.finals == [7]
    assert entry.budget == 200


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("agent,env,score\na,e,1\n", "has no column 'seed'"),
        ("agent,env,seed,score\n", "has no rows"),
        ("agent,env,seed,score\na,e,0,nan\n", "line 2: score: got nan"),
        ("agent,env,seed,score\na,e,0,high\n", "line 2: score: got 'high'"),
        ("agent,env,seed,score\na,e,0.5,1\n", "line 2: seed: got 0.5"),
        ("agent,env,seed,score\na,e,-1,1\n", "line 2: seed: got -1"),
        ("agent,env,seed,score\na,e,0,1\na,e,0,2\n", "line 3: seed 0 is there twice"),
        ("agent,env,seed,env_steps,score\na,e,0,9,1\na,e,0,9,2\n", "line 3: seed 0 is there twice"),
        ("agent,env,seed,score\na,e\n", "line 2: seed: got None"),
        ("seed,score,agent,env\n0,1\n", "line 2: agent: got None"),
        ("agent,env,seed,score\n ,e,0,1\n", "line 2: agent: got ' '"),
        ('agent,env,seed,score\na,"e\nf",0,1\n', "env: got 'e"),
    ],
)
def test_a_bad_table_is_named_with_its_line(tmp_path, text, told):
    with pytest.raises(BadInput, match=told) as caught:
        scores.of_csv(table(tmp_path, text))
    assert "scores.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_table_at_all(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        scores.of_csv(tmp_path / "none.csv")


def entry(agent, env="e", seeds=(0, 1), finals=None, config=None, origin=""):
    finals = np.arange(len(seeds), dtype=float) if finals is None else np.array(finals, float)
    return scores.Entry(agent, env, tuple(seeds), finals, (), origin or f"{agent}-{env}", config)


def test_agents_are_told_apart_by_what_they_differ_in():
    plain = {"agent": "dqn", "steps": 10, "hyper": {"n_step": 1, "lr": 0.1}}
    other = {"agent": "dqn", "steps": 10, "hyper": {"n_step": 3, "lr": 0.1}}
    field = scores.field_of(
        [entry("dqn", config=plain), entry("dqn", config=other, origin="x"), entry("pqn")]
    )
    assert field.agents == ("dqn", "dqn (n_step 3)", "pqn")
    assert field.entries["pqn", "e"].agent == "pqn"


@pytest.mark.parametrize(("value", "told"), [(True, "dqn (double)"), (False, "dqn (no double)")])
def test_a_switch_is_called_by_its_name(value, told):
    base, other = ({"agent": "dqn", "hyper": {"double": on}} for on in (not value, value))
    field = scores.field_of([entry("dqn", config=base), entry("dqn", config=other, origin="x")])
    assert field.agents == ("dqn", told)


def test_settings_of_other_environments_tell_nothing_apart():
    # the presets of two environments differ; on each there is one dqn
    there = {"agent": "dqn", "hyper": {"lr": 0.1}}
    here = {"agent": "dqn", "hyper": {"lr": 0.2}}
    field = scores.field_of(
        [
            entry("dqn", "e", config=here),
            entry("dqn", "f", config=there),
            entry("b"),
            entry("b", "f"),
        ]
    )
    assert field.agents == ("dqn", "b")


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([entry("a")], "a: takes two agents"),
        ([], "nothing: takes two agents"),
        ([entry("a"), entry("b"), entry("b", "f")], "a: has no run on f, only on e"),
        (
            [entry("a"), entry("b", origin="same"), entry("b", origin="same")],
            "same: is named twice",
        ),
    ],
)
def test_fields_that_cannot_be(entries, told):
    with pytest.raises(BadInput, match=told):
        scores.field_of(entries)


def test_some_of_the_seeds():
    one = entry("a", seeds=(3, 5, 8), finals=[30, 50, 80]).only([8, 3])
    assert one.seeds == (8, 3)
    np.testing.assert_array_equal(one.finals, [80, 30])


# -- Run folders ---------------------------------------------------------------------------------

GOOD = {
    "config.json": {"agent": "dqn", "env": "E"},
    "summary.json": {"wall_s": 7},
    "seed-0/result.json": {"final_returns": [1, 3]},
    "seed-0/evals.jsonl": {"env_steps": 10, "seconds": 1, "mean": 2},
    "seed-4/result.json": {"final_returns": [5]},
    "seed-4/evals.jsonl": {"env_steps": 10, "seconds": 1, "mean": 2},
}


def folder_of(tmp_path, changed):
    for name, content in {**GOOD, **changed}.items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content) + "\n"
        path.write_text(text)
    return RunFolder(tmp_path / "run")


def test_a_run_folder(tmp_path):
    entry = scores.of_run(folder_of(tmp_path, {"seed-7/metrics.jsonl": ""}))
    assert (entry.agent, entry.env, entry.seeds) == ("dqn", "E", (0, 4))
    assert (entry.finals.tolist(), entry.seconds) == ([2, 5], 7)
    assert entry.unfinished == (7,)  # it may have diverged, and is not passed over in silence
    assert scores.of_run(folder_of(tmp_path, {}), [4]).unfinished == ()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.json", {"format": 9}, "KeyError: 'agent'"),
        ("summary.json", '{"wall', "JSONDecodeError"),
        ("seed-0/result.json", '{"fin', "JSONDecodeError"),
        ("seed-0/result.json", {"seed": 0}, "'final_returns'"),
        ("seed-0/result.json", {"final_returns": [None, 1]}, "seed 0: a final return is no finite"),
        ("seed-4/evals.jsonl", "", "seed 4: has no evaluations"),
        ("seed-4/evals.jsonl", {"x": 1}, "'env_steps'"),
    ],
)
def test_a_damaged_folder_is_named(tmp_path, name, content, told):
    with pytest.raises(BadInput, match=told) as caught:
        scores.of_run(folder_of(tmp_path, {name: content}))
    assert f"{tmp_path}/run: damaged, or of another format" in str(caught.value)


# -- Stable-Baselines3's files -------------------------------------------------------------------


def test_evaluations_of_stable_baselines3(tmp_path):
    paths = []
    for seed in range(2):
        path = tmp_path / f"{seed}.npz"
        np.savez(path, timesteps=[100, 200], results=[[1.0, 3.0], [5.0 + seed, 7.0]])
        paths.append(str(path))
    found = scores.of_records("sb3:dqn@CartPole-v1", paths)
    assert (found.agent, found.env, found.seeds) == ("sb3:dqn", "CartPole-v1", (0, 1))
    np.testing.assert_array_equal(found.finals, [6, 6.5])
    np.testing.assert_array_equal(found.curves[0].means, [2, 6])
    assert found.budget == 200


def test_training_episodes_are_averaged_over_the_last_hundred(tmp_path):
    # returns 0, 1, ..., 149 of ten steps each: the mean of the last hundred is that of 50..149
    rows = "".join(f"{episode},10,{episode}.5\n" for episode in range(150))
    path = tmp_path / "a.monitor.csv"
    path.write_text(f'#{{"t_start": 5.0}}\nr,l,t\n{rows}')
    found = scores.of_records("old@E", [str(path)])
    assert found.finals == [np.arange(50, 150).mean()]
    np.testing.assert_array_equal(found.curves[0].means[:3], [0, 0.5, 1])
    assert found.budget == 1500
    assert found.training


@pytest.mark.parametrize("name", ["a", "@", "a@", "@e"])
def test_a_file_takes_a_name(name):
    with pytest.raises(BadInput, match="takes AGENT@ENV"):
        scores.of_records(name, ["x.npz"])


def test_a_file_that_is_missing():
    with pytest.raises(BadInput, match=r"x\.npz"):
        scores.of_records("a@e", ["x.npz"])
