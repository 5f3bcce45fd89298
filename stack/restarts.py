"""When a part that ended is started again, and when the stack gives up (docs/decisions/0022)."""

from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 60.0
MOST_ENDS = 5
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 8.0


@dataclass
class Restarts:
    """The ends of one part within the last minute. Times are of one monotonic clock, in seconds."""

    ends: deque[float] = field(default_factory=deque)
    due_at: float | None = None

    def note_end(self, now_s: float) -> bool:
        """False where the part has ended too often; else `due_at` says when to start it again, later each time."""
        self.ends.append(now_s)
        while self.ends[0] < now_s - WINDOW_S:
            self.ends.popleft()
        if len(self.ends) > MOST_ENDS:
            return False
        self.due_at = now_s + min(_FIRST_WAIT_S * 2 ** (len(self.ends) - 1), _LONGEST_WAIT_S)
        return True

    def is_due(self, now_s: float) -> bool:
        return self.due_at is not None and now_s >= self.due_at
