"""Pools as the gateway opens them, and the patience with a busy machine that only production must not have."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from core.errors import Unavailable
from core.postgres import database_errors, open_pool
from core.settings import Settings

T = TypeVar("T")

DEADLINE_VARIABLE = "BUTTRESS_DATABASE_DEADLINE_S"
SUPABASE_DEADLINE_VARIABLE = "BUTTRESS_SUPABASE_DEADLINE_S"
PATIENCE_S = 20.0  # so that a busy machine is not taken for an outage; the tests' HTTP clients wait as long
READY_WITHIN_S = 90.0  # a service that was started; one that ends instead is noticed at once
AS_IN_SERVICE_S: float = Settings.model_fields["database_deadline_s"].default
SUPABASE_AS_IN_SERVICE_S: float = Settings.model_fields["supabase_deadline_s"].default

# For a copy of Buttress that is started as a user would.
PATIENT = {DEADLINE_VARIABLE: str(PATIENCE_S), SUPABASE_DEADLINE_VARIABLE: str(PATIENCE_S)}

pool_on = partial(open_pool, name="buttress-tests", deadline_s=PATIENCE_S)


async def asked_until_it_answers(ask: Callable[[], Awaitable[T]]) -> T:
    """What a database that is up answers through a pool which, as in service, takes a busy machine for an outage."""
    async with asyncio.timeout(60):
        while True:
            try:
                with database_errors():
                    return await ask()
            except Unavailable:
                continue
