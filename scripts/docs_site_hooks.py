"""Hooks of mkdocs: links that leave docs/, and the report of the demo as an example."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / os.environ.get("DEMO", "demo") / "fused" / "report.html"
EXAMPLE = "example-report.html"


def on_files(files: Any, config: Any) -> Any:
    """Add the report page of ``make demo``, if the demo was run."""
    if REPORT.exists():
        files.append(File.generated(config, EXAMPLE, abs_src_path=str(REPORT)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Replace links to files outside of docs/, which the site does not contain, by their text."""
    if page.file.src_uri == "index.md" and REPORT.exists():
        markdown += f"\n[Report of the demo]({EXAMPLE}): an example of `report.html`.\n"
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)
