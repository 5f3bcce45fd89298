"""docs/how-others-fail.md names tests that exist, for every failure and every recommendation."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "how-others-fail.md").read_text()
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", TEXT)))


@pytest.mark.parametrize("node_id", TESTS)
def test_a_test_that_is_named_exists(node_id: str) -> None:
    file, name = node_id.split("::")
    module = ast.parse((ROOT / file).read_text())
    assert name.startswith("test_")
    assert name in {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_row_has_its_number_and_names_a_test() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", TEXT, re.MULTILINE)
    assert [int(number) for number, _ in rows] == [*range(1, 26), *range(1, 21)]
    assert [number for number, tests in rows if "::test_" not in tests] == []
