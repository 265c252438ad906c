"""What a browser and a reader of Markdown make of a report, for tests."""

import html.parser
import json
import os
import re
import shutil
import subprocess

VOID = {"meta", "img", "br", "hr", "link", "input"}
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")


class Html(html.parser.HTMLParser):
    """A page, parsed: its tags with their attributes, its texts, its tables, its pictures' texts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.tables, self.open = [], [], [], []
        self.errors = []
        self.feed(text)
        self.close()
        self.errors += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"</{tag}> closes something else, line {self.getpos()[0]}")

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag):
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]

    def said(self, tag):
        """All that stands in elements of a kind, one after the other."""
        return [text for name, text in self.texts if name == tag]


def unescaped(text):
    """Markdown's backslashes taken away."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


def markdown_tables(text):
    """The cells of all tables, the line below the header left out."""
    tables, inside = [], False
    for line in text.splitlines():
        if not line.startswith("| "):
            inside = False
            continue
        if not inside:
            tables.append([])
        inside = True
        cells = re.split(r"(?<!\\) \| ", line[2:-2])
        if not all(re.fullmatch(r"---:?", cell) for cell in cells):
            tables[-1].append([unescaped(cell).strip() for cell in cells])
    return tables


def browser():
    """A browser without a window that is installed here, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Shown:
    """A page in a browser that reaches nobody: what it complained of, what it asked for, how it looked."""

    def __init__(self, page, folder, size=(1200, 1600)):
        log, self.picture = folder / "net.json", folder / "screenshot.png"
        done = subprocess.run(
            [
                browser(), *(["--no-sandbox"] if os.geteuid() == 0 else []), "--headless",
                "--disable-gpu", "--hide-scrollbars", "--disable-background-networking",
                f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}",
                "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0",
                f"--log-net-log={log}", f"--screenshot={self.picture}", page.as_uri(),
            ],
            check=True, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        self.console = [line for line in done.stderr.splitlines() if ":CONSOLE:" in line]
        self.requests = re.findall(r'"url":"(\w+:[^"]*)"', log.read_text("utf-8"))
        assert json.loads(log.read_text("utf-8"))["events"]
