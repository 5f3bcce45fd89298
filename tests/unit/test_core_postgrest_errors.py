"""PostgREST's and PostgreSQL's codes, each with the error of ours that it becomes."""

from __future__ import annotations

import pytest

from core.errors import (
    BadGateway,
    ButtressError,
    Conflict,
    GatewayTimeout,
    InternalFault,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    PreconditionFailed,
    TooManyRequests,
    Unavailable,
    Unprocessable,
)
from core.postgrest_errors import PostgrestFailure, error_from_postgrest

CANARY = 'relation "private.canary_table" violates "canary_key"'

# code -> (PostgREST's own status, our error, our code where it is a particular one)
SQLSTATES: dict[str, tuple[int, type[ButtressError], str | None]] = {
    "08000": (503, Unavailable, "database_unavailable"),
    "08006": (503, Unavailable, "database_unavailable"),
    "09000": (500, InternalFault, None),
    "0L000": (403, NotAllowed, None),
    "0P000": (403, NotAllowed, None),
    "21000": (500, InternalFault, None),
    "22001": (400, InvalidInput, "invalid_value"),
    "22003": (400, InvalidInput, "invalid_value"),
    "22008": (400, InvalidInput, "invalid_value"),
    "22023": (400, InvalidInput, "invalid_value"),
    "22P02": (400, InvalidInput, "invalid_value"),
    "22P05": (400, InvalidInput, "invalid_value"),
    "23502": (400, InvalidInput, "value_missing"),
    "23503": (409, Conflict, "reference_conflict"),
    "23505": (409, Conflict, "already_exists"),
    "23514": (400, Unprocessable, "value_not_allowed"),
    "23P01": (400, InvalidInput, None),
    "25000": (500, InternalFault, None),
    "25006": (405, Unavailable, "database_read_only"),
    "28000": (403, NotAllowed, None),
    "28P01": (403, NotAllowed, None),
    "2D000": (500, InternalFault, None),
    "38000": (500, InternalFault, None),
    "39000": (500, InternalFault, None),
    "3B000": (500, InternalFault, None),
    "40000": (500, InternalFault, None),
    "40001": (500, Conflict, "write_conflict"),
    "40P01": (500, Conflict, "write_conflict"),
    "42501": (403, NotAllowed, "not_allowed"),
    "42601": (400, InternalFault, None),
    "42703": (400, InternalFault, None),
    "42883": (404, InternalFault, None),
    "42P01": (404, InternalFault, None),
    "42P17": (500, InternalFault, None),
    "53000": (503, Unavailable, "database_unavailable"),
    "53100": (503, Unavailable, "database_unavailable"),
    "53300": (503, Unavailable, "database_unavailable"),
    "53400": (500, InternalFault, None),
    "54001": (500, InternalFault, None),
    "55000": (500, InternalFault, None),
    "55P03": (500, Conflict, "write_conflict"),
    "57000": (500, InternalFault, None),
    "57014": (500, GatewayTimeout, "database_timeout"),
    "57P01": (503, Unavailable, "database_unavailable"),
    "57P02": (500, Unavailable, "database_unavailable"),
    "57P03": (503, Unavailable, "database_unavailable"),
    "58030": (500, InternalFault, None),
    "F0000": (500, InternalFault, None),
    "HV000": (500, InternalFault, None),
    "P0000": (500, InternalFault, None),
    "P0001": (400, InvalidInput, "invalid_request"),
    "P0002": (500, InternalFault, None),
    "XX000": (500, InternalFault, None),
    "PT404": (404, NotFound, "not_found"),
    "PT409": (409, Conflict, "conflict"),
    "PT412": (412, PreconditionFailed, "precondition_failed"),
    "PT429": (429, TooManyRequests, "too_many_requests"),
    "PT418": (418, InternalFault, None),
    "PTXYZ": (500, InternalFault, None),
}
POSTGREST: dict[str, tuple[int, type[ButtressError], str | None]] = {
    **{f"PGRST{n}": (503, Unavailable, "database_unavailable") for n in ("000", "001", "002")},
    "PGRST003": (504, Unavailable, "database_unavailable"),
    "PGRST100": (400, InvalidInput, "invalid_query"),
    "PGRST101": (405, InternalFault, None),
    "PGRST102": (400, InvalidInput, "invalid_json"),
    "PGRST103": (416, InvalidInput, "invalid_query"),
    "PGRST105": (405, InternalFault, None),
    "PGRST106": (406, InternalFault, None),
    "PGRST107": (406, InternalFault, None),
    **{f"PGRST{n}": (400, InternalFault, None) for n in (108, 114, 115, 118, 120, 122, 123, 124, 127, 128)},
    "PGRST111": (500, InternalFault, None),
    "PGRST112": (500, InternalFault, None),
    "PGRST116": (406, NotFound, "not_found"),
    "PGRST117": (405, InternalFault, None),
    "PGRST121": (500, InternalFault, None),
    "PGRST125": (404, InternalFault, None),
    "PGRST126": (404, InternalFault, None),
    "PGRST200": (400, Unavailable, "schema_loading"),
    "PGRST201": (300, InternalFault, None),
    "PGRST202": (404, Unavailable, "schema_loading"),
    "PGRST203": (300, InternalFault, None),
    "PGRST204": (400, Unavailable, "schema_loading"),
    "PGRST205": (404, Unavailable, "schema_loading"),
    "PGRST300": (500, InternalFault, None),
    "PGRST301": (401, NotAuthenticated, "token_invalid"),
    "PGRST302": (401, NotAuthenticated, "token_missing"),
    "PGRST303": (401, NotAuthenticated, "token_invalid"),
    "PGRSTX00": (500, InternalFault, None),
}
TABLE = {**SQLSTATES, **POSTGREST}


