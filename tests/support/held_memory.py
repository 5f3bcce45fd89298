"""What a gateway's worker holds: objects by their type, memory in use, memory resident."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
import psutil

from tests.support.eventually import eventually

AT_START: Final = Path(__file__).parent / "at_start"  # on PYTHONPATH, its sitecustomize.py is imported at the start
HELD_FILE_VARIABLE: Final = "BUTTRESS_TEST_HELD_FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """`objects`: how many of each type the garbage collector knows.

    `blocks`: how many pieces Python's own allocator has given out (up to 512 bytes each). `malloc_bytes`: what glibc's
    has given out, to Python and to others (0 where there is no glibc). Only `rss_bytes` has what granian holds.
    """

    objects: dict[str, int]
    blocks: int
    malloc_bytes: int
    rss_bytes: int


async def held_by(pid: int, file: Path) -> Held:
    """What this process holds now; it was started with AT_START on its path and `file` in HELD_FILE_VARIABLE."""
    file.unlink(missing_ok=True)  # noqa: ASYNC240  (here and below: a local file of some kilobytes)
    os.kill(pid, signal.SIGUSR2)

    async def said() -> bool:
        return file.exists()  # noqa: ASYNC240

    await eventually(said)
    return Held(rss_bytes=int(psutil.Process(pid).memory_info().rss), **orjson.loads(file.read_bytes()))  # noqa: ASYNC240
