"""Tables on the terminal as all of :mod:`ig3d.learn` prints them: never shortened to the width of the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def new_table(title: str, *names: str) -> Table:
    """A table whose first columns say what a line is of."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def print_lines(lines: Iterable[str], console: Console) -> None:
    """Sentences as they are: no markup, no colours, wrapped by the terminal."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_tables(tables: Iterable[Table], lines: Iterable[str], console: Console) -> None:
    """Tables below their titles, then notes on them."""
    for table in tables:
        # Wider lines are left to the terminal to wrap: rich would cut off figures.
        needed = Measurement.get(console, console.options.update(width=10_000), table).maximum
        table.width = needed if needed > console.width else None
        print_lines([f"\n{table.title}"], console)
        table.title = None  # rich would break it at the table's width
        console.print(table, crop=False)
    console.print()
    print_lines(lines, console)
