"""The official Python client stores, replaces, moves and removes files, and each person only their own."""

import pytest
from storage3.exceptions import StorageApiError
from storage3.types import FileOptions
from supabase import AsyncClient

from tests.support.callers import Caller
from tests.support.embedded_supabase import EmbeddedSupabase

PLAIN: FileOptions = {"content-type": "text/plain"}


async def test_a_file_and_a_folder_may_share_a_name(mine: AsyncClient, folder: str) -> None:
    papers = mine.storage.from_("papers")
    await papers.upload(f"{folder}/a", b"file", PLAIN)
    await papers.upload(f"{folder}/a/b", b"below", PLAIN)
    assert await papers.download(f"{folder}/a") == b"file"
    assert await papers.download(f"{folder}/a/b") == b"below"


async def test_an_empty_file_and_an_odd_name_are_fine(mine: AsyncClient, folder: str) -> None:
    papers = mine.storage.from_("papers")
    for name in ("empty", "späte Übung & more (1).txt", "x" * 200):
        await papers.upload(f"{folder}/{name}", b"", PLAIN)
        assert await papers.download(f"{folder}/{name}") == b""


async def test_nobody_else_reads_writes_lists_or_removes_it(
    mine: AsyncClient, theirs: AsyncClient, folder: str
) -> None:
    await mine.storage.from_("papers").upload(f"{folder}/secret", b"mine", PLAIN)
    papers = theirs.storage.from_("papers")
    for attempt in (
        papers.download(f"{folder}/secret"),
        papers.info(f"{folder}/secret"),
        papers.create_signed_url(f"{folder}/secret", 60),
        papers.create_signed_upload_url(f"{folder}/new"),
        papers.upload(f"{folder}/new", b"x", PLAIN),
        papers.upload(f"{folder}/secret", b"x", {**PLAIN, "upsert": "true"}),
        papers.move(f"{folder}/secret", f"{folder}/moved"),
    ):
        with pytest.raises(StorageApiError):
            await attempt
    assert await papers.list(folder) == []
    assert await papers.remove([f"{folder}/secret"]) == []
    assert await mine.storage.from_("papers").download(f"{folder}/secret") == b"mine"


async def test_whoever_has_not_signed_in_gets_nothing(
    supabase: EmbeddedSupabase, mine: AsyncClient, folder: str
) -> None:
    await mine.storage.from_("papers").upload(f"{folder}/secret", b"mine", PLAIN)
    async with supabase.client() as client:
        for path in ("", "authenticated/", "public/"):
            response = await client.get(f"/storage/v1/object/{path}papers/{folder}/secret")
            assert response.status_code == 400, path
            assert response.json()["statusCode"] == "404"


async def test_removed_moved_copied_and_replaced(mine: AsyncClient, folder: str) -> None:
    papers = mine.storage.from_("papers")
    await papers.upload(f"{folder}/one", b"1", PLAIN)
    with pytest.raises(StorageApiError):
        await papers.upload(f"{folder}/one", b"2", PLAIN)
    await papers.upload(f"{folder}/one", b"2", {**PLAIN, "upsert": "true"})
    await papers.copy(f"{folder}/one", f"{folder}/two")
    await papers.move(f"{folder}/two", f"{folder}/three")
    await papers.update(f"{folder}/one", b"3", PLAIN)
    assert (await papers.download(f"{folder}/one"), await papers.download(f"{folder}/three")) == (b"3", b"2")
    removed = await papers.remove([f"{folder}/one"])
    assert [entry["name"] for entry in removed] == [f"{folder}/one"]
    with pytest.raises(StorageApiError):
        await papers.download(f"{folder}/one")


async def test_no_key_leaves_the_bucket(supabase: EmbeddedSupabase, person: Caller) -> None:
    async with supabase.client(token=person.access_token) as client:
        for key in (f"{person.user_id}/../../../etc/passwd", f"{person.user_id}/%2e%2e/%2e%2e/x"):
            response = await client.post(
                f"/storage/v1/object/papers/{key}", content=b"x", headers={"Content-Type": "text/plain"}
            )
            assert response.status_code in (400, 404), key
