"""What every streamed answer has in common: events out of pieces, and a count of the output that has passed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import orjson

from llm_gateway.accounting import TokenCounts
from llm_gateway.wire.format import StreamFault
from llm_gateway.wire.sse import EventTooLarge, SseSplitter
from llm_gateway.wire.written import Written

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024

# Providers send a token a chunk; where chunks are longer than tokens are on average, their bytes tell more than their
# number. Ordinary text has three to five bytes a token.
_LONGEST_TOKEN_ON_AVERAGE_BYTES: Final = 8
_BYTES_A_TOKEN: Final = 3
# A token may have a hundred bytes, but an answer of such tokens alone does not occur.
_LONGEST_TOKENS_BYTES: Final = 16
_FREE_TEXT_BYTES: Final = 512


def estimate_output_tokens(*, chunks: int, text_bytes: int) -> int:
    """The output tokens that this much text is, when nobody reported them; one chunk is about one token."""
    if text_bytes <= chunks * _LONGEST_TOKEN_ON_AVERAGE_BYTES:
        return chunks
    return max(chunks, -(-text_bytes // _BYTES_A_TOKEN))


def grown(before: TokenCounts | None, counts: TokenCounts | None) -> TokenCounts | None:
    """What was used so far, when the provider first said the one and now says the other.

    Figures grow: where it takes back some of the prompt or of the output, which some do with zeros at the end, what it
    said before stands.
    """
    if counts is None or before is None:
        return counts or before
    if counts.prompt_tokens < before.prompt_tokens:
        counts = replace(before, output=counts.output, reasoning=counts.reasoning, output_audio=counts.output_audio)
    if counts.output_tokens < before.output_tokens:
        counts = replace(counts, output=before.output, reasoning=before.reasoning, output_audio=before.output_audio)
    return counts


class AnswerStream:
    """A StreamReader but for what an event means: subclasses read one in `_read`, and write `error_event`.

    `held_tokens` is the most output that was paid for in advance: not one chunk more is passed on. `text` is kept for
    whoever can count it.
    """

    __slots__ = (
        "_held_bytes", "_held_tokens", "_splitter", "chunks", "counts", "echoed_bytes", "ended", "fault", "finished",
        "has_media", "other_bytes", "service", "text", "text_bytes",
    )  # fmt: skip

    def __init__(self, *, held_tokens: int) -> None:
        self._held_tokens = held_tokens
        self._held_bytes = held_tokens * _LONGEST_TOKENS_BYTES + _FREE_TEXT_BYTES
        self._splitter = SseSplitter(max_event_bytes=MAX_EVENT_BYTES)
        self.counts: TokenCounts | None = None
        self.service: str | None = None
        self.fault: StreamFault | None = None
        self.chunks = 0  # that carried output: text, reasoning or tool calls
        self.text = bytearray()  # what the model wrote, in UTF-8
        self.text_bytes = 0  # of it, also where only their number is known
        self.other_bytes = 0  # where no format says that it is the model's
        self.has_media = False  # sound or pictures
        self.echoed_bytes = 0
        self.finished = False  # the model has said why it stopped
        self.ended = False

    @property
    def complete(self) -> bool:
        """The answer has reached its end, also when the provider leaves the format's last event out."""
        return self.fault is None and (self.ended or self.finished)

    @property
    def output_tokens(self) -> int:
        """The output so far, as an estimate."""
        return self.with_what_is_no_text(estimate_output_tokens(chunks=self.chunks, text_bytes=self.text_bytes))

    def with_what_is_no_text(self, tokens: int) -> int:
        """The output so far if its text is so many tokens: what is no text makes it more, at most all that was held."""
        if self.has_media:
            return max(tokens, self._held_tokens)
        if self.other_bytes:
            return max(tokens, min(self._held_tokens, tokens + -(-self.other_bytes // _BYTES_A_TOKEN)))
        return tokens

    def feed(self, piece: bytes) -> bytes:
        """The bytes to pass on for this piece."""
        try:
            events = self._splitter.feed(piece)
        except EventTooLarge:
            self.fault = StreamFault.MALFORMED
            return b""
        passed = []
        for event in events:
            seen = self._read(event)
            if self.fault is not None:
                break
            passed.append(seen)
        return b"".join(passed)

    def end(self) -> bytes:
        """The provider's stream has ended: what is left to pass on (a last event without its empty line, say)."""
        rest = self._splitter.rest()
        last = self._read(rest) if rest.strip() else rest
        return b"" if self.fault is not None else last

    def _read(self, event: bytes) -> bytes:
        """What the client gets for this event; nothing of it, whatever is returned, once there is a fault."""
        raise NotImplementedError

    def _parse(self, data: bytes) -> dict[str, object] | None:
        """The event's object; None, and a fault, where the data is none."""
        try:
            parsed = orjson.loads(data)
        except orjson.JSONDecodeError:
            parsed = None
        if isinstance(parsed, dict):
            return parsed
        self.fault = StreamFault.MALFORMED
        return None

    def _report(self, counts: TokenCounts | None) -> None:
        """The provider says that so much was used so far."""
        self.counts = grown(self.counts, counts)

    def _count_chunk(self, text: bytes, *, tokens: int = 1) -> None:
        """One more chunk has passed, with this text of the model's own; or a fault, where it was not held for."""
        if self.chunks >= self._held_tokens or self.text_bytes + len(text) > self._held_bytes:
            self.fault = StreamFault.TOO_MUCH
            self.chunks = self._held_tokens  # all of that was written, and is charged
            return
        self.chunks += tokens
        self.text += text
        self.text_bytes += len(text)

    def _count_beside(self, written: Written) -> None:
        """What stands beside the text counts where nobody reports usage; it does not end the stream."""
        self.other_bytes += written.other_bytes
        self.has_media |= written.has_media
