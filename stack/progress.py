"""What a person sees while the stack comes up."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TextIO


class Progress:
    """One line a step, written as it begins and finished with its duration; silent where there is no stream."""

    def __init__(self, stream: TextIO | None = sys.stdout) -> None:
        self._stream = stream

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[None]:
        self._write(f"  {text} … ")
        started = time.monotonic()
        try:
            yield
        except BaseException:
            self._write("failed\n")
            raise
        self._write(f"{time.monotonic() - started:.1f} s\n")

    def note(self, text: str) -> None:
        self._write(f"  {text}\n")

    def _write(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()
