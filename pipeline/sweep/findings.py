"""What a sweep of orphans found."""

from dataclasses import dataclass


@dataclass
class Findings:
    """Counts that grow while a sweep goes through one area.

    Attributes:
        removed: orphans, which are gone now.
        kept: things of ours that are in use, or too young to judge.
        foreign: names that are none of ours, and stay.
        example: one of them, for an operator to look for.
    """

    removed: int = 0
    kept: int = 0
    foreign: int = 0
    example: str | None = None

    def add_foreign(self, name: str) -> None:
        self.foreign += 1
        self.example = self.example or name
