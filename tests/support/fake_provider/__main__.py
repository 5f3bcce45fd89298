"""`python -m tests.support.fake_provider --port 9999`: the fake provider, for use by hand and by tests."""

import argparse
import asyncio
import signal
import sys

import orjson
import uvloop

from tests.support.fake_provider.modes import MODES
from tests.support.fake_provider.server import FakeProvider, refusing_socket

_HELP = """\
The fake provider answers at {url}, OpenAI's format below /v1, Anthropic's at /v1/messages.

  curl {url}/v1/chat/completions -d '{{"model": "fake-model", "messages": [{{"role": "user", "content": "Hi"}}]}}'

Behaviour by the model's name:
{modes}

Or by script, one step a request, in order (every field: tests/support/fake_provider/steps.py):
  curl {url}/_script -d '{{"steps": [{{"status": 429, "retry_after_s": 2}}, {{"cut_after_chunks": 3}}]}}'
What it received and produced: GET {url}/_bill, GET {url}/_requests; start afresh: POST {url}/_reset.
"""


def main() -> None:
    """The provider runs until SIGTERM, Ctrl-C, or (with --until-stdin-closes) the end of whoever started it."""
    parser = argparse.ArgumentParser(prog="fake-provider", description="A model provider that misbehaves as scripted.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=54340, help="0: any free port")
    parser.add_argument("--keep", type=int, default=200_000, help="how many requests stay on the bill line by line")
    parser.add_argument("--json", action="store_true", help="print one JSON line when ready, nothing else")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when standard input ends")
    arguments = parser.parse_args()
    uvloop.run(_serve(arguments))


async def _serve(arguments: argparse.Namespace) -> None:
    provider = FakeProvider(keep=arguments.keep)
    held = refusing_socket(arguments.host)
    try:
        port = await provider.open_door(arguments.host, arguments.port)
    except OSError as error:
        sys.exit(f"The fake provider cannot listen on port {arguments.port}: {error.strerror}.")
    control_port = await provider.listen(arguments.host, 0)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if arguments.until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    ports = {"event": "ready", "port": port, "control_port": control_port, "refused_port": held.getsockname()[1]}
    url = f"http://{arguments.host}:{port}"
    modes = "\n".join(f"  fake/{name:<22} {what}" for name, what in MODES.items())
    text = orjson.dumps(ports).decode() if arguments.json else _HELP.format(url=url, modes=modes)
    print(text, flush=True)  # noqa: T201 - this is a command
    await stop.wait()
    held.close()


if __name__ == "__main__":
    main()
