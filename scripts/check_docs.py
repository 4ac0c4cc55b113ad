"""Check that files, commands, options and make targets named in README and docs exist.

``make docs`` runs it. It prints each error and exits with 1 if there is any.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import typer

from ig3d.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGES.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks/README.md",
]


def commands() -> dict[str, set[str]]:
    """Command name -> its options and those of its subcommands."""
    group = typer.main.get_command(app)
    options = {"": {name for parameter in group.params for name in parameter.opts}}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        options[name] = {
            option
            for part in (command, *getattr(command, "commands", {}).values())
            for parameter in part.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
    return options


def targets() -> set[str]:
    """Targets of the Makefile."""
    return set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))


def code_in(text: str) -> list[str]:
    """Lines of shell blocks, joined at backslashes, and inline code."""
    joined = re.sub(r"\\\n\s*", " ", text)
    fenced = re.findall(r"^```(?:sh|bash)?\n(.*?)^```", joined, re.M | re.S)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", joined, flags=re.M | re.S))
    return [line for block in fenced for line in block.splitlines()] + inline


def problems_in(page: Path) -> list[str]:
    """One line for each name that does not exist."""
    text = page.read_text(encoding="utf-8")
    problems = []
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
            problems.append(f"link to {target}, which does not exist")
    options, make_targets = commands(), targets()
    for line in code_in(text):
        for command, rest in re.findall(r"\big3d ([a-z][a-z0-9-]*)\b([^|\n]*)", line):
            if command not in options:
                problems.append(f"command ig3d {command} does not exist")
                continue
            for option in re.findall(r"(?<=\s)--[a-z0-9][a-z0-9-]*", rest):
                if option not in options[command] | {"--help"}:
                    problems.append(f"ig3d {command} {option}: the option does not exist")
        for target in re.findall(r"^\s*make ([a-z][a-z0-9-]*)", line):
            if target not in make_targets:
                problems.append(f"make {target} does not exist")
    return [f"{page.relative_to(ROOT)}: {problem}" for problem in problems]


if __name__ == "__main__":
    all_problems = [problem for page in PAGES if page.exists() for problem in problems_in(page)]
    print("\n".join(all_problems) or f"docs: {sum(page.exists() for page in PAGES)} pages checked")
    sys.exit(bool(all_problems))
