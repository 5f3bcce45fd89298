"""What is personal data and what only looks like it; and no text, however odd, makes the search slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.content.personal_data import PLACEHOLDERS, find
from llm_gateway.content.plain import Plain
from llm_gateway.content.redaction import Redaction, redact
from llm_gateway.content.steps import Turns, at_once
from tests.support.untraced import cpu_s

POSITIVES = [
    ("write to jane.doe@example.com today", "write to [EMAIL] today"),
    ("jane+shop_2@mail.example.co.uk.", "[EMAIL]."),
    ("<o'brien@example.org>", "<[EMAIL]>"),
    ("'a@example.com','b@example.com'", "'[EMAIL]','[EMAIL]'"),
    ("jörg@exämple.de", "[EMAIL]"),
    ("用户@例子.公司", "[EMAIL]"),
    ("?email=jane%40example.com&x=1", "?email=[EMAIL]&x=1"),
    ("mailto:jane@example.com", "mailto:[EMAIL]"),
    ("jane\uff20example.com", "[EMAIL]"),
    ("JANE@EXAMPLE.COM", "[EMAIL]"),
    ("call +49 30 1234567 now", "call [PHONE] now"),
    ("+14155552671", "[PHONE]"),
    ("+1 (415) 555-2671", "[PHONE]"),
    ("+44 20 7946 0958, please", "[PHONE], please"),
    ("0049 30 1234567", "[PHONE]"),
    ("(415) 555-2671", "[PHONE]"),
    ("415-555-2671", "[PHONE]"),
    ("415.555.2671", "[PHONE]"),
    ("1-800-555-0199", "[PHONE]"),
    ("030 / 12345678", "[PHONE]"),
    ("030-12345678", "[PHONE]"),
    ("(030) 1234567", "[PHONE]"),
    ("0171 2345678", "[PHONE]"),
    ("020 7946 0958", "[PHONE]"),
    ("07911 123456", "[PHONE]"),
    ("01 23 45 67 89", "[PHONE]"),
    ("01.23.45.67.89", "[PHONE]"),
    ("tel: 5551234", "tel: [PHONE]"),
    ("Telefon 1234567", "Telefon [PHONE]"),
    ('{"phone_number": "5551234567"}', '{"phone_number": "[PHONE]"}'),
    ("my mobile number is 5551234567", "my mobile number is [PHONE]"),
    ("+49\u00a030\u00a01234567", "[PHONE]"),
    ("415\u2011555\u20112671", "[PHONE]"),
    ("4111111111111111", "[CARD]"),
    ("4111 1111 1111 1111", "[CARD]"),
    ("5500-0000-0000-0004 exp 12/26", "[CARD] exp 12/26"),
    ("card 378282246310005.", "card [CARD]."),
    ("3782 822463 10005", "[CARD]"),
    ("30569309025904", "[CARD]"),
    ("6011111111111117", "[CARD]"),
    ("3530111333300000", "[CARD]"),
    ("2223003122003222", "[CARD]"),
    ("4222222222222", "[CARD]"),
    ("4111 1111 1111 1111 123", "[CARD] 123"),
    ("\uff14" + "\uff11" * 15, "[CARD]"),
    ("a@example.com 4111111111111111 +49 30 1234567", "[EMAIL] [CARD] [PHONE]"),
    ("jane\u200b.doe@exam\u00adple.com", "[EMAIL]"),
    ("jane\u2060@\ufeffexample.com\u200b next", "[EMAIL]\u200b next"),
    ("4111\u200b1111\u200c1111\u200d1111", "[CARD]"),
    ("41\u00ad11 1111 1111 11\u00ad11", "[CARD]"),
    ("\u202a+49 30 1234567\u202c", "\u202a[PHONE]\u202c"),
    ("\uff4a\uff41\uff4e\uff45\uff20\uff45\uff58\uff0e\uff43\uff4f\uff4d", "[EMAIL]"),
    ("jane\ufe6bexample\uff0ecom", "[EMAIL]"),
    ("\uff0b\uff14\uff19 30 \uff11\uff12\uff13\uff14\uff15\uff16\uff17", "[PHONE]"),
    ("\uff08415\uff09 555\uff0d2671", "[PHONE]"),
    ("4111\u30001111\u20021111\u20091111", "[CARD]"),
    ("415\u2212555\u22122671", "[PHONE]"),
    ("\u0664\u0661\u0665-555-2671", "[PHONE]"),
]
NEGATIVES = [
    "order 4111111111111112",  # the checksum is wrong
    "order 1234567890123456",  # nobody issues these
    "0000000000000000",
    "order no. 302-1234567-1234567",
    "ORD-2024-000123456",
    "ORD-415-555-2671",
    "invoice 20240115-0042",
    "550e8400-e29b-41d4-a716-446655440000",
    "12345678-1234-1234-1234-123456789012",
    "$1,234,567.89",
    "1 234 567,89 €",
    "USD 4155552671.00",
    "it costs 415.555",
    "2024-01-15",
    "2024-01-15 10:30:00",
    "2024-01-15T10:30:00.123456Z",
    "15.01.2024",
    "01/15/2024",
    "01-15-2024",
    "08-12-2024 and 09-12-2024",
    "1700000000",
    "1700000000123",
    "1700000000123456",
    "192.168.100.200",
    "10.0.0.1:8080",
    "255.255.255.255",
    "2001:db8::ff00:42:8329",
    "3.14159265358979",
    "version 10.4.2041",
    "978-3-16-148410-0",
    "ISBN 9783161484100",
    "DE89 3704 0044 0532 0130 00",
    "0x1234567890abcdef",
    "deadbeef1234567890123456",
    "9876543210",
    "1234567890",
    "lat 52.5200065, lon 13.4049540",
    "@dataclass(frozen=True)",
    "@app.get('/users')",
    "git@github.com:acme/repo.git",
    "lodash@4.17.21",
    "icon@2x.png",
    "user@localhost",
    "a @ b",
    "LIKE '%40%'",
    "x@y.mean()",
    "if a@b: pass",
    "phone home",
    "tel aviv 2024-01-15",
    "mobile 192.168.100.200",
    "100-200-300",
    "415 555 267",
    "range(415, 555, 2671)",
    "[415, 555, 2671]",
    "1:415-555-2671",
    "+1",
    "+0200",
    "12+34567890=34567902",
    "sha256:4111111111111111aa",
    "pi is 0314 1592",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",  # a family and a heart
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\uff08\u89c1\u56fe\uff11\uff09\uff0c\u5171\uff12\uff0e\uff15",
]  # fmt: skip


@pytest.mark.parametrize(("text", "redacted"), POSITIVES)
def test_personal_data_is_replaced_and_nothing_else(text: str, redacted: str) -> None:
    assert redact(text)[0] == redacted


@pytest.mark.parametrize("text", NEGATIVES)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redact(text) == (text, {})


def test_each_piece_is_reported_with_its_kind() -> None:
    assert redact("4111111111111111, a@example.com, (415) 555-2671")[1] == {"card": 1, "email": 1, "phone": 1}


def test_what_was_redacted_has_nothing_left_to_redact() -> None:
    for text, _ in POSITIVES:
        once = redact(text)[0]
        assert redact(once) == (once, {})


@given(st.text(alphabet="0123456789 -.()/+@a%4\u00a0:x", max_size=300))
def test_pieces_are_in_order_within_the_text_and_do_not_overlap(text: str) -> None:
    end = 0
    for one in find(text):
        assert end <= one.start < one.end <= len(text)
        end = one.end


INVISIBLE = st.sampled_from("\u00ad\u200b\u200d\u2060\ufeff\ufe0f\U000e0041")


@given(st.sampled_from(POSITIVES), st.data())
def test_what_nobody_sees_hides_nothing(positive: tuple[str, str], data: st.DataObject) -> None:
    text, redacted = positive
    for unseen in data.draw(st.lists(INVISIBLE, max_size=5)):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + unseen + text[at:]
    assert visible(redact(text)[0]) == visible(redacted)


def visible(text: str) -> str:
    return Plain(text).text


@given(st.lists(st.sampled_from([text for text, _ in POSITIVES] + NEGATIVES), max_size=30), st.integers(4000, 4200))
def test_in_a_long_text_it_is_found_wherever_it_stands(texts: list[str], before: int) -> None:
    filler = "so to say " * (before // 10) + "\n" * (before % 10)
    long = "\n\n".join([filler, *texts, filler, *texts])
    assert redact(long)[0] == "\n\n".join(redact(text)[0] for text in [filler, *texts, filler, *texts])


SPLIT = [
    (["jane.doe@", "example.com wrote"], ["[EMAIL]", " wrote"]),
    (["to jane@exam", "p", "le.com."], ["to [EMAIL]", "", "."]),
    (["4111 1111 ", "1111 1111", " and so on"], ["[CARD]", "", " and so on"]),
    (["call +49 30 12", "34567 now"], ["call [PHONE]", " now"]),
    (["a@example.com", "next"], ["[EMAIL]", "next"]),
    (["Hello ", "", "world"], ["Hello ", "", "world"]),
    (["jane@exa\u00ad", "\u200bmple.com"], ["[EMAIL]", ""]),
    (["x" * 5000 + " jane@", "example.com" + " y" * 5000], ["x" * 5000 + " [EMAIL]", " y" * 5000]),
]


@pytest.mark.parametrize(("texts", "redacted"), SPLIT)
def test_what_begins_in_one_text_and_ends_in_another_goes_where_it_begins(
    texts: list[str], redacted: list[str]
) -> None:
    redaction = Redaction()
    alone = [at_once(redaction.text(text)) for text in texts]
    assert at_once(redaction.across(alone)) == redacted
    assert redaction.kinds.total() == (redacted != texts)


@given(st.lists(st.text(alphabet="0123456789 -.()+@a%4:x\u200b", max_size=30), max_size=8))
def test_nothing_but_what_crosses_is_taken_from_texts_that_are_read_as_one(texts: list[str]) -> None:
    redaction = Redaction()
    seen = at_once(redaction.across(texts))
    assert len(seen) == len(texts)
    if not redaction.kinds:
        assert seen == texts
    placeholders = sum(len(PLACEHOLDERS[kind]) for kind in redaction.kinds.elements())
    assert sum(map(len, seen)) - placeholders < len("".join(texts)) or not redaction.kinds


async def test_others_have_their_turn_while_a_long_text_is_redacted() -> None:
    turns_of_others = 0

    async def others() -> None:
        nonlocal turns_of_others
        while True:
            await asyncio.sleep(0)
            turns_of_others += 1

    working = asyncio.create_task(others())
    text = await Turns().take(Redaction().text("write to jane@example.com " * 20_000))
    working.cancel()
    assert text == "write to [EMAIL] " * 20_000
    assert turns_of_others > 5


HOSTILE = {
    "digits": "1",
    "card digits": "4",
    "zeros": "0",
    "spaced digits": "1 ",
    "spaced zeros": "01 ",
    "groups": "4111 ",
    "long groups": "0123456 ",
    "at signs": "@",
    "names": "a",
    "name and at": "a@",
    "dots": "a.",
    "at and dots": "a@a.",
    "dashes": "-",
    "labels": "@a-a.b",
    "percent": "%40a.",
    "plus": "+1 ",
    "double zero": "00 1",
    "brackets": "(",
    "bracketed": "(415) ",
    "american": "415-555-",
    "keyword": "tel ",
    "keyword digits": "tel 1-2-",
    "words": "telefon",
    "spaces": " ",
    "phones": "+49 30 1234567, ",
    "mails": "a@example.com ",
    "cards": "4111111111111111 ",
    "invisible": "\u200b",
    "invisible between": "a\u200b",
    "invisible in numbers": "4\u00ad1",
    "full-width": "\uff14\uff11",
    "full-width at": "\uff41\uff20",
}


@pytest.mark.parametrize("search", [find, redact], ids=["at once", "in slices"])
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_time_grows_with_the_length_of_the_text_and_no_faster(unit: str, search: Callable[[str], object]) -> None:
    """Of four times the text, at most about four times the CPU: a quadratic search would need sixteen."""

    short, long = (unit * (characters // len(unit)) for characters in (20_000, 80_000))

    def grows_with_the_length() -> bool:
        return cpu_s(lambda: search(long)) < 8 * cpu_s(lambda: search(short)) + 0.005

    assert any(grows_with_the_length() for _ in range(3))
