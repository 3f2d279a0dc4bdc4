import pytest

from schemas.policy import event_filters
from schemas.policy.event_filters import EventTypeUnknown
from schemas.queues import NOTIFY
from schemas.topology import SUBSCRIPTIONS

KNOWN = ("upload.stored", "upload.failed", "document.ingested")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], []),
        (["*"], ["*"]),
        (["upload.*", "document.ingested"], ["upload.*", "document.ingested"]),
        (["upload.stored", "upload.failed", "upload.stored"], ["upload.stored", "upload.failed"]),
    ],
)
def test_filters_are_kept_once_and_in_their_order(given: list[str], kept: list[str]) -> None:
    assert event_filters.check_types(given, known=KNOWN) == kept


@pytest.mark.parametrize(
    "unknown",
    ["", "upload", "upload*", "uploads.*", ".*", "*.*", "upload.*.*", "UPLOAD.STORED", "upload.x"],
)
def test_an_unknown_filter_is_named_with_the_known_ones(unknown: str) -> None:
    with pytest.raises(EventTypeUnknown) as refusal:
        event_filters.check_types(["upload.stored", unknown], known=KNOWN)

    assert str(refusal.value) == (
        f"{unknown!r} is none of document.ingested, upload.failed, upload.stored, document.*,"
        " upload.*, *"
    )


def test_a_long_unknown_filter_is_cut() -> None:
    with pytest.raises(EventTypeUnknown) as refusal:
        event_filters.check_types(["x" * 10_000], known=KNOWN)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    ("filters", "selected"),
    [
        ([], KNOWN),
        (["*"], KNOWN),
        (["upload.*"], ("upload.stored", "upload.failed")),
        (["document.ingested"], ("document.ingested",)),
        (["document.*", "upload.stored"], ("upload.stored", "document.ingested")),
    ],
)
def test_a_filter_selects_its_types(filters: list[str], selected: tuple[str, ...]) -> None:
    assert tuple(each for each in KNOWN if event_filters.selects(filters, each)) == selected


def test_every_subscribed_type_can_be_chosen_alone_and_by_its_noun() -> None:
    known = SUBSCRIPTIONS[NOTIFY]
    for event_type in known:
        noun = f"{event_type.partition('.')[0]}.*"
        assert event_filters.check_types([event_type, noun], known=known) == [event_type, noun]
