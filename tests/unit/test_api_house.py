"""Rules of the API's own source that no type checker knows."""

from pathlib import Path

import api

SOURCES = {path: path.read_text() for path in Path(api.__file__).parent.rglob("*.py")}


def files_with(text: str) -> set[str]:
    root = Path(api.__file__).parent
    return {str(path.relative_to(root)) for path, source in SOURCES.items() if text in source}


def test_one_module_alone_reads_the_secret_key() -> None:
    assert files_with("supabase_secret_key") == {"supabase/auth.py"}


def test_nobody_closes_or_mutates_a_client_bound_to_a_caller() -> None:
    for forbidden in ("db.aclose", "async with caller.db", "db.auth(", ".schema("):
        assert files_with(forbidden) == set()


def test_only_queries_know_tables_and_functions() -> None:
    for call in (".from_(", ".rpc("):
        assert all(path.endswith("queries.py") for path in files_with(call))
