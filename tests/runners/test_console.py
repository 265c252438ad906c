import errno
import io
import math
import re
import timeit

import pytest

from runners import console
from runners.console import (
    PlainConsole,
    Rates,
    RichConsole,
    SilentConsole,
    Status,
    duration,
    human,
    make_console,
    mean_return,
    number,
    progress_line,
    rate,
    seconds_left,
    seed_range,
)


def status(seconds, lane_steps=0, env_steps=0, updates=0, returns=None, solved=0):
    return Status(lane_steps, 2 * lane_steps, env_steps, updates, returns or {}, solved, seconds)


class Clock:
    """Stands still until it is told to move."""

    now = 100.0

    def __call__(self):
        return self.now


def terminal(monkeypatch, width=100):
    """A stream that says it is a terminal."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (7, "7"), (999, "999"), (999.9, "1k"), (1000, "1k"), (12_345, "12.3k"),
     (999_999, "1M"), (1_200_000, "1.2M"), (3.2e9, "3.2G"), (5e12, "5T"), (0.25, "0.25"),
     (-1500, "-1.5k")],
)  # fmt: skip
def test_human_counts(count, text):
    assert human(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(500.0, "500"), (0.74123, "0.7412"), (-13.0, "-13"), (12345.6, "12,346"), (-0.0, "-0"),
     (math.nan, "nan"), (-math.inf, "-inf"), (1.2e-7, "1.2e-07")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (8.12, "8.1 s"), (59.94, "59.9 s"), (59.96, "1:00"), (125, "2:05"),
     (3599.6, "1:00:00"), (90_061, "25:01:01"), (math.inf, "?"), (math.nan, "?")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_seeds_in_words():
    assert seed_range([4]) == "seed 4"
    assert seed_range(range(3, 8)) == "seeds 3-7"
    assert seed_range([1, 3]) == "seeds 1, 3"


def test_spread_over_seeds():
    assert mean_return({}) == "-"
    assert mean_return({7: -200.0}) == "-200"
    assert mean_return({0: 400.0, 1: 500.0, 2: 450.0}) == "450 [400 .. 500]"


def test_rate_and_time_left():
    assert rate(100, 4.0) == 25
    assert rate(100, 0.0) == 0
    assert seconds_left(200, 1000, 40.0) == 20
    assert seconds_left(0, 1000, 0.0) == math.inf
    assert seconds_left(1000, 1000, 0.0) == 0


def test_rates_are_of_the_recent_past():
    rates = Rates(window=10)
    assert rates.env_steps == 0
    rates.add(status(2, env_steps=100))
    assert rates.env_steps == 50  # the only one: since the start
    for second in range(3, 30):
        rates.add(status(second, env_steps=100, lane_steps=second * 8, updates=second * 3))
    assert rates.env_steps == 0  # nothing moved in the window
    assert rates.lane_steps == 8
    assert rates.updates == 3
    assert rates.seen[-1].seconds - rates.seen[0].seconds == 10


def test_a_resumed_run_does_not_count_what_was_done_before():
    rates = Rates(window=10)
    rates.add(status(1000, env_steps=10**6))
    rates.add(status(1002, env_steps=10**6 + 50))
    assert rates.env_steps == 25


def test_quiet_is_silent(capfd):
    shown = make_console(quiet=True)
    assert isinstance(shown, SilentConsole)
    shown.start("dqn", 100, [0])
    shown.update(status(1))
    shown.message("hello")
    shown.stop()
    assert capfd.readouterr() == ("", "")


def test_the_factory_looks_at_standard_error(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(make_console(quiet=False), PlainConsole)
    monkeypatch.setattr("sys.stderr", terminal(monkeypatch))
    assert isinstance(make_console(quiet=False), RichConsole)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_console(quiet=False), PlainConsole)


def test_plain_lines_come_every_ten_seconds_and_at_the_end():
    stream, clock = io.StringIO(), Clock()
    shown = PlainConsole(stream, clock)
    shown.start("dqn on CartPole-v1", 1000, [0, 1])
    for second in range(1, 26):
        clock.now += 1
        shown.update(status(second, second * 8, second * 15, second, {0: 20.0, 1: 30.0}, 1))
    shown.stop()
    shown.stop()  # once is enough
    lines = stream.getvalue().splitlines()
    assert lines[0] == "dqn on CartPole-v1: seeds 0-1, 1k lane steps each"
    assert [line.split(",")[0] for line in lines[1:]] == [
        "80 of 1k lane steps", "160 of 1k lane steps", "200 of 1k lane steps",
    ]  # fmt: skip
    assert lines[1] == (
        "80 of 1k lane steps, 150 env steps in 10.0 s, 15 steps/s, 1 updates/s, "
        "return 25 [20 .. 30], 1 of 2 solved, 1:55 left"
    )
    assert stream.getvalue().isascii()


def test_messages_are_plain_lines_at_any_time():
    stream = io.StringIO()
    shown = PlainConsole(stream)
    shown.message("before the start")
    shown.start("dqn", 10, [0])
    shown.message("seed 0 solved [really]")
    shown.stop()  # no update came, so there is no last line
    assert stream.getvalue().splitlines() == [
        "before the start", "dqn: seed 0, 10 lane steps each", "seed 0 solved [really]",
    ]  # fmt: skip


def test_a_closed_log_does_not_stop_the_run():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    shown = PlainConsole(Closed())
    shown.start("dqn", 10, [0])
    shown.message("into the void")


def test_the_panel_is_redrawn_a_few_times_a_second(monkeypatch):
    clock = Clock()
    shown = RichConsole(terminal(monkeypatch), clock)
    shown.start("dqn", 1000, [0])
    drawn = []
    monkeypatch.setattr(shown, "_draw", lambda status: drawn.append(clock.now))
    for _ in range(1000):
        clock.now += 0.001
        shown.update(status(1))
    shown.stop()
    assert 2 <= len(drawn) <= 8


@pytest.mark.parametrize("kind", [PlainConsole, RichConsole])
def test_a_run_outlives_its_terminal(kind, monkeypatch):
    stream = terminal(monkeypatch)
    shown = kind(stream, Clock())
    shown.start("dqn", 1000, [0])

    def gone(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(stream, "write", gone)
    monkeypatch.setattr(stream, "flush", gone)
    shown.update(status(1))
    shown.message("still here")
    shown.stop()


def test_the_panel_shows_everything(monkeypatch):
    stream, clock = terminal(monkeypatch), Clock()
    shown = RichConsole(stream, clock)
    shown.start("dqn on [red]Cart", 1000, [0, 1])  # nobody's name is markup
    shown.update(status(2, 250, 480, 60, {0: 400.0, 1: 500.0}, 1))
    shown.message("seed 1 solved [confirmed]")
    picture = stream.getvalue()
    for part in ("dqn on [red]Cart, seeds 0-1", "250 of 1k lane steps", "6.0 s left", "240/s",
                 "30/s", "450 [400 .. 500]", "1 of 2", "seed 1 solved [confirmed]"):  # fmt: skip
        assert part in picture
    shown.stop()
    last = stream.getvalue().splitlines()[-1]
    assert "250 of 1k lane steps, 480 env steps in 2.0 s" in last


def test_the_panel_shows_where_the_time_of_late_went_in_one_line(monkeypatch):
    for width, expected in (
        (100, "spent simulate 60 %, learn 40 %"),
        (30, "spent simulate 60 %, lear\u2026"),
    ):
        stream = terminal(monkeypatch, width)
        shown = RichConsole(stream, Clock())
        shown.start("dqn", 1000, [0])
        for seconds in (100, 110):  # of the first 100 seconds all went into learning
            learn = 100.0 if seconds == 100 else 104.0
            now = status(seconds, seconds)._replace(
                spent={"learn": learn, "simulate": seconds - learn}
            )
            shown._draw(now)
        assert expected in re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
        assert shown.live.get_renderable().renderable.row_count == 3
        shown.stop()


def test_shares_of_the_time_before_anything_is_known():
    rates = Rates(window=10)
    assert rates.time_shares == {}
    rates.add(status(4)._replace(spent={"act": 1.0, "learn": 2.0}))
    assert rates.time_shares == {"act": 0.25, "learn": 0.5}  # the only one: since the start


def test_the_panel_leaves_standard_output_alone(monkeypatch, capsys):
    shown = RichConsole(terminal(monkeypatch))
    shown.start("dqn", 1000, [0])
    print("the result")  # noqa: T201
    shown.stop()
    assert capsys.readouterr().out == "the result\n"


def test_a_second_group_starts_afresh(monkeypatch):
    stream = terminal(monkeypatch)
    shown = RichConsole(stream, Clock())
    shown.start("dqn", 1000, [0])
    shown.update(status(2, 1000, 1000))
    shown.start("dqn", 1000, [1])
    shown.update(status(1, 10, 10))
    shown.stop()
    assert "10/s" in stream.getvalue()
    assert "10 of 1k lane steps, 10 env steps in 1.0 s, 10 steps/s" in stream.getvalue()


@pytest.mark.parametrize("kind", [PlainConsole, RichConsole, SilentConsole])
def test_an_update_that_shows_nothing_costs_next_to_nothing(kind, monkeypatch):
    shown = kind() if kind is SilentConsole else kind(terminal(monkeypatch))
    shown.start("dqn", 10**6, [0])
    now = status(1)
    shown.update(now)
    shown.due = math.inf
    best = min(timeit.repeat(lambda: shown.update(now), number=2000, repeat=20)) / 2000
    shown.stop()
    assert best < 3e-6


def test_a_line_holds_what_the_panel_holds():
    task = console.Task("dqn", 100, 3)
    line = progress_line(task, status(5, 100, 90, 10, {2: 1.0}, 3), Rates(10))
    assert line.endswith("return 1, 3 of 3 solved, 0.0 s left")


def test_what_has_ended_has_no_time_left():
    """A run that was solved early is done, whatever its budget was."""
    stream = io.StringIO()
    console = PlainConsole(stream)
    console.start("x", 1_000, [2])
    console.update(status(5, 100, 90, 10, {2: 1.0}, 1))
    console.stop()
    assert "1 of 1 solved" in stream.getvalue().splitlines()[-1]
    assert "left" not in stream.getvalue()
