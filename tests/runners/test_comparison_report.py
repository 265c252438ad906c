import csv
import functools
import json
import math
import re

import numpy as np
import pytest

from runners import comparison, comparison_json, comparison_report, page, scores
from runners import comparison_tables as tables
from runners.comparison_curves import band_of, curves_figures, knows
from runners.comparison_pictures import drawn_pairs, how_sure, improvement_of
from runners.scores import Curve, Entry, Field
from runners.sequential import Decision, Look
from runners.verdict import verdict
from tests.runners.pages import Html, Shown, browser, markdown_tables

NASTY = "<script>alert('x')</script>"
AGENTS = (
    "dqn", "pqn", "rainbow", "dqn (n_step 3, double True)", "c51", "iqn", "munchausen", NASTY,
    "r2d2 & $friends$", "sb3:dqn", "quantile regression dqn with prioritized replay and dueling",
    "a_very_long_name_without_any_space_in_it_at_all",
)  # fmt: skip
ENVS = (
    "ALE/Pong-v5", "ALE/Breakout-v5", "ALE/Seaquest-v5", "ALE/Qbert-v5", "ALE/Assault-v5",
    "CartPole-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3", "nobody's:env|<b>",
)  # fmt: skip


@pytest.fixture(scope="module")
def quick():
    """Comparisons with few draws: what is tested here is what is made of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, draws in (
            ("aggregate_difference", {"resamples": 300}), ("aggregates", {"resamples": 300}),
            ("sign_flip_test", {"swaps": 999}),
        ):  # fmt: skip
            patch.setattr(comparison, name, functools.partial(getattr(comparison, name), **draws))
        yield


def table(path, agents, envs, seeds, points=6, timed=True):
    generator = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["agent", "env", "seed", "score", "env_steps", "seconds"])
        for a, agent in enumerate(agents):
            for env in envs:
                for seed in range(seeds):
                    for p in range(1, points + 1):
                        score = 100 * (a + 1) * p / points + 40 * generator.normal()
                        seconds = (a + 2) * p * (1 + 0.1 * seed) if timed else ""
                        rows.writerow([agent, env, seed, round(score, 3), 1000 * p, seconds])
    return path


def compared(path):
    return comparison.compare(scores.field_of(scores.of_csv(path)))


@pytest.fixture(scope="module")
def large(tmp_path_factory, quick):
    """Twelve agents on ten environments."""
    folder = tmp_path_factory.mktemp("large")
    made = compared(table(folder / "scores.csv", AGENTS, ENVS, seeds=3))
    comparison_report.write(made, folder)
    return made, folder


@pytest.fixture(scope="module")
def small(tmp_path_factory, quick):
    """Two agents on one environment."""
    folder = tmp_path_factory.mktemp("small")
    made = compared(table(folder / "scores.csv", ("dqn", NASTY), ("CartPole-v1",), seeds=6))
    comparison_report.write(made, folder)
    return made, folder


PICTURES = ("aggregates", "curves", "curves-time", "differences", "improvement", "profiles")


@pytest.fixture(params=["small", "large"])
def report(request):
    return request.getfixturevalue(request.param)


# -- The files -----------------------------------------------------------------------------------


def test_the_page_is_whole_and_asks_for_nothing(report):
    _, folder = report
    text = (folder / "report.html").read_text("utf-8")
    assert len(text.encode()) < 3_000_000
    shown = Html(text)
    assert not shown.errors
    assert {tag for tag, _ in shown.tags} & {
        "script",
        "img",
        "link",
        "iframe",
        "image",
        "object",
    } == set()
    for tag, attributes in shown.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    assert not re.findall(r"url\((?!#)|@import", text)
    assert "default-src 'none'" in shown.of("meta")[1]["content"]


def test_every_picture_has_words_and_a_file(report):
    _, folder = report
    shown = Html((folder / "report.html").read_text("utf-8"))
    pictures = shown.of("svg")
    assert len(pictures) == len(shown.of("figcaption")) == len(PICTURES)
    assert all(svg["role"] == "img" and len(svg["aria-label"]) > 20 for svg in pictures)
    assert sorted(path.stem for path in folder.glob("*.png")) == sorted(PICTURES)
    for name in PICTURES:
        data = (folder / f"{name}.png").read_bytes()
        width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
        assert 400 <= width <= 1188
        assert 150 <= height <= 2000
        assert f"]({name}.png)" in (folder / "report.md").read_text("utf-8")


def test_names_are_names(report):
    _, folder = report
    text = (folder / "report.html").read_text("utf-8")
    assert NASTY not in text
    shown = Html(text)
    assert any(NASTY in said for said in shown.said("text"))  # in a picture
    assert any(NASTY in said for said in shown.said("td"))
    assert NASTY not in (folder / "report.md").read_text("utf-8")


def test_markdown_html_and_json_tell_the_same(report):
    made, folder = report
    shown = Html((folder / "report.html").read_text("utf-8"))
    in_html = [[[" ".join(cell.split()) for cell in row] for row in rows] for rows in shown.tables]
    text = (folder / "report.md").read_text("utf-8")
    assert in_html == markdown_tables(text)
    record = comparison_json.to_json(made)
    for agent, figures in record["figures"].items():
        row = next(row for row in in_html[0] if row[0] == agent)
        for cell, one in zip(row[1:], figures.values(), strict=True):
            value, low, high = (float(x.replace(",", "")) for x in re.findall(r"[-\d.,e]*\d", cell))
            assert value == pytest.approx(one["value"], rel=1e-3, abs=1e-12)
            assert [low, high] == pytest.approx(one["interval"], rel=1e-3, abs=1e-12)
    items = [" ".join(item.split()) for item in shown.said("li")]
    assert {" ".join(line.split()) for line in record["verdict"]} <= set(items)
    assert set(record["notes"]) <= set(items)


def test_the_verdict_comes_first(small, large):
    for made, folder in (small, large):
        shown = Html((folder / "report.html").read_text("utf-8"))
        first = shown.said("li")[0]
        if len(made.pairs) == 1:
            assert first == verdict(made)[0]
        else:
            assert "has the highest IQM" in first
        assert shown.said("h2")[0] == "Verdict"
        assert next(tag for tag, _ in shown.tags if tag in ("li", "svg", "table")) == "li"


@pytest.mark.skipif(browser() is None, reason="no Chromium or Chrome is installed")
def test_a_browser_shows_it_and_asks_nobody(report, tmp_path):
    from matplotlib.image import imread

    shown = Shown(report[1] / "report.html", tmp_path)
    assert shown.console == []
    assert [url for url in shown.requests if not url.startswith("file:")] == []
    picture = imread(shown.picture)
    assert picture.shape[:2] == (1600, 1200)
    first = (np.abs(picture[..., :3] - np.array([0, 0x72, 0xB2]) / 255) < 0.01).all(axis=-1)
    assert first.sum() > 100  # the first agent's colour: pictures are there
    assert picture.std() > 0.05


@pytest.mark.skipif(browser() is None, reason="no Chromium or Chrome is installed")
def test_a_browser_tells_of_what_is_wrong(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://example.invalid/x.png'><script>console.error('no')</script>")
    shown = Shown(bad, tmp_path)
    assert any("no" in line for line in shown.console)
    assert "http://example.invalid/x.png" in shown.requests


# -- What is in it -------------------------------------------------------------------------------


def entry(agent, env="E", scores=(1.0, 2.0), curves=(), **more):
    return Entry(
        agent, env, tuple(range(len(scores))), np.array(scores), tuple(curves), agent, **more
    )


def field(*entries):
    agents = tuple(dict.fromkeys(one.agent for one in entries))
    envs = tuple(dict.fromkeys(one.env for one in entries))
    return Field(agents, envs, {(one.agent, one.env): one for one in entries})


def curve(means, steps=None, seconds=None):
    at = np.arange(1.0, len(means) + 1) if steps is None else np.array(steps, float)
    return Curve(at, None if seconds is None else np.array(seconds, float), np.array(means, float))


def test_a_band_is_of_all_seeds_where_all_were_evaluated():
    """At 2 and 4 the first has 2 and 4 and the second 0 and 2: means 1 and 3.

    Half a width is t(0.975, 1) = 12.7062 times s / sqrt(2), with s = 2 / sqrt(2): 12.7062.
    """
    band = band_of([curve([1, 2, 4], [1, 2, 4]), curve([0, 2, 9], [2, 4, 9])], "env_steps", 80)
    assert band.at.tolist() == [2, 4]
    assert band.mean.tolist() == [1, 3]
    assert band.high - band.mean == pytest.approx([12.7062] * 2, rel=1e-4)
    assert band.mean - band.low == pytest.approx([12.7062] * 2, rel=1e-4)
    assert np.isnan(band_of([curve([1, 2])], "env_steps", 80).low).all()


def test_seeds_that_were_evaluated_once_are_a_point():
    band = band_of([curve([1], [100]), curve([3], [104])], "env_steps", 80)
    assert (band.at.tolist(), band.mean.tolist()) == ([102], [2])


def test_long_curves_are_thinned():
    long = [curve(np.arange(1000.0)), curve(np.arange(1000.0))]
    assert len(band_of(long, "env_steps", 16).at) == 16


def test_time_is_drawn_for_those_who_tell_it():
    timed, untimed = curve([1, 2], seconds=[1, 2]), curve([1, 2])
    both = field(entry("a", curves=[timed, timed]), entry("b", curves=[timed, untimed]))
    assert [knows(one, "seconds") for one in both.entries.values()] == [True, False]
    ((envs, figure),) = curves_figures(both, "seconds", {"E": 1.5})
    assert envs == ["E"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "threshold"]
    assert list(curves_figures(field(entry("a"), entry("b")), "env_steps", {})) == []


def test_many_environments_are_several_figures():
    runs = [curve([1, 2]), curve([2, 2])]
    many = field(*(entry("a", f"E{n}", curves=runs) for n in range(57)))
    drawn = [envs for envs, _ in curves_figures(many, "env_steps", {})]
    assert list(map(len, drawn)) == [12, 12, 12, 12, 9]
    assert [env for envs in drawn for env in envs] == list(many.envs)


def test_an_agent_looks_the_same_in_every_picture(small):
    made, _ = small
    styles = {}
    for one in comparison_report.page_of(made).pictures():
        for axes in one.figure.axes:
            for line in axes.lines:
                if line.get_label() in made.field.agents:
                    styles.setdefault(line.get_label(), set()).add(
                        (line.get_color(), line.get_marker())
                    )
    assert {agent: len(found) for agent, found in styles.items()} == dict.fromkeys(
        ("dqn", NASTY), 1
    )


def test_the_matrix_of_improvement(small):
    made, _ = small
    chances = improvement_of(made)
    assert math.isnan(chances[0, 0])
    assert chances[0, 1] == made.pairs[0].improvement.value
    assert chances[0, 1] + chances[1, 0] == pytest.approx(1)


def test_of_many_pairs_those_of_the_best_are_drawn(small, large):
    assert len(drawn_pairs(small[0])) == 1
    made = large[0]
    pairs = drawn_pairs(made)
    best = max(made.field.agents, key=lambda agent: made.figures[agent]["IQM"].value)
    assert len(pairs) == 11
    assert all(best in (pair.a, pair.b) for pair in pairs)


def test_what_was_decided_by_several_looks_is_told_by_them(small):
    made, _ = small
    assert how_sure(made.pairs[0]).startswith("p = ")
    looks = (Look(3, 1.0, math.inf, 0.0), Look(6, 1.0, 0.5, 0.05))
    pair = made.pairs[0]._replace(p=0.9, looks=Decision("a", True, looks, 0.95))
    assert how_sure(pair) == "6 seeds, look 2"
    grid = tables.pairs_grid(made._replace(pairs=[pair]))
    assert (grid.header[2], grid.rows[0][2]) == ("seeds and looks", "6 seeds, look 2")
    assert tables.pairs_grid(made).header[2] == "p (Holm)"
    text = page.as_markdown(comparison_report.page_of(made._replace(pairs=[pair])))
    assert "allows for the looks" in text
    assert "Holm" not in text


def test_of_a_run_that_diverged_or_a_clock_that_was_set_back_less_is_told(tmp_path, quick):
    good = [curve([1, 2], seconds=[1, 2])] * 2
    nan = [curve([1, math.nan], seconds=[1, 2])] * 2
    back = [curve([1, 2], seconds=[2, 1])] * 2
    three = field(entry("a", curves=good), entry("b", curves=nan), entry("c", curves=back))
    grid = tables.env_grid(three, "E", 1.5)
    assert [row[-1].split(",")[0] for row in grid.rows] == [
        "2 of 2 reached",
        "not known",
        "not known",
    ]
    assert "takes numbers" in grid.rows[1][-3]
    assert [knows(one, "env_steps") for one in three.entries.values()] == [True, False, True]
    assert [knows(one, "seconds") for one in three.entries.values()] == [True, False, False]
    comparison_report.write(comparison.compare(three), tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "Over environment steps nothing is known of b on E." in text
    assert "Over wall time nothing is known of b on E, c on E." in text
    assert "there is none to compare at" in text


def test_a_name_in_a_table_imports_nothing(monkeypatch):
    """An environment may be called module:name; of somebody's table that is no reason to import it."""
    asked = []
    monkeypatch.setattr("runners.resolve.threshold", lambda env: asked.append(env) or 1.0)
    foreign = field(entry("a", "os:x"), entry("b", "os:x"))
    assert comparison_report.threshold_of(foreign, "os:x") is None
    assert asked == []
    ours = field(entry("a", "os:x", config={}), entry("b", "os:x", config={"env": "os:x"}))
    assert comparison_report.threshold_of(ours, "os:x") == 1.0


