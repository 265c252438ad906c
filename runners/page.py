"""A report as data, and the two ways in which it is written: one HTML file that needs nothing else, and Markdown.

Both have the same sections, numbers and pictures. Texts come from run folders and tables that anybody
may have written: they are escaped here, whatever they are, and the HTML allows neither scripts nor
anything from outside.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runners import files, pictures
from runners.errors import disk

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Text(NamedTuple):
    """A paragraph."""

    text: str
    warning: bool = False


class Lines(NamedTuple):
    """A list, a line each; the first of ``leading`` ones are what the report is there to say."""

    items: Sequence[str]
    leading: bool = False


class Grid(NamedTuple):
    """A table; all but its first column are figures, unless it is one of ``words``."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False


class Picture(NamedTuple):
    """A figure, which becomes ``name.png`` as well."""

    name: str
    figure: Figure
    alt: str  # what is to be seen, for those who cannot see it
    caption: str


class Folded(NamedTuple):
    """A part with a title that can be folded away; what only some readers look for is, at first."""

    title: str
    blocks: Sequence[Text | Lines | Grid | Picture]
    unfolded: bool = False


Block = Text | Lines | Grid | Picture | Folded


class Section(NamedTuple):
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


class Page(NamedTuple):
    """A whole report."""

    title: str
    sections: Sequence[Section]

    def pictures(self) -> Iterator[Picture]:
        """All of its figures, in order."""
        for section in self.sections:
            for block in section.blocks:
                for one in block.blocks if isinstance(block, Folded) else [block]:
                    if isinstance(one, Picture):
                        yield one


def write(page: Page, folder: Path) -> Path:
    """Write report.html, report.md and a PNG a picture into a folder that exists.

    Returns:
        The path of report.html, which is written last: where it is, everything is.

    Raises:
        DiskFault: the folder takes no more.
    """
    for picture in page.pictures():
        pictures.settle(picture.figure)
        pictures.save_figure(picture.figure, folder / f"{picture.name}.png")
    path = folder / "report.html"
    with disk(folder):
        files.replace(folder / "report.md", as_markdown(page).encode(), "report")
        files.replace(path, as_html(page).encode(), "report")
    return path


# -- HTML ----------------------------------------------------------------------------------------

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
FONTS = "'DejaVu Sans', Verdana, 'Liberation Sans', Arial, sans-serif"
STYLE = f"""
:root {{ color-scheme: light; }}
body {{ font: 15px/1.5 {FONTS}; color: #222; background: #fff; max-width: 1080px;
  margin: 0 auto; padding: 1.2em 1.2em 4em; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5em; line-height: 1.25; margin: 0 0 .6em; }}
h2 {{ font-size: 1.2em; margin: 2.2em 0 .6em; border-bottom: 1px solid #ccc; padding-bottom: .2em; }}
nav {{ font-size: .85em; margin: 1em 0; }}
nav a {{ margin-right: 1em; white-space: nowrap; display: inline-block; }}
a {{ color: #0b5394; }}
ul {{ padding-left: 1.2em; }}
li {{ margin: .25em 0; }}
ul.leading {{ list-style: none; padding: .7em 1em; margin: 1em 0; background: #f2f6fa;
  border-left: 4px solid #0072b2; }}
ul.leading li:first-child {{ font-weight: bold; }}
p.warning {{ padding: .5em 1em; background: #fdf3e1; border-left: 4px solid #d55e00; }}
p.warning::before {{ content: "Warning: "; font-weight: bold; }}
figure {{ margin: 1.2em 0; }}
figcaption {{ font-size: .85em; color: #444; margin-top: .4em; }}
svg {{ display: block; width: 100%; height: auto; }}
svg * {{ stroke-linejoin: round; stroke-linecap: butt; }}
svg text {{ font-family: {FONTS}; }}
.wide {{ overflow-x: auto; margin: .8em 0; }}
table {{ border-collapse: collapse; font-size: .82em; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3em .7em; text-align: right; vertical-align: top; border-bottom: 1px solid #ddd;
  overflow-wrap: break-word; }}
th {{ border-bottom: 2px solid #888; vertical-align: bottom; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; max-width: 22em; }}
table.words th, table.words td {{ text-align: left; max-width: 30em; }}
tbody tr:nth-child(even) {{ background: #f7f7f7; }}
details {{ margin: .8em 0; }}
summary {{ cursor: pointer; color: #0b5394; }}
@media print {{
  body {{ font-size: 9.5pt; max-width: none; padding: 0; -webkit-print-color-adjust: exact;
    print-color-adjust: exact; }}
  nav {{ display: none; }}
  h2 {{ break-after: avoid; }}
  figure, tr, li {{ break-inside: avoid; }}
  thead {{ display: table-header-group; }}
  .wide {{ overflow: visible; }}
  table {{ font-size: 7pt; }}
  th, td {{ padding: .2em .4em; overflow-wrap: anywhere; }}
  details::details-content {{ content-visibility: visible; height: auto; }}
  summary {{ color: inherit; list-style: none; }}
}}
"""


