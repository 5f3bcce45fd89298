"""Signed links, downloads and descriptions have the shapes the official clients read."""

import hashlib
import time

import httpx
from storage3.types import FileOptions
from supabase import AsyncClient

from tests.support.callers import Caller
from tests.support.embedded_supabase import EmbeddedSupabase
from tests.support.pools import PATIENCE_S

PLAIN: FileOptions = {"content-type": "text/plain"}


async def test_a_file_comes_back_with_its_type(mine: AsyncClient, folder: str, supabase: EmbeddedSupabase) -> None:
    papers = mine.storage.from_("papers")
    stored = await papers.upload(
        f"{folder}/no-extension", b"hello", {"content-type": "image/png", "cache-control": "60"}
    )
    assert stored.full_path == f"papers/{folder}/no-extension"
    assert await papers.download(f"{folder}/no-extension") == b"hello"
    info = await papers.info(f"{folder}/no-extension")
    assert (info["size"], info["content_type"], info["cache_control"]) == (5, "image/png", "max-age=60")
    assert info["etag"].strip('"') == hashlib.md5(b"hello").hexdigest()
    assert await papers.exists(f"{folder}/no-extension")
    assert not await papers.exists(f"{folder}/other")


async def test_a_range_and_a_known_version_save_the_rest(
    supabase: EmbeddedSupabase, person: Caller, mine: AsyncClient, folder: str
) -> None:
    await mine.storage.from_("papers").upload(f"{folder}/digits", b"0123456789", PLAIN)
    async with supabase.client(token=person.access_token) as client:
        url = f"/storage/v1/object/authenticated/papers/{folder}/digits"
        part = await client.get(url, headers={"Range": "bytes=2-4"})
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
        end = await client.get(url, headers={"Range": "bytes=-3"})
        assert (end.status_code, end.content) == (206, b"789")
        same = await client.get(url, headers={"If-None-Match": part.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        head = await client.head(url)
        assert (head.status_code, head.headers["content-length"]) == (200, "10")


async def test_signed_links_hold_for_their_file_and_their_time(
    supabase: EmbeddedSupabase, mine: AsyncClient, folder: str
) -> None:
    papers = mine.storage.from_("papers")
    await papers.upload(f"{folder}/a", b"a", PLAIN)
    link = str((await papers.create_signed_url(f"{folder}/a", 60))["signedURL"])
    short = str((await papers.create_signed_url(f"{folder}/a", 1))["signedURL"])
    issued = time.monotonic()
    async with httpx.AsyncClient(timeout=PATIENCE_S) as browser:
        assert (await browser.get(link)).content == b"a"
        assert (await browser.get(link.replace(f"{folder}/a", f"{folder}/b"))).status_code >= 400
        assert (await browser.get(link[:-3])).status_code >= 400
        while time.monotonic() - issued < 5 and (await browser.get(short)).status_code == 200:
            pass
        assert (await browser.get(short)).status_code == 400


async def test_many_links_at_once_each_with_its_own_outcome(mine: AsyncClient, folder: str) -> None:
    papers = mine.storage.from_("papers")
    await papers.upload(f"{folder}/a", b"a", PLAIN)
    found, missing = await papers.create_signed_urls([f"{folder}/a", f"{folder}/missing"], 60)
    assert (found["path"], found["error"]) == (f"{folder}/a", None)
    async with httpx.AsyncClient(timeout=PATIENCE_S) as browser:
        assert (await browser.get(str(found["signedURL"]))).content == b"a"
    assert missing["error"]
    assert missing["signedURL"] is None


async def test_a_link_may_ask_for_a_download_under_another_name(mine: AsyncClient, folder: str) -> None:
    papers = mine.storage.from_("papers")
    await papers.upload(f"{folder}/a", b"a", PLAIN)
    link = (await papers.create_signed_url(f"{folder}/a", 60, {"download": "später.txt"}))["signedURL"]
    async with httpx.AsyncClient(timeout=PATIENCE_S) as browser:
        response = await browser.get(str(link))
    assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''sp%C3%A4ter.txt"