def test_scores_without_curves_have_a_report(tmp_path, quick):
    path = tmp_path / "scores.csv"
    path.write_text(
        "agent,env,seed,score\n" + "".join(f"{a},E,{k},{k}\n" for a in "ab" for k in range(4))
    )
    made = compared(path)
    comparison_report.write(made, tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "Over environment steps nothing is known of any run." in text
    assert "not decided: a and b have the same IQM" in text
    assert not (tmp_path / "curves.png").exists()
    assert json.loads(json.dumps(comparison_json.to_json(made)))["verdict"]


def test_a_full_disk_is_one_line(small, tmp_path, monkeypatch):
    from runners.errors import DiskFault

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("runners.files.replace", full)
    with pytest.raises(DiskFault, match="No space left"):
        page.write(comparison_report.page_of(small[0]), tmp_path)


def test_of_very_many_curves_only_the_means_are_drawn(monkeypatch):
    runs = [curve([1, 2]), curve([2, 2])]
    two = field(entry("a", curves=runs), entry("b", curves=runs))
    ((_, figure),) = curves_figures(two, "env_steps", {})
    assert len(figure.axes[0].collections) == 2
    assert "95 % band" in figure.texts[0].get_text()
    monkeypatch.setattr("runners.comparison_curves.MOST_BANDS", 1)
    ((_, figure),) = curves_figures(two, "env_steps", {})
    assert len(figure.axes[0].collections) == 0
    assert "band" not in figure.texts[0].get_text()
