import pytest

from gateway.uploads.oneshot.part import FormRefused
from gateway.uploads.oneshot.widgets import WIDGETS, Widget, check_whole

EVERY_WIDGET = pytest.mark.parametrize("widget", WIDGETS, ids=lambda widget: widget.name)


@EVERY_WIDGET
@pytest.mark.parametrize("count", ["2", "10", "010", " 3 "])
def test_a_piece_of_a_file_is_refused_with_the_remedy(widget: Widget, count: str) -> None:
    with pytest.raises(FormRefused, match=rf"switch chunking off in {widget.name}.*/uploads"):
        check_whole({"caption": "x", widget.place: "1", widget.count: count})


@EVERY_WIDGET
@pytest.mark.parametrize("count", ["1", "01", "0", "", "all", "²", "-2", "2\n3"])
def test_a_whole_file_is_accepted(widget: Widget, count: str) -> None:
    check_whole({widget.place: "0", widget.count: count})


@EVERY_WIDGET
def test_one_of_the_two_fields_is_metadata(widget: Widget) -> None:
    check_whole({widget.count: "3"})
    check_whole({widget.place: "3"})
