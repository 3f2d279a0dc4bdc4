"""Many kills of the scanner, in the middle of scans and while files wait."""

from datetime import timedelta
from functools import partial

import pytest

from tests.e2e.malware import (
    CONTENTS,
    TIMEOUT,
    Submitter,
    assert_ended,
    has_waited,
)
from tests.eventually import eventually
from tests.scanner import Scanner

pytestmark = pytest.mark.timeout(1800)

KILLS = 5
LAST_TIER = timedelta(minutes=15)
"""Longer than three waits of the last retry tier."""


def test_no_file_is_waved_through_or_lost_over_many_kills_of_the_scanner(
    submitter: Submitter,
    scanner: Scanner,
) -> None:
    client = submitter.client
    submitted: dict[str, str] = {}
    for number in range(KILLS):
        for name, content in CONTENTS.items():
            submitted[f"{number}/{name}"] = submitter.in_a_form(name, content)
        scanner.halt()
        try:
            waiting = submitter.in_a_form("eicar.txt", CONTENTS["eicar.txt"])
            submitted[f"{number}-waited/eicar.txt"] = waiting
            eventually(partial(has_waited, client, waiting), until=bool, within=TIMEOUT)
        finally:
            scanner.start()

    assert_ended(client, submitted, within=LAST_TIER)