def as_html(page: Page) -> str:
    """The whole report as one file: styles and pictures are in it, scripts there are none."""
    title = html.escape(page.title)
    links = "".join(
        f'<a href="#section-{n}">{html.escape(section.title)}</a>\n'
        for n, section in enumerate(page.sections)
    )
    first, *rest = [
        f'<section id="section-{n}">\n<h2>{html.escape(section.title)}</h2>\n'
        + "".join(map(_html, section.blocks))
        + "</section>\n"
        for n, section in enumerate(page.sections)
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"{first}<nav>\n{links}</nav>\n{''.join(rest)}</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Text(text, warning):
            return f"<p{' class=warning' if warning else ''}>{html.escape(text)}</p>\n"
        case Lines(items, leading):
            inner = "".join(f"<li>{html.escape(item)}</li>\n" for item in items)
            return f"<ul{' class=leading' if leading else ''}>\n{inner}</ul>\n"
        case Grid(header, rows, words):
            head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
            body = "".join(
                f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>\n" for row in rows
            )
            return (
                f'<div class="wide"><table{" class=words" if words else ""}>\n<thead><tr>{head}</tr></thead>\n'
                f"<tbody>\n{body}</tbody>\n</table></div>\n"
            )
        case Picture(name, figure, alt, caption):
            drawn = svg_of(figure, name, alt)
            return (
                f"<figure>\n{drawn}\n<figcaption>{html.escape(caption)}</figcaption>\n</figure>\n"
            )
        case Folded(title, blocks, unfolded):
            inner = "".join(map(_html, blocks))
            return f"<details{' open' if unfolded else ''}>\n<summary>{html.escape(title)}</summary>\n{inner}</details>\n"


def _cell(text: str) -> str:
    """An interval is not broken where a line ends."""
    return html.escape(text).replace(" .. ", "\u00a0..\u00a0")


NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_REFERENCE = re.compile(r'(?:url\(#|href="#)([^")]+)')
_ID = re.compile(r' id="([^"]*)"')
_PLACES = re.compile(r' (?:d|x|y|transform|points)="[^"]*"')
_DIGITS = re.compile(r"(\.\d)\d+")  # a tenth of a point is less than a pixel
_FAMILIES = re.compile(r" ?font-family: [^;\"]*;?")
_NO_TURN = re.compile(r' transform="rotate\(-?0(?:\.0)? [^)]*\)"')
_GROUP = re.compile(r"<g(?: [^>]*)?>|</g>")


def svg_of(figure: Figure, name: str, alt: str) -> str:
    """A figure as an element of a page: with a text alternative, names of its own, and no address.

    Letters stay letters, so that they can be searched and read aloud. The same figure is the same
    text, bit for bit.
    """
    from matplotlib import rc_context

    drawn = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(drawn, format="svg", metadata=NO_METADATA)
    text = drawn.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(
        r"<!--.*?-->|<style.*?</style>|<metadata>.*?</metadata>", "", text, flags=re.DOTALL
    )
    text = text.replace("xlink:href=", "href=").replace("<defs>\n  \n </defs>", "")
    used = set(_REFERENCE.findall(text))  # the others are matplotlib's own names, and not unique
    text = _ID.sub(lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = _REFERENCE.sub(lambda m: m[0].replace(f"#{m[1]}", f"#{name}-{m[1]}"), text)
    text = _PLACES.sub(lambda m: _DIGITS.sub(r"\1", m[0]), text)
    text = _FAMILIES.sub("", text)  # the page's own style names them once
    text = _NO_TURN.sub("", text)
    text = _without_bare_groups(text)
    text = re.sub(r"\n\s*", "\n", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    width = figure.get_figwidth() * 96
    head = f'<svg {box[0]} role="img" aria-label="{html.escape(alt)}" style="max-width: {width:.0f}px">'
    return head + text[text.index(">") + 1 :]


def _without_bare_groups(text: str) -> str:
    """The same without groups that say nothing: half of matplotlib's."""
    said: list[bool] = []

    def kept(found: re.Match[str]) -> str:
        if found[0] != "</g>":
            said.append(found[0] != "<g>")
            return found[0] if said[-1] else ""
        return found[0] if said.pop() else ""

    return _GROUP.sub(kept, text)


# -- Markdown ------------------------------------------------------------------------------------

_SPECIAL = re.compile(r"[\\`*<>|$~&]|!(?=\[)|\](?=[(:\[])|(?<![^\W_])_|_(?![^\W_])")


def escaped(text: str) -> str:
    """A text that Markdown shows as it is: no markup, no link, no HTML, no new line."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def _line(text: str) -> str:
    """A text that begins a line: neither a heading nor an item of a list because of that."""
    return re.sub(r"^(?=[#+=-])|(?<=^\d)(?=[.)])", r"\\", escaped(text))


def as_markdown(page: Page) -> str:
    """The same report as Markdown, beside its PNG files."""
    parts = [f"# {escaped(page.title)}"]
    for section in page.sections:
        parts.append(f"## {escaped(section.title)}")
        parts += map(_markdown, section.blocks)
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Text(text, warning):
            return f"**Warning:** {escaped(text)}" if warning else _line(text)
        case Lines(items, _):
            return "\n".join(f"- {_line(item)}" for item in items)
        case Grid(header, rows, words):
            aligned = ["---", *["---" if words else "---:"] * (len(header) - 1)]
            lines = [[escaped(cell) or " " for cell in row] for row in (header, *rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], aligned, *lines[1:]))
        case Picture(name, _, alt, caption):
            return (
                f"![{escaped(alt).replace(']', chr(92) + ']')}]({name}.png)\n\n{escaped(caption)}"
            )
        case Folded(title, blocks, _):
            return "\n\n".join([f"### {escaped(title)}", *map(_markdown, blocks)])
