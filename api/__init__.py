"""The business API: HTTP in front, row level security behind."""

import sys

# httpx imports its own command line (click, rich, pygments) when they are installed: a tenth of our start, for nothing.
# None makes that import fail, and httpx then does without, as it does where they are missing.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
