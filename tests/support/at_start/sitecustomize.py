"""Imported by Python itself at the start of a process that tests look into.

On SIGUSR1 it writes to its log what each thread does; on SIGUSR2 it says what it holds, into a file.

Memory that is free but not given back to the system is given back first, as far as glibc's allocator has it.
"""

import ctypes
import faulthandler
import gc
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType


class _Mallinfo2(ctypes.Structure):
    _fields_ = (
        ("arena_ordblks_smblks_hblks", ctypes.c_size_t * 4),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks_fsmblks", ctypes.c_size_t * 2),
        ("uordblks", ctypes.c_size_t),
        ("fordblks_keepcost", ctypes.c_size_t * 2),
    )


def _say_what_is_held(_number: int, _frame: FrameType | None) -> None:
    """Source: mallinfo(3): uordblks are the bytes in use, hblkhd those in areas of their own."""
    gc.unfreeze()  # what core.heap has put aside is held, too
    gc.collect()
    objects = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    gc.freeze()
    blocks = sys.getallocatedblocks()
    malloc_bytes = 0
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallinfo2.restype = _Mallinfo2
        libc.malloc_trim(0)
        info = libc.mallinfo2()
        malloc_bytes = info.uordblks + info.hblkhd
    said = json.dumps({"blocks": blocks, "malloc_bytes": malloc_bytes, "objects": objects})
    path = Path(os.environ["BUTTRESS_TEST_HELD_FILE"])
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(said)
    unfinished.replace(path)


if "BUTTRESS_TEST_HELD_FILE" in os.environ:
    signal.signal(signal.SIGUSR2, _say_what_is_held)
    faulthandler.register(signal.SIGUSR1)
