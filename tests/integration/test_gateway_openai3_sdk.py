"""The newest OpenAI client, which litellm does not allow beside itself, judges from an environment of its own."""

import asyncio
import os
import subprocess
from pathlib import Path

import asyncpg
import pytest

from tests.support.callers import Caller, new_caller
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import set_limits
from tests.support.gateway_server import GatewayServer
from tests.support.side_environment import side_python
from tests.support.stack import RunningStack

JUDGES = Path(__file__).parents[1] / "openai3" / "judges.py"


@pytest.fixture
async def poor_caller(
    stack: RunningStack, database: asyncpg.Connection, gateway: GatewayServer, fake_provider: FakeProvider
) -> Caller:
    """Somebody who has spent nearly all of the month's money."""
    poor = await new_caller(stack, database)
    await set_limits(database, poor, nano_usd_per_month=1_000_000)
    fake_provider.reset()
    fake_provider.script(Step(input_tokens=995, output_tokens=1))
    async with gateway.sdk(poor) as client:
        await client.chat.completions.create(model="fake/chat", messages=[{"role": "user", "content": "Hi."}])
    return poor


def judge(**environ: str) -> str:
    """What pytest says when the judges are content. Nothing of ours is there: no configuration, fixtures, packages."""
    options = ["-q", "-p", "no:cacheprovider", "--noconftest", "--import-mode=importlib"]
    judged = subprocess.run(
        [
            side_python("requirements-openai3.lock"),
            "-m",
            "pytest",
            "-c",
            os.devnull,
            "--rootdir",
            JUDGES.parent,
            *options,
            JUDGES,
        ],
        env={"PATH": os.environ["PATH"], **environ},
        cwd=JUDGES.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout
    return judged.stdout


@pytest.mark.slow  # the first time makes the environment
async def test_openai_3_is_content(
    gateway: GatewayServer, caller: Caller, poor_caller: Caller, fake_provider: FakeProvider
) -> None:
    said = await asyncio.to_thread(
        judge,
        JUDGE_BASE_URL=gateway.base_url,
        JUDGE_TOKEN=caller.access_token,
        JUDGE_POOR_TOKEN=poor_caller.access_token,
        JUDGE_CONTROL_URL=fake_provider.control_url,
    )
    assert " passed" in said
