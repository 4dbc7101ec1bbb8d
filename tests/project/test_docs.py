"""The pages of docs/: what they show runs, what they cite is what was measured, what they link to is there."""

import json
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from unittest import mock
from urllib.parse import unquote, urldefrag

import pytest
import typer

from helpers.pages import DOCS, PAGES, README, ROOT, blocks, commands, name, run_python
from sigmax import __all__ as public_names
from sigmax.cli.main import app
from sigmax.metrics import METRICS

TRAINS = {"tutorial", "none-of-these", "pictures", "sentence-transformers", "elsewhere"}
WALKED = {"tutorial"}  # from its first block to its last, commands and all, by a test of its own
BRIEF = ("--seeds", "1", "--rates", "1", "--scales", "1")


def marked(page):
    return pytest.param(page, id=name(page), marks=[pytest.mark.slow] if page.stem in TRAINS else [])


def holding(*languages):
    return [
        marked(page)
        for page in PAGES
        if page.stem not in WALKED and any(block.language in languages for block in blocks(page))
    ]


# -- what pages show -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")  # sentence-transformers sets it
@pytest.mark.parametrize("page", holding("python"))
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(METRICS):  # a page may add one
        run_python(page)


# What a training prints differs between machines.
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem not in TRAINS and "```text" in page.read_text("utf-8")], ids=name
)
def test_printed_output_is_shown(page, capsys, tmp_path, monkeypatch):
    """Where a block of Python is followed by its output, that is what it prints."""
    monkeypatch.chdir(tmp_path)
    shown = list(blocks(page))
    namespace = {"__name__": page.stem}
    for block, following in zip(shown, [*shown[1:], None], strict=True):
        if block.language != "python":
            continue
        exec(compile(block.text, name(page), "exec"), namespace)
        printed = capsys.readouterr().out
        if printed:
            assert following is not None
            assert following.language == "text"
            assert printed == following.text


def parsed(words):
    """Parse a command line as `sigmax` would, without running it."""
    group = typer.main.get_command(app)
    context = group.make_context("sigmax", words[1:])
    _, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    return command.make_context(command.name, rest, parent=context)


@pytest.mark.parametrize("page", [README, *PAGES], ids=name)
def test_commands_parse(page):
    for words in commands(page):
        parsed(words)


def test_commands_are_found_and_parsed():
    """The test above would see a command or an option that does not exist."""
    assert len([words for page in PAGES for words in commands(page)]) > 20
    assert ["sigmax", "train", "emoji", "--loss", "sigmoid", "-o", "runs/emoji"] in [
        *commands(DOCS / "how-to" / "many-machines.md")
    ]
    parsed(["sigmax", "check", "faq.csv"])
    for wrong in ("sigmax chekc faq.csv", "sigmax check faq.csv --colums a=b", "sigmax compare --seeds none"):
        with pytest.raises(Exception, match=r"No such (command|option)|valid integer"):
            parsed(shlex.split(wrong))


@pytest.mark.slow
def test_tutorial_from_its_first_block_to_its_last(sigmax, tmp_path, monkeypatch):
    """Every step in order, in an empty folder; only the comparison's search and seeds are cut short."""
    monkeypatch.chdir(tmp_path)
    namespace, printed = {"__name__": "tutorial"}, {}
    for block in blocks(DOCS / "tutorial.md"):
        if block.language == "python":
            exec(compile(block.text, "docs/tutorial.md", "exec"), namespace)
        elif block.language == "sh":
            for line in block.text.splitlines():
                program, *words = shlex.split(line)
                assert program == "sigmax"
                done = sigmax(*words, *(BRIEF if words[0] == "compare" else ()))
                assert done.code == 0, f"{line}\n{done.err}"
                printed[words[0]] = done.out
        elif block.title:
            assert [line.rstrip() for line in printed[block.title].splitlines()] == block.text.splitlines()
    made = ("helpdesk.html", "reliability.png", "table.png")
    for path in (*made, "runs/helpdesk/comparison.json", "runs/helpdesk/model/sigmax.json"):
        assert (tmp_path / path).exists()


# -- what pages cite -----------------------------------------------------------------------------

RESULTS = ROOT / "benchmarks" / "results"


