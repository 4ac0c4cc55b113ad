"""Check the text of the project for words that the house style avoids.

    python scripts/check_words.py     # exit 1 if there are any

Docs, docstrings, comments, messages and names are searched.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ITSELF = "scripts/check_words.py"
SUFFIXES = {".md", ".py", ".sh", ".yaml", ".yml", ".toml", ".html", ".j2", ".tex"}
# Regular expressions of words and phrases -> replacement.
INSTEAD = {
    r"lacking|lacks": "missing, has no",
    r"mend(?:s|ed|ing|able)?": "fix, repair",
    r"parted": "separated, split",
    r"[tw]?hither|whence|thereof|herewith": "to, from, of it",
    r"wherein|whereof|whosoever|whomever|whoever|whatever": "any",
    r"nobody|somebody": "no one; name the user, the process or the file",
    r"tells|told": "shows, reports, distinguishes; passed, given",
    r"says|said": "states, reports; given, named",
    r"knows": "has, contains, supports",
    r"(?:is|are|was|were|be) charged": "is counted, is included",
    r"of (?:its|their) own": "separate, own",
    r"that (?:was|were) found": "found, detected",
    r"it is that|that it is what": "name the thing",
    r"(?:as|where) it should be": "as expected",
    r"(?:which|that) there (?:is|are) not": "does not exist",
    r"dealt out": "assigned, permuted",
    r"paid for": "corrected for, counted",
    r"'s manner": "-like, -compatible",
    r"crews?|lanes?": "workers",
    r"doors?": "entry point, loader, reader",
    r"verdicts?": "findings",
    r"oddit(?:y|ies)": "diagnostics",
    r"steepness": "inverse temperature",
    r"(?<=\"\"\")(?:what|who|whose)(?!.*\?)": "a noun: a docstring begins with the name of the thing",
    r"(?<=# )(?:what|who|whose)(?!.*\?)": "a noun: a comment or heading begins with the name of the thing",
}
BANNED = re.compile("|".join(rf"(?<!\w)(?:{word})(?!\w)" for word in INSTEAD), re.IGNORECASE)


def files() -> list[str]:
    """Paths of the project's text files, relative to its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted(
        name
        for name in set(listed) - {ITSELF}
        if (Path(name).suffix in SUFFIXES or Path(name).name == "Makefile") and (ROOT / name).is_file()
    )


def uses(text: str) -> list[tuple[int, str]]:
    """Line numbers and words, one word for each line."""
    return [
        (number, match.group())
        for number, line in enumerate(text.splitlines(), 1)
        if (match := BANNED.search(line))
    ]


def instead(word: str) -> str:
    """Suggested replacement for a word that :data:`BANNED` matches."""
    for pattern, replacement in INSTEAD.items():
        if re.fullmatch(re.sub(r"\(\?<=[^)]*\)|\(\?!.*\)$", "", pattern), word, re.IGNORECASE):
            return replacement
    raise KeyError(word)


def main() -> int:
    texts = {name: (ROOT / name).read_text(encoding="utf-8", errors="replace") for name in files()}
    lines = [
        f"{name}:{number}: {word!r}; write {instead(word)}"
        for name, text in texts.items()
        for number, word in uses(text)
    ]
    print("\n".join(lines) or f"words: {len(texts)} files checked")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
