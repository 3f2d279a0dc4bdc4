"""The rules of a language: its stop words, abbreviations, months and ways to write numbers."""

import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

ANY: Final = "xx"
"""spaCy's code for no language in particular."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How a language writes sentences, numbers and dates.

    Attributes:
        code: ISO 639-1 code, or `ANY`.
        stop_words: frequent words without a meaning of their own, in lower case.
        abbreviations: words that a full stop follows inside a sentence, in lower case.
        before_numbers: as `abbreviations`, but only before a number: `no. 5`.
        months: number of a month by its name or abbreviation, in lower case.
        has_ordinal_stops: a full stop after a number makes an ordinal: `3. Mai`.
        capitalises_nouns: a capital letter is no sign of a heading or a name.
        has_decimal_comma: `1.234,5` and not `1,234.5`.
        groups_by_space: `1 234,5`.
        has_month_first: `3/5/2024` is in March.
        currencies: ISO 4217 codes of signs that several currencies share; a sign without a code is
            ambiguous in this language.
    """

    code: str
    stop_words: frozenset[str]
    abbreviations: frozenset[str]
    before_numbers: frozenset[str]
    months: Mapping[str, int]
    has_ordinal_stops: bool
    capitalises_nouns: bool
    has_decimal_comma: bool
    groups_by_space: bool
    has_month_first: bool
    currencies: Mapping[str, str]


def is_known(code: str) -> bool:
    """Return whether spaCy has data of this language."""
    return code.isalpha() and (_spacy_languages() / code / "__init__.py").is_file()


@cache
def rules(code: str) -> Rules:
    """Return the rules of a language; those of `ANY` complete what it does not have."""
    return Rules(
        code=code,
        stop_words=_stop_words(_SPACY_CODES.get(code, code)),
        abbreviations=word_set(_ABBREVIATIONS[ANY], _ABBREVIATIONS.get(code, "")),
        before_numbers=word_set(_BEFORE_NUMBERS),
        months=_months(code),
        has_ordinal_stops=code in _ORDINAL_STOPS,
        capitalises_nouns=code in {"de", "lb"},
        has_decimal_comma=code in _DECIMAL_COMMA,
        groups_by_space=code in _GROUPS_BY_SPACE,
        has_month_first=code in {"en", ANY},
        currencies={"¥": "JPY"}
        | ({} if code in _NO_DOLLAR else {"$": "USD"})
        | _CURRENCIES.get(code, {}),
    )


def load_common() -> None:
    """Build the rules of common languages, so that processes forked later share them."""
    for code in (ANY, *_ABBREVIATIONS, *_MONTHS, "ar", "he", "hi", "ja", "ko", "th", "zh"):
        rules(code)


def word_set(*lists: str) -> frozenset[str]:
    """Return the words of lists with white space between them."""
    return frozenset(word for each in lists for word in each.split())


def _months(code: str) -> dict[str, int]:
    names: dict[str, int] = {}
    for each in [code] if code in _MONTHS else _MONTHS:
        for number, month in enumerate(_MONTHS[each].split("/"), start=1):
            # Abbreviations such as the Portuguese "out" are words of other languages.
            written = month.split() if each == code else month.split()[:1]
            names |= dict.fromkeys(written, number)
    for number, month in enumerate(_MONTHS["en"].split("/"), start=1):
        names |= dict.fromkeys(month.split(), number)
    return names


def _spacy_languages() -> Path:
    spec = find_spec("spacy")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("spacy")
    return Path(spec.origin).parent / "lang"


def _stop_words(code: str) -> frozenset[str]:
    # Read as a file: the import of `spacy.lang.fr` compiles an expression for four seconds, and the
    # import of spaCy alone takes 80 MB.
    file = _spacy_languages() / code / "stop_words.py"
    return frozenset(runpy.run_path(str(file))["STOP_WORDS"]) if file.is_file() else frozenset()


_SPACY_CODES: Final = {"no": "nb", "ku": "kmr"}

_ORDINAL_STOPS: Final = word_set("bs cs da de et fi fo hr hu is lb lv nn no pl sk sl sr tr")
_DECIMAL_COMMA: Final = word_set(
    "af az be bg bs ca cs da de el es et eu fi fo fr gl hr hu hy id is it ka kk lb lt lv mk"
    " mn nl nn no pl pt ro ru sk sl sq sr sv tr uk uz vi"
)
_GROUPS_BY_SPACE: Final = word_set("be bg cs et fi fr hu kk lt lv nn no pl ru sk sv uk")

# `$` in Spanish is the peso of a dozen countries, in Portuguese a part of `R$`.
_NO_DOLLAR: Final = frozenset({"es", "pt"})
_CURRENCIES: Final[dict[str, dict[str, str]]] = {
    "da": {"kr": "DKK"},
    "is": {"kr": "ISK"},
    "nn": {"kr": "NOK"},
    "no": {"kr": "NOK"},
    "sv": {"kr": "SEK"},
    "zh": {"¥": "CNY"},
}

