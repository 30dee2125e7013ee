"""Count what the rules of this codebase are about, and print it as a table.

    python tools/structure.py                 this checkout
    python tools/structure.py path/to/other   another one, for instance a worktree of an older commit

The product is what is installed into a host or a wheel: everything but tests, benchmarks and tools.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

OUTSIDE = {"tests", "benchmarks", "tools", "docs"}
HOSTS = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "server", "aiohttp", "gradio", "modules", "backend"}
FRONT_ENDS = {"nodes", "d3po_panels", "d3po_studio", "d3po_webui"}
TRAINING_FILES = ["d3po_core/cli/training.py", "d3po_panels/training.py", "nodes/host_round.py"]
"""What each front end has of its own between the button and `app.training.train_round`."""
VERBS = set(
    re.findall(
        r"\w+",
        """
        accumulate add alias announce answer append apply ask assign attach average begin bring call change check choose
        classify close collect compare compose compute concatenate convert copy count create crop cut decode delete
        detach determine do draw drop encode end enter evaluate explain extend filter find fit forget format fuse give
        go group hash hold import install interpolate iterate join keep lease leave let list load look make map mark
        measure move multiply name note open pack pick place predict prepare print put raise read record reduce refuse
        register remember remove rename repeat replace report request rescale reserve reshape restore return run sample
        save say scale score see seed select send serialise serve set show shuffle split stand standardise start stop
        store switch take train transform try turn unpack update use wait wrap write yield
        """,
    )
)
"""First words of docstrings that are verbs; one that is missing here counts as no verb until it is added."""


@dataclass(frozen=True)
class Source:
    """One Python file of the product: its path below the root, its text and its syntax tree."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """Return the dotted name it is imported by."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def main(arguments: list[str]) -> int:
    """Print the table for the checkout that is named, or for this one."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    for name, value in count(root).items():
        print(f"{name:<58} {value:>7}")
    return 0


def count(root: Path) -> dict[str, int]:
    """Return every figure of a checkout by its name."""
    sources = python_sources(root)
    pages = page_scripts(root)
    core = [source for source in sources if source.path.parts[0] == "d3po_core"]
    page_lines = sum(len(path.read_text("utf-8").splitlines()) for path in pages)
    documented, with_verb = docstrings(sources)
    return {
        "files in d3po_core": len(core),
        "Python files in the product": len(sources),
        "loose modules in d3po_core": sum(len(s.path.parts) == 2 and not s.path.name.startswith("__") for s in core),
        "lines of Python": sum(len(source.text.splitlines()) for source in sources),
        "  of them code": sum(code_lines(source) for source in sources),
        "lines of page scripts": page_lines,
        "function docstrings": documented,
        "  of them that begin with a verb, in percent": round(100 * with_verb / documented),
        "the word Any": sum(len(re.findall(r"\bAny\b", source.text)) for source in sources),
        "modules in import circles": len(circle(sources)),
        "imports of a host or a front end in d3po_core": len(host_imports(core)),
        **{f"lines of {name}": line_count(root / name) for name in TRAINING_FILES if (root / name).is_file()},
    }


def python_sources(root: Path) -> list[Source]:
    """Return the product's Python files, parsed."""
    paths = sorted(path.relative_to(root) for path in root.rglob("*.py"))
    product = [p for p in paths if p.parts[0] not in OUTSIDE and not any(part.startswith(".") for part in p.parts)]
    texts = {path: (root / path).read_text("utf-8") for path in product}
    return [Source(path, text, ast.parse(text)) for path, text in texts.items()]


def page_scripts(root: Path) -> list[Path]:
    """Return the scripts that browsers load."""
    return [path for folder in ("web", "javascript") for path in (root / folder).rglob("*.*js")]


def line_count(path: Path) -> int:
    """Return how many lines a file has."""
    return len(path.read_text("utf-8").splitlines())


def code_lines(source: Source) -> int:
    """Return how many lines hold code: no blank lines, comments or docstrings."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - set(string_statements(source.tree)))


def string_statements(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of strings that stand alone: docstrings, also those of constants and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def docstrings(sources: list[Source]) -> tuple[int, int]:
    """Return how many functions have a docstring, and how many of those begin with a verb."""
    functions = (n for s in sources for n in ast.walk(s.tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))
    texts = [text for function in functions if (text := ast.get_docstring(function))]
    return len(texts), sum(is_verb(text.split()[0]) for text in texts)


def is_verb(word: str) -> bool:
    """Return whether a docstring's first word is a verb, as an order ("Draw") or in the third person ("Draws")."""
    word = re.sub(r"\W", "", word).lower()
    return bool({word, word.removesuffix("s"), word.removesuffix("es"), re.sub("ies$", "y", word)} & VERBS)


def circle(sources: list[Source]) -> list[str]:
    """Return the modules of one import circle, or nothing where there is none; imports within functions count, too."""
    modules = {source.module: source for source in sources}
    graph = {name: imported(source) & set(modules) - {name} for name, source in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][1:]
    return []


def imported(source: Source) -> set[str]:
    """Return the dotted names that a file imports: of modules, and of what it takes from them, which may be modules."""
    package = source.path.parent.parts
    names: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names} | ({base} if node.module else set())
    return names


def host_imports(core: list[Source]) -> set[str]:
    """Return what the core imports of hosts and front ends; it should be nothing."""
    return {name for source in core for name in imported(source) if name.split(".")[0] in HOSTS | FRONT_ENDS}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
