"""Both stores of the ledger: a test that asks for `store` or `trio` runs on each."""

from __future__ import annotations

from uuid import uuid4

import pytest

from llm_gateway.limits.meters import SubjectLimits
from tests.support.ledger_calls import Trio
from tests.support.ledger_stores import MemoryStore, Store


@pytest.fixture(params=["memory", "postgres"])
def any_store(request: pytest.FixtureRequest) -> Store:
    """One of them. Not async: the stack cannot be started from within a loop."""
    if request.param == "memory":
        return MemoryStore()
    store: Store = request.getfixturevalue("ledger_database")
    return store


@pytest.fixture
async def store(any_store: Store) -> Store:
    """One of them, without calls, with users without limits, at a moment in January."""
    await any_store.clear()
    await any_store.set_default_plan(SubjectLimits())
    return any_store


@pytest.fixture
async def trio(store: Store) -> Trio:
    """A user, a key and a workspace that nobody has limited."""
    user_id = uuid4()
    await store.add_user(user_id)
    return Trio(store, user_id)
