"""E-mail addresses, phone and card numbers in a text, found in linear time and rather missed than made up.

Each pattern has a fixed beginning and bounded repetitions of unlike parts, so that no text makes the search slow; what
a pattern alone cannot tell (a checksum, a date, an order number) is decided afterwards, on a few characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from llm_gateway.content.plain import Plain

Kind = Literal["email", "phone", "card"]

PLACEHOLDERS: Final[Mapping[Kind, str]] = {"email": "[EMAIL]", "phone": "[PHONE]", "card": "[CARD]"}

# Nothing that is found is longer, with what it is recognised by: 64 characters before an @, a name of 253 after it
# (RFC 5321, section 4.5.3.1), a word such as "phone" before a number.
LONGEST: Final = 320

_QUOTE: Final = "'\u2019"
_AT: Final = re.compile("@|%40")
_LOCAL_REVERSED: Final = re.compile(rf"[\w.%+{_QUOTE}-]{{1,64}}")
_DOMAIN: Final = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,63}(?![\w-]|\()")
_PICTURE_OF_DENSITY: Final = re.compile(r"[1-9]x\.", re.IGNORECASE)  # icon@2x.png

_S: Final = " \u00a0\u2007\u202f"  # spaces, as people and word processors write them …
_D: Final = "\\-\u2010-\u2015"  # … and dashes
_BEGINS: Final = r"(?<![\w+./,:#$€£-])"
_ENDS: Final = r"(?!\w|[-./,:]\d|[%€$£])"
_PHONE: Final = re.compile(
    rf"""(?x)
    (?<![\w+]) (?: \+ | (?<!\d[{_S}]) 00 [{_S}]? (?= [1-9]\d{{0,3}} [{_S}{_D}(/] ) )      # +49 30 1234567, 0049 30 …
        [{_S}]? [1-9] (?: [{_S}{_D}./()]{{0,2}} \d ){{7,14}} {_ENDS}
    | {_BEGINS} (?: 1 [{_S}{_D}.] )?                                                    # (415) 555-2671, 415.555.2671
        (?: \( [2-9]\d\d \) [{_S}{_D}.]? | [2-9]\d\d [{_S}{_D}.] ) \d{{3}} [{_S}{_D}.] \d{{4}} {_ENDS}
    | {_BEGINS} (?<!\d[{_S}]) 0[1-9] (?: [{_S}.{_D}] \d\d ){{4}} {_ENDS}               # 01 23 45 67 89
    | {_BEGINS} (?<!\d[{_S}])                                                           # 030 / 1234567, 020 7946 0958
        (?: \( 0[1-9]\d{{0,4}} \) [{_S}]? | 0[1-9]\d{{0,4}} (?: [{_S}]?[/{_D}][{_S}]? | [{_S}] ) )
        \d{{2,8}} (?: [{_S}{_D}] \d{{2,6}} ){{0,3}} {_ENDS}
    """
)
# Where any of these can be: everything that has digits enough. What surrounds it is looked at by the patterns.
_NUMBER: Final = re.compile(rf"[+(\d][\d{_S}{_D}./()]{{5,}}")
_BESIDE: Final = 2
# With a word for it before it, any number of fitting length is one.
_PHONE_WORD: Final = re.compile(
    r"""(?ix)
    (?<![^\W\d_]) (?: tel(?:efono?|ephone|efon|éfono)? | (?:cell|tele|smart)?phone | mobile? | cell | fax | handy
        | whatsapp | sms | hotline | rufnummer ) (?: [_\ -]? (?: number | num | no | nr | nummer ) )? (?![^\W\d_])
    [^\d\n+(]{0,16} \Z
    """
)
_LONGEST_PHONE_WORD: Final = 48
_NAMED_NUMBER: Final = re.compile(rf"[+(]{{0,2}}\d(?:[{_S}{_D}./()]{{0,2}}\d){{6,14}}(?![\w:]|[.,]\d)")
_DATE: Final = re.compile(r"(?:19|20)\d\d([-./])\d\d?\1\d\d?|\d\d?([-./])\d\d?\2(?:\d\d){1,2}(?![-./]?\d)")
_IPV4: Final = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}")
_FEWEST_NATIONAL_DIGITS: Final = 9

_CARD: Final = re.compile(
    rf"""(?x) (?<![\w.+]) (?:
        [2-6]\d{{3}} (?P<s>[{_S}{_D}]?) \d{{4}} (?P=s) \d{{4}} (?P=s) \d{{4}} (?P<more> (?P=s) \d{{3}} )?
      | 3[47]\d\d (?P<a>[{_S}{_D}]?) \d{{6}} (?P=a) \d{{5}}
      | 3[0689]\d\d (?P<d>[{_S}{_D}]?) \d{{6}} (?P=d) \d{{4}}
      | 4\d{{12}}
    ) (?! \w | [.,]\d )"""
)
# Who issues cards, by the first digits: Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay, Maestro.
_ISSUER: Final = re.compile(
    r"""(?x) 4 | 5[0-8] | 2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720) | 3[47] | 30[0-59] | 3[689] | 35(?:2[89]|[3-8])
    | 6(?:011|4[4-9]|5|2|[379])"""
)
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


@dataclass(frozen=True, slots=True)
class Found:
    """One piece of personal data: text[start:end]."""

    kind: Kind
    start: int
    end: int


def find(text: str) -> list[Found]:
    """Every piece, in order, none overlapping another: what could be two kinds is a card before a phone number."""
    return find_in(Plain(text))


def find_in(plain: Plain) -> list[Found]:
    """The same, where the text was read before; places are those in the text as it was written."""
    return [Found(one.kind, plain.begin(one.start), plain.end(one.end)) for one in _in_plain(plain.text)]


def replaced(text: str, found: Iterable[Found]) -> str:
    """The text with a placeholder for each piece."""
    pieces, done = [], 0
    for one in found:
        pieces += [text[done : one.start], PLACEHOLDERS[one.kind]]
        done = one.end
    return "".join([*pieces, text[done:]]) if pieces else text


def _in_plain(text: str) -> list[Found]:
    found: list[Found] = []
    for number in _NUMBER.finditer(text):
        found += _in_number(text, number.start(), number.end())
    if _AT.search(text):
        found += _emails(_blanked(text, found))
    return sorted(found, key=_start)


def _in_number(text: str, start: int, end: int) -> list[Found]:
    """Cards and phones in a stretch of digits and what stands between digits."""
    begin = max(0, start - _BESIDE)
    stretch = text[begin : end + _BESIDE]
    found = list(_cards(stretch))
    rest = _blanked(stretch, found)
    phones = list(_phones(rest))
    if not found and not phones:
        named = _named_phone(text, stretch, start, begin)
        phones = [named] if named else []
    return [Found(one.kind, begin + one.start, begin + one.end) for one in sorted(found + phones, key=_start)]


def _start(one: Found) -> int:
    return one.start


def _emails(text: str) -> Iterator[Found]:
    end = 0
    for at in _AT.finditer(text):
        before = text[max(end, at.start() - 64) : at.start()]
        local = _LOCAL_REVERSED.match(before[::-1])
        domain = _DOMAIN.match(text, at.end(), min(len(text), at.end() + 255))
        if local is None or domain is None or _PICTURE_OF_DENSITY.match(domain[0]):
            continue
        name = local[0][::-1].lstrip(f".-%{_QUOTE}")
        if not name or name.endswith(".") or name == "git":  # git@host:path is an address of nobody
            continue
        end = domain.end()
        yield Found("email", at.start() - len(name), end)


def _phones(text: str) -> Iterator[Found]:
    for match in _PHONE.finditer(text):
        written = match[0]
        digits = sum(map(str.isdigit, written))
        international = written.startswith(("+", "00"))
        if not international and (digits < _FEWEST_NATIONAL_DIGITS or _DATE.match(written)):
            continue
        yield Found("phone", match.start(), match.end())


def _named_phone(text: str, stretch: str, start: int, begin: int) -> Found | None:
    """The number that the stretch begins with, where a word for a phone stands before it."""
    match = _NAMED_NUMBER.match(stretch, start - begin)
    if match is None or _DATE.match(match[0]) or _IPV4.match(match[0]):
        return None
    before = text[max(0, start - _LONGEST_PHONE_WORD) : start]
    return Found("phone", match.start(), match.end()) if _PHONE_WORD.search(before) else None


def _cards(text: str) -> Iterator[Found]:
    for match in _CARD.finditer(text):
        if _is_card(match[0]):
            yield Found("card", match.start(), match.end())
        elif match["more"] and _is_card(text[match.start() : match.start("more")]):  # its security code stands behind
            yield Found("card", match.start(), match.start("more"))


def _is_card(written: str) -> bool:
    """The digits are of somebody who issues cards, and their checksum is right (ISO/IEC 7812-1, Luhn)."""
    digits = [int(character) for character in written if character.isdigit()]
    if _ISSUER.match("".join(map(str, digits))) is None or len(set(digits)) == 1:
        return False
    odd, even = digits[-1::-2], digits[-2::-2]
    return (sum(odd) + sum(_DOUBLED[digit] for digit in even)) % 10 == 0


def _blanked(text: str, pieces: list[Found]) -> str:
    """The text, as long as it was, with nothing to find where the pieces were."""
    kept, done = [], 0
    for one in pieces:
        kept += [text[done : one.start], "\0" * (one.end - one.start)]
        done = one.end
    return "".join([*kept, text[done:]]) if pieces else text
