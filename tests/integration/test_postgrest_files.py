"""The bucket `files`, through Storage: everybody has their own folder and reaches no other."""

from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.support.callers import ANONYMOUS, Caller, new_caller
from tests.support.pools import PATIENCE_S
from tests.support.stack import RunningStack


@pytest.fixture
async def owner(stack: RunningStack, database: asyncpg.Connection) -> Caller:
    return await new_caller(stack, database)


@pytest.fixture
def path(owner: Caller) -> str:
    return f"{owner.user_id}/{uuid4()}.txt"


def storage(stack: RunningStack, caller: Caller) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"{stack.supabase_url}/storage/v1",
        headers={"apikey": stack.publishable_key, **caller.headers},
        timeout=PATIENCE_S,
        verify=stack.supabase_url.startswith("https:"),
    )


async def upload(
    stack: RunningStack,
    caller: Caller,
    path: str,
    content: bytes = b"mine",
    *,
    kind: str = "text/plain",
    upsert: bool = False,
) -> int:
    headers = {"content-type": kind, "x-upsert": str(upsert).lower()}
    async with storage(stack, caller) as client:
        return (await client.post(f"/object/files/{path}", content=content, headers=headers)).status_code


async def download(stack: RunningStack, caller: Caller, path: str) -> bytes | None:
    """What the file holds, for this caller; None where there is none."""
    async with storage(stack, caller) as client:
        response = await client.get(f"/object/authenticated/files/{path}")
    return response.content if response.is_success else None


async def remove(stack: RunningStack, caller: Caller, path: str) -> None:
    """The file is gone, if the caller sees it; Storage says 200 to everybody else as well."""
    async with storage(stack, caller) as client:
        await client.request("DELETE", "/object/files", json={"prefixes": [path]})


async def test_people_keep_files_in_their_own_folder(stack: RunningStack, owner: Caller, path: str) -> None:
    assert await upload(stack, owner, path) == 200
    assert await download(stack, owner, path) == b"mine"
    assert await upload(stack, owner, path, b"newer", upsert=True) == 200
    assert await download(stack, owner, path) == b"newer"
    await remove(stack, owner, path)
    assert await download(stack, owner, path) is None


@pytest.mark.parametrize("who", ["stranger", "anonymous"])
async def test_nobody_reaches_the_folder_of_somebody_else(
    stack: RunningStack, database: asyncpg.Connection, owner: Caller, path: str, who: str
) -> None:
    caller = await new_caller(stack, database) if who == "stranger" else ANONYMOUS
    assert await upload(stack, owner, path) == 200
    objects = "select name, version, updated_at, metadata::text from storage.objects order by name"
    before = await database.fetch(objects)

    assert await download(stack, caller, path) is None
    assert await upload(stack, caller, f"{owner.user_id}/planted.txt") >= 400
    assert await upload(stack, caller, path, b"taken", upsert=True) >= 400
    await remove(stack, caller, path)
    async with storage(stack, caller) as client:
        listed = await client.post("/object/list/files", json={"prefix": str(owner.user_id), "limit": 10, "offset": 0})
        signed = await client.post(f"/object/sign/files/{path}", json={"expiresIn": 60})
        moved = await client.post(
            "/object/move",
            json={"bucketId": "files", "sourceKey": path, "destinationKey": f"{caller.user_id}/stolen.txt"},
        )
    assert listed.status_code >= 400 or listed.json() == []
    assert signed.status_code >= 400
    assert moved.status_code >= 400

    assert await database.fetch(objects) == before
    assert await download(stack, owner, path) == b"mine"


async def test_folder_is_the_whole_first_part_of_the_path(stack: RunningStack, owner: Caller) -> None:
    for path in (f"{owner.user_id}", f"{owner.user_id}x/a.txt", f"shared/{owner.user_id}/a.txt", "a.txt"):
        assert await upload(stack, owner, path) >= 400, path


async def test_bucket_takes_the_kinds_of_file_that_config_names(stack: RunningStack, owner: Caller, path: str) -> None:
    assert await upload(stack, owner, path, kind="text/html") >= 400
