"""Write the tables of options and rules in docs from their declarations.

Tables stand between ``<!-- NAME -->`` and ``<!-- end -->``. ``--check`` writes nothing and exits with 1 if a table is
not current.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from inspect import getdoc
from pathlib import Path

from ig3d.learn.config import FuseConfig, HeadsConfig
from ig3d.learn.options import Option, options_of
from ig3d.learn.rules import RULES, kind_of, options_of_rule

DOCS = Path(__file__).resolve().parent.parent / "docs"


def option_table(options: Sequence[Option], flag: str) -> list[str]:
    """Rows of a Markdown table: option, default, meaning."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for option in options:
        default = "" if option.default is None else option.default
        if isinstance(default, bool):
            default = ("off", "on")[default] if flag else f"{default}".lower()
        default = ", ".join(default) if isinstance(default, tuple) else f"{default}"
        lines.append(f"| `{flag}{option.name}` | {default} | {option.help} |")
    return lines


def rule_table() -> list[str]:
    """Rows of a Markdown table: rule, meaning, whether it is fitted, options."""
    lines = ["| rule | prediction | fitted | options (`--set`) |", "|---|---|---|---|"]
    for name in RULES:
        kind = kind_of(name)
        first = re.sub(r":\w+:|``", "", (getdoc(kind) or "").partition("\n\n")[0].replace("\n", " "))
        only = "" if len(kind.tasks) > 1 else " (classes only)"
        options = ", ".join(f"`{option.name}`" for option in options_of_rule(name))
        lines.append(f"| `{name}` | {first.rstrip('.')}{only} | {'yes' if kind.fits else 'no'} | {options} |")
    return lines


TABLES = {
    "options of ig3d fuse": lambda: option_table(
        options_of(FuseConfig, skip=("model", "rule_options")), "--"
    ),
    "options of ig3d train": lambda: option_table(options_of(HeadsConfig), "--"),
    "rules": rule_table,
    "options of rules": lambda: option_table([o for name in RULES for o in options_of_rule(name)], ""),
}


def main() -> int:
    """Write or check all tables; the exit code."""
    wrong = []
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        current = text
        for name, rows in TABLES.items():
            pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
            table = "\n".join(rows()) if re.search(pattern, current, re.S) else ""
            current = re.sub(
                pattern, lambda found, table=table: f"{found[1]}{table}\n{found[2]}", current, flags=re.S
            )
        if current != text:
            wrong.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(current, encoding="utf-8")
    print(f"tables that are not current: {', '.join(wrong)}" if wrong else "tables of options are current")
    return int(bool(wrong) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