# Those of `ANY` are no word of another language and hold everywhere: a Spanish address is
# abbreviated in an English invoice too. Ends of sentences such as "etc." are in `sentences`.
_ABBREVIATIONS: Final[dict[str, str]] = {
    ANY: """
        abb abs allg apdo approx apt aufl aut avda bd blvd bros bs bspw bzgl bzw ca cdad cf
        cía dept depto dipl dpto dr dra dt ebd eds ehem entspr esq evtl excl fam ggf gral hr
        hrn hrsg incl ing inkl insb jun lic ltda messrs mind mlle mm mme mr mrd mrs ms msgr mt pfc
        phil pkwy prof profa pvt sgt sog sr sra srta st ste stellv str tsd ud uds univ vgl vs zzgl
        d.h e.g i.d.r i.e o.ä o.g p.ej s.o s.u u.a u.u v.a z.b z.t z.zt
    """,
    "en": "adm adv ave bldg brig capt cmdr col comdr cpl dist ft gen gov hon lt maj pres rd rep rev sen",
    "de": """
        abt abzgl adr anm betr bsp engl erg ev frz geb gebr gegr gem gez ggü jh jhd kath lat lt max
        min mio mtl nat o orig phil pkt rer röm std tel tägl u usf v wiss z österr
    """,
    "fr": "av boul bd chap éd env fg hab janv févr avr juil sept oct nov déc m mgr n.b p.ex réf sté tél",
    "es": """
        admón aprox av ayto cap col cta ctra dcha doc dto ed ee uu ej emo etc excma excmo gob
        izda izdo j.c ntra ntro pág págs párr prov pta ptas ref sto sta tel tfno urb v.gr vda
    """,
    "it": "avv dott dott.ssa ecc egr fig geom on pag pagg rag sig sigg sig.ra sig.na spett tel u.s",
    "pt": "av cap dept eng ex exa exmo exma lda máx mín no pág págs ref sto tel v.exa",
    "nl": "bijv blz bv dhr drs enz evt excl ir jl mevr mw nl o.a resp t.a.v t.o.v v.chr z.g z.s.m",
    "sv": "bl.a dvs d.v.s ev exkl forts fr.o.m inkl jfr kl m.fl m.m obs osv resp s.k t.ex t.o.m tel",
    "da": "bl.a d.v.s dvs e.kr evt f.eks f.kr fx hhv iflg inkl jf kl m.fl m.m mht mv osv pga ph.d tlf",
    "no": "bl.a dvs ev evt f.eks f.kr iht inkl jf jfr kl m.a.o m.fl m.m mht mv osv pga t.o.m tlf",
    "pl": "al dot gen godz im inż itd itp m.in mgr min np os płk prof ps r red św tj tzn ul ur wg zob",
    "cs": "apod atd č čl gen ing kpt mgr min mj např obr odst prof písm resp str sv tj tzv ul",
    "ru": "акад г гг им млн млрд напр обл пер пл проф рис руб см ср ст стр тел тыс ул т.д т.е т.к т.п",
}
_BEFORE_NUMBERS: Final = """
    abs abschn alg anl apt art arts bd ch chap cap def doc eq eqs ex exp fig figs folio hab heft iss
    item kap lect n no nos nr nro num núm núms nº obs p pag pág págs par para pos pp prop ref
    refs s sec sect secs sid sig tab tabl tel teil thm tit vers vol vols z ziff
"""

_MONTHS: Final[dict[str, str]] = {
    "de": "januar jänner jan/februar feber feb/märz maerz mär mrz/april apr/mai/juni jun/juli jul"
    "/august aug/september sept sep/oktober okt/november nov/dezember dez",
    "fr": "janvier janv/février fevrier févr fév/mars/avril avr/mai/juin/juillet juil/août aout"
    "/septembre sept/octobre oct/novembre nov/décembre decembre déc",
    "es": "enero ene/febrero feb/marzo mar/abril abr/mayo may/junio jun/julio jul/agosto ago"
    "/septiembre setiembre sept sep/octubre oct/noviembre nov/diciembre dic",
    "it": "gennaio gen/febbraio feb/marzo mar/aprile apr/maggio mag/giugno giu/luglio lug/agosto ago"
    "/settembre sett set/ottobre ott/novembre nov/dicembre dic",
    "pt": "janeiro jan/fevereiro fev/março mar/abril abr/maio mai/junho jun/julho jul/agosto ago"
    "/setembro set/outubro out/novembro nov/dezembro dez",
    "nl": "januari jan/februari feb/maart mrt/april apr/mei/juni jun/juli jul/augustus aug"
    "/september sept sep/oktober okt/november nov/december dec",
    "sv": "januari jan/februari feb/mars mar/april apr/maj/juni jun/juli jul/augusti aug"
    "/september sept sep/oktober okt/november nov/december dec",
    "da": "januar jan/februar feb/marts mar/april apr/maj/juni jun/juli jul/august aug"
    "/september sept sep/oktober okt/november nov/december dec",
    "no": "januar jan/februar feb/mars mar/april apr/mai/juni jun/juli jul/august aug"
    "/september sept sep/oktober okt/november nov/desember des",
    "pl": "stycznia styczeń/lutego luty/marca marzec/kwietnia kwiecień/maja maj/czerwca czerwiec"
    "/lipca lipiec/sierpnia sierpień/września wrzesień/października październik"
    "/listopada listopad/grudnia grudzień",
    "ru": "января январь/февраля февраль/марта март/апреля апрель/мая май/июня июнь/июля июль"
    "/августа август/сентября сентябрь/октября октябрь/ноября ноябрь/декабря декабрь",
    "en": "january jan/february feb/march mar/april apr/may/june jun/july jul/august aug"
    "/september sept sep/october oct/november nov/december dec",
}
