import pytest

from pipeline.enrich.detection import Detector

SENTENCES = {
    "ar": ["يجب دفع الفاتورة خلال ثلاثين يوما.", "تم توقيع العقد من قبل الطرفين."],
    "de": [
        "Die Rechnung ist innerhalb von dreißig Tagen zu bezahlen.",
        "Sehr geehrte Damen und Herren",
    ],
    "en": ["The invoice is due within thirty days of receipt.", "What does the warranty cover?"],
    "es": ["La factura debe pagarse en treinta días.", "¿Dónde está la estación más cercana?"],
    "fr": ["La facture est payable sous trente jours.", "Où se trouve la gare la plus proche?"],
    "he": ["יש לשלם את החשבונית תוך שלושים יום.", "איפה התחנה הקרובה ביותר?"],
    "it": ["La fattura deve essere pagata entro trenta giorni.", "Grazie per il vostro ordine."],
    "ja": ["請求書は三十日以内にお支払いください。", "一番近い駅はどこですか。"],
    "nl": [
        "De factuur moet binnen dertig dagen worden betaald.",
        "Hartelijk dank voor uw bestelling.",
    ],
    "pl": [
        "Faktura jest płatna w ciągu trzydziestu dni.",
        "Gdzie jest najbliższa stacja kolejowa?",
    ],
    "pt": ["A fatura deve ser paga em trinta dias.", "Onde fica a estação mais próxima?"],
    "ru": ["Счёт должен быть оплачен в течение тридцати дней.", "Где находится ближайшая станция?"],
    "zh": ["发票应在三十天内支付。", "合同已由双方签署。"],
}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.mark.parametrize(
    ("language", "sentence"),
    [(language, each) for language, both in SENTENCES.items() for each in both],
)
def test_the_language_of_a_sentence_is_detected(
    language: str, sentence: str, detector: Detector
) -> None:
    found = detector.detect(sentence)
    assert found is not None
    assert found.code == language
    assert 0.6 <= found.confidence <= 1


def test_text_in_capital_letters_has_a_language(detector: Detector) -> None:
    found = detector.detect("THE INVOICE IS DUE WITHIN THIRTY DAYS OF RECEIPT")
    assert found is not None
    assert found.code == "en"


@pytest.mark.parametrize(
    "text",
    [
        *("", "Hello world", "Total Total Total Total Total Total", "12.5 AX-7 99 DE89 3704 0044"),
        *("INV-2024-001 QTY 5 EUR 10", "AAA BBB CCC DDD EEE FFF GGG HHH", "A1 B2 C3 D4 E5"),
        *("the.whole@of.it and www.is.for.us", "John Smith Mary Jones Peter Brown Anna Miller"),
        "qzx wvk jjq xxz pqr zzx kkw vvq",
    ],
)
def test_codes_names_and_too_few_words_have_no_language(text: str, detector: Detector) -> None:
    assert detector.detect(text) is None


def test_numbers_between_words_do_not_change_the_language(detector: Detector) -> None:
    sentence = SENTENCES["de"][0]
    assert detector.detect(f"AX-77 {sentence} 12.5 ZZ9 www.example.org") == detector.detect(
        sentence
    )


@pytest.mark.parametrize(
    "text", ["a" * 2_000_000, "the " * 500_000, "'" * 1_000_000, "1" * 100_000]
)
@pytest.mark.timeout(10)
def test_only_a_sample_of_a_long_text_is_used(text: str, detector: Detector) -> None:
    assert detector.detect(text) is None
