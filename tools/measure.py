"""Measure the house: sizes of files and functions, comments, tests, parameters, words.

``python tools/measure.py`` prints numbers; ``--check`` also ends with 1 when a hard budget is broken.
"""

import argparse
import ast
import io
import re
import statistics
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

MAX_FILE_LINES = 600
MAX_TEST_FILE_LINES = 800
MAX_FUNCTION_LINES = 80
MAX_POSITIONAL = 6
REJECTED_MODULES = frozenset({"utils", "util", "common", "helpers", "helper", "manager"})
REJECTED_WORDS = frozenset({"legacy", "origin", "sink", "dead_letter", "dlq", "mismatch", "slave", "old_new"})
SEAMS = frozenset({"stores", "target", "flags"})
"""Packages that may have a module called ``base``."""

SOURCES = ("kvmigrate",)
TESTS = ("tests",)
TOOLS = ("tools", "bench", "examples")


class Function(NamedTuple):
    """One function: where it stands, its lines without docstring, its positional parameters."""

    file: Path
    line: int
    name: str
    lines: int
    positional: int


class Source(NamedTuple):
    """One Python file: its lines, the lines that are comments only or end in one, its functions, its public names."""

    path: Path
    lines: int
    comments: int
    functions: Sequence[Function]
    public: Sequence[tuple[int, str]]


def read(root: Path, folders: Sequence[str]) -> list[Source]:
    """Return every Python file below *folders* of *root*, in order of path."""
    return [read_file(path) for folder in folders for path in sorted((root / folder).rglob("*.py"))]


def read_file(path: Path) -> Source:
    """Return what there is to measure in the file *path*."""
    text = path.read_text()
    tree = ast.parse(text, str(path))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return Source(
        path=path,
        lines=len(text.splitlines()),
        comments=sum(token.type == tokenize.COMMENT for token in tokens),
        functions=[_function(path, node) for node in ast.walk(tree) if isinstance(node, _FUNCTION)],
        public=list(_public_names(tree)),
    )


_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def _function(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    return Function(path, node.lineno, node.name, lines, len(names) - (names[:1] in (["self"], ["cls"])))


def _public_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the names of modules, classes and functions that callers see, with their parameters."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, *_FUNCTION)) and not node.name.startswith("_"):
            yield node.lineno, node.name
            if isinstance(node, _FUNCTION):
                arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                yield from ((argument.lineno, argument.arg) for argument in arguments)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((node.lineno, target.id) for target in targets if isinstance(target, ast.Name))


def broken_budgets(root: Path) -> list[str]:
    """Return one line per broken hard budget, as ``file:line: what``; empty if the house is in order."""
    sources, tests = read(root, SOURCES), read(root, TESTS)
    found = [
        f"{source.path.relative_to(root)}:1: {source.lines} lines, the budget is {budget}"
        for files, budget in ((sources, MAX_FILE_LINES), (tests, MAX_TEST_FILE_LINES))
        for source in files
        if source.lines > budget
    ]
    for source in sources:
        found += _broken_functions(root, source)
        found += _broken_names(root, source)
    return found


def _broken_functions(root: Path, source: Source) -> Iterator[str]:
    for function in source.functions:
        where = f"{source.path.relative_to(root)}:{function.line}: {function.name}"
        if function.lines > MAX_FUNCTION_LINES:
            yield f"{where} has {function.lines} lines, the budget is {MAX_FUNCTION_LINES}"
        if function.positional > MAX_POSITIONAL:
            yield f"{where} has {function.positional} positional parameters, the budget is {MAX_POSITIONAL}"


def _broken_names(root: Path, source: Source) -> Iterator[str]:
    path = source.path.relative_to(root)
    if path.stem in REJECTED_MODULES or (path.stem == "base" and path.parent.name not in SEAMS):
        yield f"{path}:1: a module is named after its subject, not {path.stem!r}"
    for line, name in ((1, path.stem), *source.public):
        if word := rejected_word(name):
            yield f"{path}:{line}: {name} holds {word!r}, a word that the glossary rejects"


def rejected_word(name: str) -> str:
    """Return the rejected word that *name* holds as whole words (snake or camel case), or an empty string."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")
    spaced = f"_{'_'.join(words)}_"
    return next((word for word in sorted(REJECTED_WORDS) if f"_{word}_" in spaced or f"_{word}s_" in spaced), "")


def summary(numbers: Sequence[int]) -> str:
    """Return median, 90th percentile and maximum of *numbers*, as the checklist writes them."""
    if not numbers:
        return "none"
    ordered = sorted(numbers)
    p90 = ordered[min(len(ordered) - 1, round(0.9 * (len(ordered) - 1)))]
    return f"median {statistics.median(ordered):g}  p90 {p90}  max {ordered[-1]}"


def report(root: Path) -> Iterator[str]:
    """Yield the measures of the project in *root*, one line each."""
    sources, tests, tools = (read(root, folders) for folders in (SOURCES, TESTS, TOOLS))
    # An empty __init__.py is a marker, not a file that somebody reads.
    written = [source for source in sources if source.lines]
    functions = [function for source in written for function in source.functions]
    lines, test_lines = (sum(source.lines for source in files) for files in (written, tests))
    comments = sum(source.comments for source in written)
    yield f"source files       {len(written)}, {lines} lines"
    yield f"lines per file     {summary([source.lines for source in written])}   (goal 150 / 350 / {MAX_FILE_LINES})"
    yield f"lines per function {summary([f.lines for f in functions])}   (goal 10 / 32 / {MAX_FUNCTION_LINES})"
    yield f"positional         {summary([f.positional for f in functions])}   (goal max {MAX_POSITIONAL})"
    yield f"comment lines      {100 * comments / max(lines, 1):.1f} %   (goal 3-8 %)"
    yield f"test lines         {test_lines}, {test_lines / max(lines, 1):.2f} per source line   (goal 1.5-2.0)"
    yield f"lines per test     {summary([source.lines for source in tests])}   (goal max {MAX_TEST_FILE_LINES})"
    yield f"tools, bench, examples   {sum(source.lines for source in tools)} lines"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; with ``--check`` return 1 if a hard budget is broken."""
    parser = argparse.ArgumentParser(description="measure the sizes and names of this project")
    parser.add_argument("--check", action="store_true", help="end with 1 if a hard budget is broken")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    options = parser.parse_args(arguments)
    for line in report(options.root):
        print(line)
    broken = broken_budgets(options.root)
    for line in broken:
        print(f"broken budget: {line}", file=sys.stderr)
    return 1 if options.check and broken else 0


if __name__ == "__main__":
    sys.exit(main())
