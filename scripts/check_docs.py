"""Check that the names in README and docs exist: linked files, commands with their options, make targets.

Run by ``make docs``; prints what is wrong and exits 1.
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
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks/README.md",
]


def commands() -> dict[str, set[str]]:
    """Command name -> its option strings, with those of its subcommands."""
    group = typer.main.get_command(app)
    found = {"": {name for parameter in group.params for name in parameter.opts}}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        found[name] = {
            option
            for part in (command, *getattr(command, "commands", {}).values())
            for parameter in part.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
    return found


def targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))


def code_in(text: str) -> list[str]:
    """Lines of fenced blocks without a language, and inline code; a line may go on after a backslash."""
    joined = re.sub(r"\\\n\s*", " ", text)
    fenced = re.findall(r"^```(?:sh|bash)?\n(.*?)^```", joined, re.M | re.S)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", joined, flags=re.M | re.S))
    return [line for block in fenced for line in block.splitlines()] + inline


def problems_in(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    found = []
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
            found.append(f"link to {target}, which does not exist")
    known, made = commands(), targets()
    for line in code_in(text):
        for command, rest in re.findall(r"\big3d ([a-z][a-z0-9-]*)\b([^|\n]*)", line):
            if command not in known:
                found.append(f"command ig3d {command} does not exist")
                continue
            for option in re.findall(r"(?<=\s)--[a-z0-9][a-z0-9-]*", rest):
                if option not in known[command] | {"--help"}:
                    found.append(f"ig3d {command} {option}: no such option")
        for target in re.findall(r"^\s*make ([a-z][a-z0-9-]*)", line):
            if target not in made:
                found.append(f"make {target} does not exist")
    return [f"{page.relative_to(ROOT)}: {problem}" for problem in found]


if __name__ == "__main__":
    every = [problem for page in PAGES if page.exists() for problem in problems_in(page)]
    print("\n".join(every) or f"docs: {sum(page.exists() for page in PAGES)} pages name only what exists")
    sys.exit(bool(every))
