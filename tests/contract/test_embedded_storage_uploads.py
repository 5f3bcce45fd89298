"""Uploads by the official client, signed or not, arrive whole, with their type, and within the bucket's rules."""

import pytest
from storage3.exceptions import StorageApiError
from storage3.types import CreateSignedUploadUrlOptions, FileOptions
from supabase import AsyncClient

PLAIN: FileOptions = {"content-type": "text/plain"}


async def test_a_signed_upload_arrives_with_its_type(mine: AsyncClient, client: AsyncClient, folder: str) -> None:
    signed = await mine.storage.from_("papers").create_signed_upload_url(f"{folder}/signed")
    stored = await client.storage.from_("papers").upload_to_signed_url(
        f"{folder}/signed", signed["token"], b"hello", {"content-type": "image/png", "cache-control": "60"}
    )
    assert stored.path == f"{folder}/signed"
    info = await mine.storage.from_("papers").info(f"{folder}/signed")
    assert (info["size"], info["content_type"], info["cache_control"]) == (5, "image/png", "max-age=60")
    assert await mine.storage.from_("papers").download(f"{folder}/signed") == b"hello"


async def test_a_signed_upload_replaces_only_what_it_was_signed_to_replace(
    mine: AsyncClient, client: AsyncClient, folder: str
) -> None:
    path = f"{folder}/once"
    signed = await mine.storage.from_("papers").create_signed_upload_url(path)
    await client.storage.from_("papers").upload_to_signed_url(path, signed["token"], b"1", PLAIN)
    with pytest.raises(StorageApiError):
        await client.storage.from_("papers").upload_to_signed_url(path, signed["token"], b"2", PLAIN)
    with pytest.raises(StorageApiError):
        await client.storage.from_("papers").upload_to_signed_url(f"{folder}/else", signed["token"], b"2", PLAIN)
    again = await mine.storage.from_("papers").create_signed_upload_url(
        path, CreateSignedUploadUrlOptions(upsert="true")
    )
    await client.storage.from_("papers").upload_to_signed_url(path, again["token"], b"3", PLAIN)
    assert await mine.storage.from_("papers").download(path) == b"3"


@pytest.mark.parametrize(
    ("content", "kind", "status"), [(b"x", "application/x-sh", 415), (b"x" * (1024 * 1024 + 1), "text/plain", 413)]
)
async def test_the_buckets_rules_hold(mine: AsyncClient, folder: str, content: bytes, kind: str, status: int) -> None:
    with pytest.raises(StorageApiError) as refusal:
        await mine.storage.from_("papers").upload(f"{folder}/file", content, {"content-type": kind})
    assert str(refusal.value.status) == str(status)
    signed = await mine.storage.from_("papers").create_signed_upload_url(f"{folder}/file")
    with pytest.raises(StorageApiError) as refusal:
        await mine.storage.from_("papers").upload_to_signed_url(
            f"{folder}/file", signed["token"], content, {"content-type": kind}
        )
    assert str(refusal.value.status) == str(status)
