from pathlib import Path

from dev.bench.adjacency import Cell, expected_in, relations_of, score

GRID = [
    Cell(0, 0, 0, 0, "Name"),
    Cell(0, 1, 0, 2, "Years"),
    Cell(1, 0, 1, 0, "A b"),
    Cell(1, 1, 1, 1, ""),
    Cell(1, 2, 1, 2, "1.5"),
]


def test_a_cell_is_related_to_the_nearest_cells_with_text_on_its_right_and_below() -> None:
    assert dict(relations_of(GRID)) == {
        ("name", "years", "right"): 1,
        ("name", "ab", "below"): 1,
        ("years", "1_5", "below"): 1,
        ("ab", "1_5", "right"): 1,
    }


def test_the_score_counts_each_relation_once() -> None:
    found = relations_of(GRID)
    expected = found + relations_of([Cell(0, 0, 0, 0, "x"), Cell(0, 1, 0, 1, "y")])
    assert score(found, expected=expected) == (1.0, 0.8)
    assert score(expected, expected=found) == (0.8, 1.0)
    assert score(relations_of([]), expected=found).f1 == 0


def test_regions_of_a_table_are_put_together_by_their_increments(tmp_path: Path) -> None:
    file = tmp_path / "x-str.xml"
    file.write_text(
        """<document><table>
        <region page="1" col-increment="0" row-increment="0">
          <cell start-row="0" start-col="0" end-row="0" end-col="1"><content>Head</content></cell>
        </region>
        <region page="2" col-increment="0" row-increment="1">
          <cell start-row="0" start-col="0"><content>1</content></cell>
          <cell start-row="0" start-col="1"><content>2</content></cell>
        </region></table></document>""",
        encoding="utf-8",
    )
    assert dict(expected_in(file)) == {
        ("head", "1", "below"): 1,
        ("head", "2", "below"): 1,
        ("1", "2", "right"): 1,
    }
