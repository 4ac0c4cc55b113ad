"""Check the text of the project for words that the house style avoids.

    python scripts/check_words.py            # report new uses; exit 1 if there are any
    python scripts/check_words.py --shorten  # lower or remove entries of words_exempt.txt that are too high

Docs, docstrings, comments, messages and names are searched. ``words_exempt.txt`` lists files that still contain such
words, with the number of lines; entries may only be lowered or removed. The check fails if a file has more such lines
than its entry allows, or if an entry is no longer needed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXEMPT = Path(__file__).with_name("words_exempt.txt")
ITSELF = {"scripts/check_words.py", "scripts/words_exempt.txt"}
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
        for name in set(listed) - ITSELF
        if (Path(name).suffix in SUFFIXES or Path(name).name == "Makefile") and (ROOT / name).is_file()
    )


def uses(text: str) -> list[tuple[int, str]]:
    """Line numbers and words, one word for each line."""
    return [
        (number, match.group())
        for number, line in enumerate(text.splitlines(), 1)
        if (match := BANNED.search(line))
    ]


def exempt() -> dict[str, int]:
    """Path -> allowed number of lines."""
    lines = EXEMPT.read_text(encoding="utf-8").splitlines()
    return {
        path: int(count)
        for path, count in (line.split() for line in lines if line and not line.startswith("#"))
    }


def problems(lines_with_words: dict[str, list[tuple[int, str]]], allowed: dict[str, int]) -> list[str]:
    """Errors: uses that are not allowed, and unnecessary entries of the list."""
    lines = []
    for path, hits in lines_with_words.items():
        limit = allowed.get(path, 0)
        if limit and len(hits) > limit:
            numbers = ", ".join(str(number) for number, _ in hits)
            lines.append(f"{path}: {len(hits)} lines with such words, {limit} allowed (lines {numbers})")
        elif len(hits) > limit:
            lines += [f"{path}:{number}: {word!r}; write {instead(word)}" for number, word in hits]
    lines += [
        f"{path}: no such words are left; remove it from scripts/words_exempt.txt (--shorten)"
        for path in allowed
        if not lines_with_words.get(path)
    ]
    return lines


def instead(word: str) -> str:
    """Suggested replacement for a word that :data:`BANNED` matches."""
    for pattern, replacement in INSTEAD.items():
        if re.fullmatch(re.sub(r"\(\?<=[^)]*\)|\(\?!.*\)$", "", pattern), word, re.IGNORECASE):
            return replacement
    raise KeyError(word)


def shorten(lines_with_words: dict[str, list[tuple[int, str]]], allowed: dict[str, int]) -> None:
    """Lower entries of the list to the number of lines in their file; entries are never raised or added."""
    counts = {path: min(limit, len(lines_with_words.get(path, []))) for path, limit in allowed.items()}
    comments = [line for line in EXEMPT.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    lines = comments + [f"{path} {count}" for path, count in sorted(counts.items()) if count]
    EXEMPT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    lines_with_words = {
        name: uses((ROOT / name).read_text(encoding="utf-8", errors="replace")) for name in files()
    }
    if "--shorten" in sys.argv[1:]:
        shorten(lines_with_words, exempt())
    allowed = exempt()
    lines = problems(lines_with_words, allowed)
    print(
        "\n".join(lines)
        or f"words: {len(lines_with_words)} files checked, {len(allowed)} of them still exempt"
    )
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
