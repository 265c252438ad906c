import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.page import (
    Folded,
    Grid,
    Lines,
    Page,
    Picture,
    Section,
    Text,
    as_html,
    as_markdown,
    write,
)
from runners.pictures import plain_text, style_of, wrapped
from tests.runners.pages import Html, markdown_tables, unescaped

NASTY = "<script>alert('x')</script> & \"q\" | $a_b$ `c` *d* [e](http://evil.example) ![f](g)"
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)


def figure(*names):
    from matplotlib.figure import Figure

    with plain_text():
        made = Figure(figsize=(8, 4), dpi=100)
        axes = made.subplots()
        for name in names:
            axes.plot([0, 1], [0, 1], "o", label=name)
        axes.legend()
    return made


def page(text=NASTY):
    blocks = [
        Text(text), Text(text, warning=True), Lines([text, "b"], leading=True),
        Grid(["agent", text], [[text, "1.5 [1 .. 2]"]]),
        Folded(text, [Grid(["x"], [[text]], words=True)]),
    ]  # fmt: skip
    return Page(text, [Section("one", blocks), Section("two", [Text("end")])])


@given(TEXTS)
def test_whatever_is_written_is_shown_as_it_is(text):
    shown = Html(as_html(page(text)))
    assert not shown.errors
    assert shown.of("script") == []
    assert "".join(shown.said("h1")) == text
    assert shown.tables[0][1][0] == text.replace(" .. ", "\u00a0..\u00a0")
    assert "".join(shown.said("summary")) == text


@given(TEXTS)
def test_markdown_shows_it_as_it_is_too(text):
    tables = markdown_tables(as_markdown(page(text)))
    assert tables[0][0][1] == " ".join(text.split())
    assert tables[0][1][1] == "1.5 [1 .. 2]"


def test_markdown_has_no_markup_of_others():
    text = as_markdown(page())
    for start in ("<script", "](http", "![f", "| $", "`c`", "*d*"):
        assert not re.search(r"(?<!\\)" + re.escape(start), text.replace("**Warning:**", "")), start
    assert "q_learning_2" in as_markdown(page("q_learning_2"))  # no emphasis within a word
    assert "\n\\# x\n" in as_markdown(page("# x"))
    assert "\n- \\- x\n" in as_markdown(page("- x"))
    assert r"\_x\_" in as_markdown(page("_x_"))
    assert unescaped(text).count(NASTY) == 8


def test_nothing_from_outside_can_be_asked_for():
    shown = Html(as_html(page()))
    policy = shown.of("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert [a["href"] for a in shown.of("a")] == ["#section-0", "#section-1"]


def test_a_picture_is_drawn_in_the_page_and_beside_it(tmp_path):
    made = Page(
        "t", [Section("s", [Picture("fig", figure(NASTY, "$x^"), "two <dots>", "caption & all")])]
    )
    path = write(made, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fig.png", "report.html", "report.md"]
    data = (tmp_path / "fig.png").read_bytes()
    assert [int.from_bytes(data[i : i + 4], "big") for i in (16, 20)] == [800, 400]
    text = path.read_text("utf-8")
    shown = Html(text)
    assert not shown.errors
    (svg,) = shown.of("svg")
    assert (svg["role"], svg["aria-label"], svg["viewbox"]) == ("img", "two <dots>", "0 0 576 288")
    assert NASTY in shown.said("text")  # letters, not outlines; and no formula
    assert "$x^" in shown.said("text")
    assert "xmlns" not in text
    assert "<g>" not in text
    assert "font-family" not in text[text.index("<svg") :]
    assert "http" not in text.replace("http-equiv", "").replace("http://evil.example", "")
    assert "![two \\<dots\\>](fig.png)" in (tmp_path / "report.md").read_text("utf-8")


def test_two_pictures_do_not_share_names():
    blocks = [Picture(name, figure("a"), "alt", "") for name in ("one", "two")]
    text = as_html(Page("t", [Section("s", blocks)]))
    ids = [attributes["id"] for _, attributes in Html(text).tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 2
    used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text)
    assert {a or b for a, b in used} <= set(ids)


def test_the_same_is_the_same_bit_for_bit():
    def drawn():
        return as_html(Page("t", [Section("s", [Picture("p", figure("a", "b"), "alt", "c")])]))

    assert drawn() == drawn()


def test_agents_are_told_apart_without_colours():
    styles = [style_of(i) for i in range(252)]
    assert len(set(map(str, styles))) == 252
    grey = {(str(style.dash), style.marker) for style in styles[:12]}
    assert len(grey) == 12


@pytest.mark.parametrize(("name", "lines"), [("a", 1), ("a b " * 10, 2), ("x" * 60, 3), (" ", 1)])
def test_long_names_are_wrapped(name, lines):
    assert wrapped(name).count("\n") == lines - 1
    assert all(len(line) <= 26 for line in wrapped(name).split("\n"))
