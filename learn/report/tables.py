"""Tables on the terminal, which are never shortened to its width."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def new_table(title: str, *names: str) -> Table:
    """A table; ``names`` are the heads of its first columns, which name the lines."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def print_lines(lines: Iterable[str], console: Console) -> None:
    """Print sentences without markup and colours; the terminal wraps them."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_tables(tables: Iterable[Table], lines: Iterable[str], console: Console) -> None:
    """Print tables below their titles, then notes."""
    for table in tables:
        # the terminal wraps wider lines; rich would cut off numbers
        needed = Measurement.get(console, console.options.update(width=10_000), table).maximum
        table.width = needed if needed > console.width else None
        print_lines([f"\n{table.title}"], console)
        table.title = None  # rich would break it at the table's width
        console.print(table, crop=False)
    console.print()
    print_lines(lines, console)
