"""What stands on a page beside its text: kinds of tables and figures."""

from enum import StrEnum


class TableMethod(StrEnum):
    """What shows the cells of a table."""

    RULED = "ruled"  # lines between the cells
    BORDERLESS = "borderless"  # the places of the words


class FigureKind(StrEnum):
    """What a figure is made of."""

    IMAGE = "image"  # pixels
    CHART = "chart"  # lines and areas
