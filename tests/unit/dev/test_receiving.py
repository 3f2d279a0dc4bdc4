"""The page for receivers matches the code."""

import re

import pytest

from dev.receiving import page
from schemas import topology
from schemas.settings import DeliverySettings

PROGRAMS = sorted(each.name for each in page.SNIPPETS.iterdir() if each.suffix in page.LANGUAGES)


def test_the_page_is_up_to_date() -> None:
    stale = "docs/receiving-webhooks.md is stale: run `python -m dev.receiving`"

    assert page.PAGE.read_text() == page.page(), stale


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_on_the_page_as_it_is_tested(program: str) -> None:
    assert (page.SNIPPETS / program).read_text() in page.page()


@pytest.mark.parametrize("event_type", topology.DELIVERED)
def test_every_event_has_a_section(event_type: str) -> None:
    assert f"\n### `{event_type}`\n" in page.page()


def test_every_value_is_used() -> None:
    used = set(re.findall(r"\[\[(\w+)\]\]", page.TEXT.read_text()))
    assert used == page.VALUES.keys()


def test_every_link_inside_the_page_has_a_target() -> None:
    titles = re.findall(r"^#+ (.+)$", page.page(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    links = set(re.findall(r"\(#([^)]+)\)", page.page()))
    assert links
    assert links <= anchors


def test_the_schedule_has_a_row_for_every_attempt() -> None:
    delays = DeliverySettings.model_fields["webhook_retry_delays"].default
    rows = page.schedule().splitlines()[2:]
    assert len(rows) == len(delays) + 1
    assert rows[-1] == "| 10 | 24 h | 75 h 35 min 5 s |"
