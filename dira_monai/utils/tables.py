"""Text tables and counts."""

from collections.abc import Sequence


def count_of(number: int, word: str) -> str:
    """Such as 1 image, or 3 images."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def format_table(rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """Lines of columns, each as wide as its longest cell.

    Args:
        rows: of cells, the first one being the head.
        numbers: align all columns but the first one to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    align = [str.ljust, *[str.rjust if numbers else str.ljust] * (len(widths) - 1)]
    lines = ([put(cell, width) for put, cell, width in zip(align, row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)
