"""What is personal data and what only looks like it; and no text, however odd, makes the search slow."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.content.personal_data import find, redact

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
]  # fmt: skip


@pytest.mark.parametrize(("text", "redacted"), POSITIVES)
def test_personal_data_is_replaced_and_nothing_else(text: str, redacted: str) -> None:
    assert redact(text)[0] == redacted


@pytest.mark.parametrize("text", NEGATIVES)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redact(text) == (text, [])


def test_each_piece_is_reported_with_its_kind() -> None:
    assert redact("4111111111111111, a@example.com, (415) 555-2671")[1] == ["card", "email", "phone"]


def test_what_was_redacted_has_nothing_left_to_redact() -> None:
    for text, _ in POSITIVES:
        once = redact(text)[0]
        assert redact(once) == (once, [])


@given(st.text(alphabet="0123456789 -.()/+@a%4\u00a0:x", max_size=300))
def test_pieces_are_in_order_within_the_text_and_do_not_overlap(text: str) -> None:
    end = 0
    for one in find(text):
        assert end <= one.start < one.end <= len(text)
        end = one.end


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
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_time_grows_with_the_length_of_the_text_and_no_faster(unit: str) -> None:
    """Of four times the text, at most about four times the CPU: a quadratic search would need sixteen."""

    def cpu_s(characters: int) -> float:
        text = unit * (characters // len(unit))
        spent = []
        for _ in range(3):
            began = time.thread_time()
            find(text)
            spent.append(time.thread_time() - began)
        return min(spent)

    assert cpu_s(80_000) < 8 * cpu_s(20_000) + 0.005
