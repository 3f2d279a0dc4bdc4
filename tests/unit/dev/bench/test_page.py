from datetime import date
from pathlib import Path

from dev.bench import page
from dev.bench.machine import Machine
from dev.bench.sections import Section

MACHINE = Machine(cores=2, memory_mib=24_000, python="3.11.7")


def section(title: str) -> Section:
    return Section(title=title, question="?", tables=[], measured_on=date(2026, 1, 31))


def test_the_page_names_the_machine_and_every_section_in_order() -> None:
    written = page.compose([section("First"), section("Second")], machine=MACHINE)

    assert "Machine: 2 processor cores, 23 GiB of memory, Python 3.11.7;" in written
    assert written.index("## First") < written.index("## Second")


def test_the_page_is_published_with_its_plots(tmp_path: Path) -> None:
    (tmp_path / "plot.svg").write_text("<svg/>")
    shown = Section(
        title="Plotted", question="?", tables=[], plots=["plot.svg"], measured_on=date(2026, 1, 31)
    )

    written = page.publish([shown], machine=MACHINE, plots=tmp_path, to=tmp_path / "docs")

    assert "(plot.svg)" in written.read_text()
    assert (written.parent / "plot.svg").read_text() == "<svg/>"


def test_kept_sections_are_read_in_the_requested_order(tmp_path: Path) -> None:
    page.keep(section("Ingest"), name="ingest", directory=tmp_path)
    page.keep(section("Memory"), name="memory", directory=tmp_path)

    kept = page.kept(["memory", "not yet run", "ingest"], directory=tmp_path)

    assert kept == [section("Memory"), section("Ingest")]


def test_a_repeated_benchmark_keeps_its_place(tmp_path: Path) -> None:
    page.keep(section("Old"), name="ingest", directory=tmp_path)
    page.keep(section("New"), name="ingest", directory=tmp_path)

    assert page.kept(["ingest"], directory=tmp_path) == [section("New")]
