"""The pages of ``docs/`` are true: their Python runs, their links lead somewhere, their commands exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from kvmigrate.cli.main import app_with
from tests.docs.pages import DOCS, Block, blocks, name_of, pages, prose

PAGES = pages()
PYTHON = [block for page in PAGES for block in blocks(page, "python")]
REJECTED = ("legacy", "origin", "sink", "dead_letter", "dlq", "mismatch", "slave", "old_new")
# The seven shapes of documentation, as the index has them.
SHAPES = ("Tutorial", "How to", "Commands", "Concepts", "Discussions", "Glossary", "Reference")

_LOGGED = re.compile(r"\d{4}-\d\d-\d\dT\S+ +\[warning")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ANCHOR = re.compile(r'<a id="([^"]+)">')
_INLINE = re.compile(r"`(kvmigrate [^`]+)`")
_PROMPT = re.compile(r"^\$ (kvmigrate .+)$", re.MULTILINE)
_SHELL_WORDS = {"|", ">", "&&", ";", "#"}


def anchors(page: Path) -> set[str]:
    """Return what ``#...`` may name in a page: its headings as GitHub spells them, and its own anchors."""
    text = prose(page)
    heads = {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in _HEADING.findall(text)}
    return heads | set(_ANCHOR.findall(text))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link names a file, and a heading of it, that exist."""
    broken = []
    for link in _LINK.findall(prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert [] == broken


def test_every_page_is_in_the_index() -> None:
    """From the index each page can be reached."""
    seen, pending = set[Path](), [DOCS / "README.md"]
    while pending:
        page = pending.pop()
        if page in seen or page.suffix != ".md" or DOCS not in page.parents:
            continue
        seen.add(page)
        pending += [(page.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(page))]
    assert [] == [name_of(page) for page in PAGES if page not in seen]


def test_index_has_the_seven_shapes() -> None:
    """The index has a heading for each shape of documentation."""
    heads = [head.partition(":")[0] for head in _HEADING.findall(prose(DOCS / "README.md"))[1:]]
    assert list(SHAPES) == heads


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.where)
def test_python_runs(block: Block) -> None:
    """Each Python block runs on its own, and says nothing but what the package logs."""
    done = subprocess.run([sys.executable, "-c", block.text], capture_output=True, text=True, timeout=60, check=False)
    assert [] == [line for line in done.stderr.splitlines() if not _LOGGED.match(line)]
    assert 0 == done.returncode


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_words(page: Path) -> None:
    """No page uses a word that the house rejects."""
    text = page.read_text(encoding="utf-8").lower()
    assert [] == [word for word in REJECTED if re.search(rf"\b{word}\b", text)]


def commands_of(page: Path) -> list[str]:
    """Return the commands that a page tells people to type."""
    found = [line for block in blocks(page, "console") for line in _PROMPT.findall(block.text)]
    return found + _INLINE.findall(prose(page))


def unknown(words: list[str]) -> str:
    """Return the first word that the program does not know: a command or an option; "" when it knows all."""
    command: Any = typer.main.get_command(app_with())
    known = {"--help"}
    for word in words[1:]:
        if word in _SHELL_WORDS:
            break
        if word.startswith("-"):
            options = {option for each in command.params for option in each.opts + each.secondary_opts}
            if word.partition("=")[0] not in options | known:
                return word
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return "" if word.isupper() else word
            command = command.commands[word]
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    """Each command on the page, and each of its options, is one of the program."""
    wrong = {}
    for line in commands_of(page):
        # What stands in brackets may be left away; the names inside are checked all the same.
        words = shlex.split(re.sub(r"[\[\]]", " ", line), comments=True)
        if found := unknown(words):
            wrong[line] = found
    assert {} == wrong


def test_every_command_has_a_page() -> None:
    """Each command of the program has its page, and each page its command."""
    program: Any = typer.main.get_command(app_with())
    assert sorted(program.commands) == [page.stem for page in PAGES if page.parent == DOCS / "commands"]


def test_a_wrong_command_is_found() -> None:
    """The check of commands can fail."""
    assert "--sauce" == unknown(["kvmigrate", "backfill", "--sauce", "x"])
    assert "backfil" == unknown(["kvmigrate", "backfil"])
    assert "lst" == unknown(["kvmigrate", "quarantine", "lst"])


def test_glossary_words_are_used() -> None:
    """Each word that the glossary explains stands on some other page."""
    glossary = DOCS / "glossary.md"
    others = " ".join(page.read_text(encoding="utf-8").lower() for page in PAGES if page != glossary)
    terms = re.findall(r"^\| <a id=\"[^\"]+\"></a>([^|]+) \|", glossary.read_text(encoding="utf-8"), re.MULTILINE)
    assert terms
    words = [word.strip() for term in terms for word in term.lower().split(",")]
    assert [] == [word for word in words if word not in others]