def cited_tables(text):
    """Tables under `<!-- results: FILE -->`: the file, the metrics that head the columns, and the rows."""
    for file, table in re.findall(r"<!-- results: (\S+) -->\n((?:\|.*\n)+)", text):
        head, _, *rows = [[cell.strip(" `") for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
        yield file, head[1:], rows


def measured(file):
    """Row -> metric -> value, low, high, as a benchmark wrote them."""
    found = json.loads((RESULTS / file).read_text(encoding="utf-8"))
    if "ways" in found:
        return {f"({letter}) {way['way']}": way for letter, way in found["ways"].items()}
    return {result["name"]: result["test"] for result in found["results"]}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_tables_hold_what_was_measured(page):
    for file, metrics, rows in cited_tables(page.read_text(encoding="utf-8")):
        found = measured(file)
        assert [row[0] for row in rows] == list(found)
        for row, *cells in rows:
            expected = [
                "{value:.3f}<br>({low:.3f}–{high:.3f})".format(**found[row][metric]) if metric in found[row] else "–"
                for metric in metrics
            ]
            assert cells == expected, f"{file}, {row}"


def test_tables_are_found():
    tables = list(cited_tables((DOCS / "softmax-or-sigmoid.md").read_text(encoding="utf-8")))
    assert len(tables) >= 6
    assert all(metrics and len(rows) >= 2 for _, metrics, rows in tables)


def test_the_table_of_the_trainer_holds_what_was_measured():
    page = (DOCS / "how-to" / "sentence-transformers.md").read_text(encoding="utf-8")
    ((files, table),) = re.findall(r"<!-- trainer: (\S+) -->\n((?:\|.*\n)+)", page)
    head, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    for column, data in enumerate(head[1:], start=1):
        found = json.loads((RESULTS / f"{files}-{data.lower()}.json").read_text(encoding="utf-8"))["contenders"]
        assert [row[0] for row in rows] == list(found)
        for (_, first), row in zip(found.items(), rows, strict=True):
            value, less = first["map"]["all"], first["difference"]["all"]
            expected = "{value:.3f}".format(**value)
            if row is not rows[0]:
                expected += "<br>{value:+.3f} ({low:+.3f} to {high:+.3f})".format(**less).replace("-", "−")
            assert row[column] == expected, f"{data}, {row[0]}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_cited_files_exist(page):
    for path in re.findall(r"`((?:benchmarks|examples|docs|src)/[\w./-]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


# -- the site ------------------------------------------------------------------------------------


class Links(HTMLParser):
    """What a page links to, what it loads, and the anchors it has."""

    def __init__(self, html):
        super().__init__()
        self.to, self.loads, self.anchors = [], [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.to.append(given["href"])
        if tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") != "canonical" and given.get("href"):
            self.loads.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    # The theme warns of its own end of life; a warning of MkDocs about a page is an error, it builds strictly.
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.slow
def test_site_holds_every_page_and_no_dead_link(site):
    html = {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert {page.relative_to(DOCS).with_suffix(".html") for page in PAGES} <= {path.relative_to(site) for path in html}
    for path, links in html.items():
        if path.name == "404.html":  # its links are those of a server's root
            continue
        for link in [*links.to, *links.loads]:
            if re.match(r"https?:", link) and link in links.to:
                continue
            target, anchor = urldefrag(unquote(link))
            other = (path.parent / target).resolve() if target else path
            assert other.exists(), f"{path.name}: {link}"
            assert not anchor or other.suffix != ".html" or anchor in html[other].anchors, f"{path.name}: {link}"


@pytest.mark.slow
def test_site_loads_nothing_from_elsewhere(site):
    for path in site.rglob("*.html"):
        for link in Links(path.read_text(encoding="utf-8")).loads:
            assert not re.match(r"(https?:)?//", link), f"{path.name}: {link}"
    for path in site.rglob("*.css"):
        assert not re.findall(r"url\(\W?(?:https?:)?//", path.read_text(encoding="utf-8")), path.name


@pytest.mark.slow
def test_site_can_be_searched_from_disk(site):
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert "noisy-or" in index.lower()


@pytest.mark.slow
def test_command_line_page_is_that_of_the_help(site):
    text = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    for command in typer.main.get_command(app).commands:
        assert f'id="sigmax-{command}"' in text


def test_every_public_name_has_its_place_in_the_reference():
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    documented = [path.rpartition(".")[2] for path in re.findall(r"^::: (\S+)", text, re.MULTILINE)]
    assert {public for public in public_names if documented.count(public) != 1} == set()


def test_pages_are_found():
    assert {"index", "tutorial", "maths", "comparisons", "softmax-or-sigmoid"} <= {page.stem for page in PAGES}
