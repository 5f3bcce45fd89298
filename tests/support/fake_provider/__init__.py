"""The fake provider: an HTTP server that speaks OpenAI's and Anthropic's formats and misbehaves as scripted.

It keeps its own bill: what it really received and produced, the oracle for every test of accounting.

In tests: `with FakeProvider.start() as provider: provider.script(Step(status=429)); …; provider.bill()`.
By hand: `python -m tests.support.fake_provider`.
"""

from tests.support.fake_provider.bill import BillLine, Counts, SeenRequest
from tests.support.fake_provider.client import Bill, FakeProvider, NotReached
from tests.support.fake_provider.steps import Match, Step, ToolCall

__all__ = ["Bill", "BillLine", "Counts", "FakeProvider", "Match", "NotReached", "SeenRequest", "Step", "ToolCall"]
