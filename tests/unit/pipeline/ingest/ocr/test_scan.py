import numpy as np
import pytest
from PIL import Image

from pipeline.ingest.ocr.scan import Scan
from tests.factories import scans

WHITE = 255


def scan_of(picture: Image.Image) -> Scan:
    return Scan.of(scans.page_image(picture))


@pytest.mark.parametrize("degrees", [-5, -2, 0, 1, 3, 5])
def test_the_skew_of_a_page_of_text_is_measured(degrees: float) -> None:
    picture = scans.picture_of(scans.english(300), skew=degrees, noise=20)

    assert scan_of(picture).skew() == pytest.approx(degrees, abs=0.3)


def test_a_straightened_page_has_level_lines() -> None:
    straight = scan_of(scans.picture_of(scans.english(300), skew=-5)).straightened()

    assert straight.skew() == pytest.approx(0, abs=0.3)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_blank_page_is_not_straightened(turn: int) -> None:
    scan = scan_of(Image.new("L", (1654, 2339), WHITE)).turned(turn)

    assert scan.straightened() is scan


def test_noise_is_not_straightened() -> None:
    noise = np.random.default_rng(0).integers(0, WHITE, (800, 600), dtype=np.uint8)

    assert scan_of(Image.fromarray(noise)).skew() == 0


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_box_of_a_turned_page_is_placed_on_the_page_as_displayed(turn: int) -> None:
    picture = Image.new("L", (1000, 2000), WHITE)
    picture.paste(0, (100, 200, 500, 300))
    turned = scan_of(picture).turned(turn)

    inverted = Image.eval(turned.picture, lambda value: WHITE - value)

    points = 72 / scans.DPI
    box = inverted.getbbox()
    assert box is not None
    assert turned.box_on_page(box) == (
        round(100 * points),
        round(200 * points),
        round(500 * points),
        round(300 * points),
    )


def test_the_box_of_a_straightened_line_encloses_the_line_on_the_page() -> None:
    scan = scan_of(scans.picture_of(scans.english(300), skew=4))
    straight = scan.straightened()
    rows = np.asarray(straight.picture).min(axis=1) < 128
    first = int(np.argmax(rows))
    columns = np.asarray(straight.picture)[first : first + 30].min(axis=0) < 128
    left, right = int(np.argmax(columns)), int(columns.size - np.argmax(columns[::-1]))

    box = straight.box_on_page((left, first, right, first + 30))

    # The line rises to the right by 4 degrees.
    assert box[3] - box[1] == pytest.approx((box[2] - box[0]) * np.tan(np.radians(4)), abs=12)
    upper_right = np.asarray(scan.picture)[: round(box[3] * scans.DPI / 72)]
    assert upper_right.min() < 128
    assert np.asarray(scan.picture)[: round(box[1] * scans.DPI / 72) - 3].min() > 128


def test_the_noise_of_the_paper_becomes_white() -> None:
    noisy = scans.picture_of(scans.english(12), noise=25)

    scan = scan_of(noisy)

    assert np.mean(np.asarray(noisy) < 240) > 0.2
    assert np.mean(np.asarray(scan.picture) < 240) < 0.02
    assert np.asarray(scan.picture).min() < 50


def test_text_on_grey_paper_becomes_black_on_white() -> None:
    picture = Image.new("L", (600, 800), 150)
    picture.paste(40, (100, 100, 300, 120))

    tones = np.asarray(scan_of(picture).picture)

    assert (tones.min(), tones.max()) == (pytest.approx(74, abs=1), WHITE)


def test_white_text_on_a_dark_page_becomes_dark_on_white() -> None:
    picture = Image.new("L", (600, 800), 20)
    picture.paste(WHITE, (100, 100, 300, 120))

    tones = np.asarray(scan_of(picture).picture)

    assert (tones[110, 200], tones[10, 10]) == (0, WHITE)


def test_a_colour_picture_is_read_as_grey() -> None:
    image = scans.page_image(Image.new("L", (10, 10), WHITE))
    red = Image.new("RGB", (10, 10), (255, 0, 0))
    colour = type(image)(width=10, height=10, channels=3, pixels=red.tobytes(), dpi=72)

    assert Scan.of(colour).picture.mode == "L"
