import math

import numpy as np
import pytest

from agents import planning
from runners import outcome, train, weights
from runners.errors import BadInput
from runners.evaluate import Evaluation, evaluate, main, print_evaluation
from runners.evaluation import Purpose
from runners.policy import open_setting
from runners.resolve import make_config
from runners.run_folder import RunFolder, create_run
from runners.stats import t_interval


def test_it_is_what_the_evaluator_gives(lake):
    setting, evaluator = open_setting(lake), open_setting(lake).evaluator()
    found = evaluate(lake, episodes=50)
    for k, seed in enumerate((0, 1)):
        params = weights.load_weights(lake.seed(seed).best)
        alone = evaluator.returns(params, [seed], 50, Purpose.COMMAND)
        assert found.returns[k].tolist() == alone[0].tolist()
        assert found.lane_steps[k] == params.lane_steps
    assert found.seeds == [0, 1]
    assert 0 < found.returns.mean() < 1  # else equal would mean nothing
    assert found.optimal_value == pytest.approx(planning.optimal_value(setting.mdp, 100))


def test_groups_in_parts_are_the_same(lake, monkeypatch):
    from agents import tabular

    together = evaluate(lake, episodes=20)
    monkeypatch.setattr(tabular, "GROUP", 1)
    apart = evaluate(lake, episodes=20)
    assert apart.returns.tolist() == together.returns.tolist()
    assert apart.policy_value == together.policy_value
    assert apart.max_q_error == together.max_q_error


def test_a_seed_and_the_last_weights(lake):
    (error,) = evaluate(lake, [1], 10, last=True).max_q_error
    assert error == lake.summary()["max_q_error"][1]
    assert (
        evaluate(lake, [1], 10).returns.tolist() == evaluate(lake, episodes=10).returns[1:].tolist()
    )


def test_double_q_learnings_value_is_the_mean_of_its_tables(tmp_path):
    config = make_config("double_q", "FrozenLake-v1", steps=2_000, initial_value=0.5)
    run = train.run(config, [0], tmp_path)
    setting, params = open_setting(run), weights.load_weights(run.seed(0).last)
    a, b = params.tensors["q"][0].numpy()
    assert (a != b).any()
    assert outcome.at_states(setting, params, 1, 16)[0][0].tolist() == ((a + b) / 2).tolist()
    error = planning.max_q_error(setting.mdp, (a + b) / 2, config.hyper.gamma)
    assert evaluate(run, episodes=1, last=True).max_q_error == [pytest.approx(error)]


def test_the_exact_value_is_the_mean_of_many_episodes(lake):
    found = evaluate(lake, [0], 5_000)
    assert found.returns.mean() == pytest.approx(
        found.policy_value[0], abs=4 * 0.5 / math.sqrt(5000)
    )


def test_the_table(lake, capsys):
    assert main(["--episodes", "40", str(lake.path)]) == 0
    first = capsys.readouterr().out
    assert main([str(lake.path), "--episodes", "40"]) == 0
    assert capsys.readouterr().out == first
    assert first.isascii()
    for word in ("seed", "mean return", "95 %", "policy value", "max |Q-Q*|", "optimal"):
        assert word in first
    assert "q_learning on FrozenLake-v1, best weights, 40 episodes" in first


def test_the_numbers_in_the_table(capsys):
    returns = np.array([[1.0, 3.0], [5.0, 7.0]])
    print_evaluation(Evaluation([4, 9], [100, 2000], returns, cut_after=1000), "x")
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")]
            for line in capsys.readouterr().out.splitlines() if line.startswith("|")]  # fmt: skip
    # Two values x, y: the half width is t(0.975, 1) * |x - y| / 2, with t = 12.7062.
    assert rows[2][:4] == ["4", "100", "2", "-10.71 .. 14.71"]
    assert rows[3] == ["9", "2,000", "6", "-6.706 .. 18.71", "5", "7"]
    assert rows[-1][:4] == ["mean", "", "4", "-21.41 .. 29.41"]
    assert t_interval([2.0, 6.0]).hi == pytest.approx(29.41, abs=0.005)


def test_quiet_is_one_number(lake, capsys):
    assert main([str(lake.path), "--quiet", "--seed", "1", "0"]) == 0
    assert float(capsys.readouterr().out) == evaluate(lake).returns.mean()


def test_a_network_has_no_exact_figures(cartpole, capsys):
    assert main([str(cartpole.path), "--episodes", "5"]) == 0
    out = capsys.readouterr().out
    assert "policy value" not in out
    assert "optimal" not in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "RUN"),
        (["{run}", "--episodes", "0"], "got 0, takes a whole number from 1 on"),
        (["{run}", "--seed", "5"], "has the seeds 0, 1"),
        (["{run}", "--loud"], "--loud"),
        (["nothing", "--out", "{out}"], "there are q_learning-FrozenLake"),
    ],
)
def test_bad_input_is_one_line(lake, capsys, argv, words):
    places = {"run": lake.path, "out": lake.path.parent}
    assert main([arg.format(**places) for arg in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err


def test_a_run_that_has_learned_nothing_yet(lake, tmp_path, capsys):
    begun = create_run(tmp_path, lake.name, lake.config())
    for seeds in ([], [0]):
        for seed in seeds:
            begun.seed(seed)
        assert main([str(begun.path)]) == 2
        assert "no seed has best weights yet" in capsys.readouterr().err
    with pytest.raises(BadInput, match="seed 0 has no best weights yet"):
        evaluate(RunFolder(begun.path), [0])


def test_seeds_that_are_not_trained_are_named(lake, tmp_path, capsys):
    begun = create_run(tmp_path, lake.name, lake.config())
    weights.save_weights(begun.seed(1).best, weights.load_weights(lake.seed(1).best))
    begun.seed(2)
    assert main([str(begun.path), "--episodes", "10"]) == 0
    assert capsys.readouterr().out.endswith("not trained yet: seed 2\n")


def test_help_says_what_it_does(capsys):
    assert main(["--help"]) == 0
    assert "examples:" in capsys.readouterr().out