@pytest.mark.parametrize("code", TABLE)
def test_a_code_becomes_our_error_and_shows_nothing_of_the_database(code: str) -> None:
    status, kind, our_code = TABLE[code]
    error = error_from_postgrest({"code": code, "message": CANARY, "details": CANARY, "hint": CANARY}, status=status)
    assert type(error) is kind
    assert our_code in (None, error.code)
    assert "canary" not in str(error.body("req_1"))
    assert isinstance(error.__cause__, PostgrestFailure)
    assert "canary" in str(error.__cause__)  # the log has it


@pytest.mark.parametrize("code", TABLE)
def test_the_code_decides_without_the_status_too(code: str) -> None:
    _, kind, _ = TABLE[code]
    assert type(error_from_postgrest({"code": code, "message": CANARY})) is kind


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("last_owner", 409, Conflict),
        ("personal_workspace", 409, Conflict),
        ("not_allowed", 403, NotAllowed),
        ("workspace_not_found", 404, NotFound),
        ("limit2_reached", 429, TooManyRequests),
        ("odd_status", 418, Unprocessable),
        ("no_status", None, Unprocessable),
    ],
)
def test_what_our_own_functions_raise_passes_as_it_is(code: str, status: int | None, kind: type[ButtressError]) -> None:
    error = error_from_postgrest(
        {"code": code, "message": "A workspace needs an owner.", "details": {"left": 1}, "hint": None}, status=status
    )
    assert type(error) is kind
    assert (error.code, error.message, error.details) == (code, "A workspace needs an owner.", {"left": 1})


def test_a_details_text_of_our_own_functions_is_kept_to_the_log() -> None:
    error = error_from_postgrest({"code": "last_owner", "message": "", "details": "row 7"}, status=409)
    assert (error.message, error.details) == (Conflict.default_message, None)


def test_a_refusal_without_a_token_means_sign_in_first() -> None:
    assert type(error_from_postgrest({"code": "42501"}, status=401, authenticated=False)) is NotAuthenticated


@pytest.mark.parametrize("code", ["PGRST301", "PGRST303"])
def test_an_expired_token_is_said_to_be_expired(code: str) -> None:
    assert error_from_postgrest({"code": code, "message": "JWT expired"}, status=401).code == "token_expired"


def test_a_token_for_a_role_that_is_none_is_a_bad_token() -> None:
    error = error_from_postgrest({"code": "22023", "message": 'role "root" does not exist'}, status=401)
    assert (type(error), error.code) == (NotAuthenticated, "token_invalid")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (None, BadGateway),
        (200, BadGateway),
        (400, BadGateway),
        (404, BadGateway),
        (500, BadGateway),
        (502, BadGateway),
        (401, NotAuthenticated),
        (403, NotAllowed),
        (429, TooManyRequests),
        (503, Unavailable),
        (504, GatewayTimeout),
    ],
)
def test_an_answer_that_is_not_postgrests_is_judged_by_its_status(
    status: int | None, kind: type[ButtressError]
) -> None:
    for body in ({}, {"message": "<html>canary</html>"}, {"code": 502, "message": "canary"}, {"code": None}):
        error = error_from_postgrest(body, status=status)
        assert type(error) is kind
        assert "canary" not in str(error.body("r"))
