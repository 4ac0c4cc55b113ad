"""Requirements that pin each direct dependency to its lower bound in pyproject.toml.

``make check-oldest`` installs them: python scripts/lowest_versions.py EXTRA ... > requirements.txt
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def lowest(extras: list[str]) -> list[str]:
    """One ``name==version`` for each dependency of the core and of these extras.

    Raises
    ------
    ValueError : a dependency has no lower bound.
    """
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    requirements = list(project["dependencies"])
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    pinned = []
    for requirement in requirements:
        match = re.fullmatch(r"([\w.-]+)(\[[\w,]+\])?>=([\w.]+)", requirement)
        if match is None:
            raise ValueError(f"{requirement}: a dependency must have the form name>=version")
        pinned.append(f"{match[1]}{match[2] or ''}=={match[3]}")
    return sorted(set(pinned))


if __name__ == "__main__":
    print("\n".join(lowest(sys.argv[1:])))
