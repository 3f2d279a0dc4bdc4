"""Transformations of the objects of a page."""

from typing import Final

Matrix = tuple[float, float, float, float, float, float]

IDENTITY: Final[Matrix] = (1, 0, 0, 1, 0, 0)


def multiplied(first: Matrix, then: Matrix) -> Matrix:
    """Return the transformation that does `first`, and `then` the other one."""
    a, b, d, e, f, g = first
    h, i, j, k, m, n = then
    return (
        a * h + b * j,
        a * i + b * k,
        d * h + e * j,
        d * i + e * k,
        f * h + g * j + m,
        f * i + g * k + n,
    )
