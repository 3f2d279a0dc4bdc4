from pipeline.ingest.ocr.engine import RecognizedLine
from pipeline.ingest.ocr.rapid import joined


def test_boxes_side_by_side_are_one_line() -> None:
    def part(text: str, left: int, top: int) -> RecognizedLine:
        return RecognizedLine(text=text, confidence=0.9, box=(left, top, left + 50, top + 20))

    lines = joined([part("below", 0, 40), part("right", 100, 3), part("left", 0, 0)])

    assert [(line.text, line.box) for line in lines] == [
        ("left right", (0, 0, 150, 23)),
        ("below", (0, 40, 50, 60)),
    ]
