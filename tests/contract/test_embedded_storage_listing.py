"""A listing shows one folder: files by their relative name, sub-folders once."""

import pytest
from storage3.types import FileOptions
from supabase import AsyncClient

PLAIN: FileOptions = {"content-type": "text/plain"}


@pytest.fixture
async def filled(mine: AsyncClient, folder: str) -> str:
    """A folder with two files and a sub-folder of two; beside it one whose name starts the same."""
    for path in ("b", "a", "sub/1", "sub/2"):
        await mine.storage.from_("papers").upload(f"{folder}/{path}", b"x", PLAIN)
    await mine.storage.from_("papers").upload(f"{folder}-other/c", b"x", PLAIN)
    return folder


async def test_names_are_relative_and_folders_have_no_id(mine: AsyncClient, filled: str) -> None:
    entries = await mine.storage.from_("papers").list(filled)
    assert [entry["name"] for entry in entries] == ["a", "b", "sub"]
    assert [entry["id"] is None for entry in entries] == [False, False, True]
    assert entries[0]["metadata"]["mimetype"] == "text/plain"
    assert entries[0]["metadata"]["size"] == 1


async def test_a_folder_may_be_listed_in_pages_searched_and_sorted(mine: AsyncClient, filled: str) -> None:
    papers = mine.storage.from_("papers")

    async def names(**options: object) -> list[str]:
        return [entry["name"] for entry in await papers.list(filled, options)]  # type: ignore[arg-type]

    assert await names(limit=2, offset=1) == ["b", "sub"]
    assert await names(sortBy={"column": "name", "order": "desc"}) == ["sub", "b", "a"]
    assert await names(search="S") == ["sub"]


async def test_a_sub_folder_is_listed_by_its_path(mine: AsyncClient, filled: str) -> None:
    entries = await mine.storage.from_("papers").list(f"{filled}/sub/")
    assert [entry["name"] for entry in entries] == ["1", "2"]


async def test_what_others_have_is_not_listed(mine: AsyncClient, theirs: AsyncClient, filled: str) -> None:
    assert await theirs.storage.from_("papers").list(filled) == []
    assert await theirs.storage.from_("papers").list() == []
    top = await mine.storage.from_("papers").list()
    assert {entry["name"] for entry in top} == {filled.partition("/")[0]}


async def test_wildcards_in_a_name_are_letters(mine: AsyncClient, filled: str) -> None:
    assert await mine.storage.from_("papers").list(filled.replace(filled[-1], "_")) == []
