"""The fake provider as tests use it: a process of its own, scripted, asked for its bill, and ended for sure."""

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

import orjson

from tests.support.fake_provider.answer import JsonObject
from tests.support.fake_provider.bill import BillLine, Counts, SeenRequest
from tests.support.fake_provider.steps import Step
from tests.support.stack import free_ports

_REPOSITORY = Path(__file__).resolve().parents[3]
_HOST = "127.0.0.1"
_START_TIMEOUT_S = 30.0


class NotReached(AssertionError):
    """The provider did not see what the test waited for; the message has what it saw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What the provider worked for since the last reset: counts, tokens of all closed requests, one line a request."""

    counts: Counts
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    lines: tuple[BillLine, ...]


class FakeProvider:
    """A fake provider in a process of its own; also a context manager.

    `url` is what a gateway or an SDK is pointed at (`<url>/v1` for OpenAI's SDK, `<url>` for Anthropic's); on
    `refused_url` every connection is refused. The script and the bill are reached by a second port, so they answer
    while `close_door` refuses connections on `url`. The methods without `async` take about a millisecond.
    """

    def __init__(self, process: subprocess.Popen[bytes], ready: JsonObject) -> None:
        self._process = process
        self._control_port = int(str(ready["control_port"]))
        self.url = f"http://{_HOST}:{ready['port']}"
        self.refused_url = f"http://{_HOST}:{ready['refused_port']}"

    @classmethod
    def start(cls, *, keep: int = 200_000) -> Self:
        """A provider that answers; ends with this process at the latest, even when that is killed."""
        command = [sys.executable, "-m", "tests.support.fake_provider"]
        options = ["--port", str(free_ports(1)[0]), "--keep", str(keep), "--json", "--until-stdin-closes"]
        process = subprocess.Popen([*command, *options], cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait(_START_TIMEOUT_S)
            raise NotReached(f"The fake provider ended with status {process.returncode} before it was ready.")
        return cls(process, orjson.loads(line))

    @property
    def control_url(self) -> str:
        """Where it takes scripts, for those who cannot import this client."""
        return f"http://{_HOST}:{self._control_port}"

    @property
    def pid(self) -> int:
        """The process that answers."""
        return self._process.pid

    def stop(self) -> None:
        """The process has ended; more than once does no harm."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def script(self, *steps: Step) -> None:
        """The steps are played in this order, after those already queued; a request takes the first that matches."""
        self._ask("POST", "/_script", {"steps": [step.as_json() for step in steps]})

    def release(self, count: int | None = None) -> int:
        """The first `count` held requests (None: all) go on; answers how many there were."""
        return int(str(self._ask("POST", "/_release", {"count": count})["released"]))

    def reset(self) -> None:
        """Script and bill are empty, held requests go on, the door is open."""
        self._ask("POST", "/_reset", {})
        self.open_door()

    def close_door(self) -> None:
        """Connections to `url` are refused; those that existed were reset."""
        self._ask("POST", "/_door", {"open": False})

    def open_door(self) -> None:
        """`url` answers again, on the same port."""
        self._ask("POST", "/_door", {"open": True})

    def bill(self) -> Bill:
        """The bill as it stands."""
        raw = self._ask("GET", "/_bill")
        names = ("requests", "closed", "client_gone", "held", "chunks", "trapped")
        totals, lines = raw["totals"], raw["lines"]
        assert isinstance(totals, dict)
        assert isinstance(lines, list)
        counts = Counts(**{name: int(str(raw[name])) for name in names})
        return Bill(counts=counts, lines=tuple(BillLine(**line) for line in lines), **totals)

    def requests(self) -> tuple[SeenRequest, ...]:
        """What arrived, oldest first."""
        listed = self._ask("GET", "/_requests")["requests"]
        assert isinstance(listed, list)
        return tuple(SeenRequest(**one) for one in listed)

    async def wait_for(
        self,
        *,
        requests: int = 0,
        closed: int = 0,
        client_gone: int = 0,
        held: int = 0,
        chunks: int = 0,
        timeout_s: float = 30.0,
    ) -> Counts:
        """At least so many requests arrived / ended / were left by their client / are held, so many chunks were sent.

        Counted since the last reset. Raises: NotReached after `timeout_s`.
        """
        wanted = {"requests": requests, "closed": closed, "client_gone": client_gone, "held": held, "chunks": chunks}
        query = urlencode(wanted | {"timeout_s": timeout_s})
        raw = await asyncio.to_thread(self._ask, "GET", f"/_wait?{query}", timeout_s=timeout_s + 10)
        return Counts(**{name: int(str(value)) for name, value in raw.items()})

    def _ask(self, method: str, path: str, body: JsonObject | None = None, *, timeout_s: float = 30.0) -> JsonObject:
        connection = HTTPConnection(_HOST, self._control_port, timeout=timeout_s)
        try:
            connection.request(method, path, None if body is None else orjson.dumps(body))
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        if response.status == 408:
            raise NotReached(f"The fake provider waited for {path} and saw {raw.decode()}.")
        if response.status != 200:
            raise ValueError(f"The fake provider refused {method} {path}: {raw.decode()}")
        answer = orjson.loads(raw)
        assert isinstance(answer, dict)
        return answer
