"""No statement is put together from values: SQL is written out, and what callers send goes beside it.

BerriAI/litellm had an SQL injection in the very check of its keys (1.81.16 to 1.83.6). Which of the database's own
functions put statements together is a list: supabase/tests/rules/dynamic_statements_are_listed.sql.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
# What takes a statement first: asyncpg's methods, and ours that pass one on in a parameter of one of PASSED_ON's names.
TAKERS: Final = frozenset(
    {"execute", "executemany", "fetch", "fetchval", "fetchrow", "prepare", "cursor", "_ask", "_answers", "_rows"}
)
PASSED_ON: Final = frozenset({"query", "statement", "question"})  # the last is no statement: whoever calls, to be found


def speaks_sql(source: str) -> bool:
    return "asyncpg" in source


def put_together(source: str) -> list[str]:
    """The statements that are not a literal, a NAME of the module, or both in an f-string."""
    return [
        f"line {call.lineno}: {ast.unparse(call.args[0])}"
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in TAKERS
        if call.args and not _is_written_out(call.args[0])
    ]


def _is_written_out(node: ast.expr) -> bool:
    if isinstance(node, ast.JoinedStr):
        parts = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        return all(isinstance(part, ast.Name) and part.id.isupper() for part in parts)
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.Name) and (node.id.isupper() or node.id in PASSED_ON)
    )


FILES: Final = {
    str(path.relative_to(ROOT)): path.read_text()
    for folder in ("core", "api", "llm_gateway")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if speaks_sql(path.read_text())
}


@pytest.mark.parametrize("name", FILES)
def test_statements_are_written_out(name: str) -> None:
    assert put_together(FILES[name]) == []


def test_the_services_speak_sql_in_few_places() -> None:
    assert "llm_gateway/directory.py" in FILES
    assert "llm_gateway/limits/postgres.py" in FILES
    assert len(FILES) < 15


@pytest.mark.parametrize(
    "call",
    [
        "c.fetch(f'select {name}')",
        "c.fetch('select ' + name)",
        "c.execute('select %s' % name)",
        "c.fetchval('select {}'.format(name))",
        "c.fetchrow(text)",
        "self._ask(_FIND + name, ())",
    ],
)
def test_one_that_is_not_is_noticed(call: str) -> None:
    assert len(put_together(call)) == 1
