"""litellm is imported while calls are served, so the import may fail for a moment's reason, and must not for good."""

import os
import subprocess
import sys

from stack.config import ROOT

# A process of its own: in this one litellm may be imported already, and others hold on to it.
FAILS_ONCE = """
import asyncio, sys
from llm_gateway.providers.litellm_module import LitellmModule

class NoMoreFiles:
    def find_spec(self, name, path=None, target=None):
        if name == "litellm.main":
            sys.meta_path.remove(self)
            raise OSError(24, "Too many open files")

async def ask():
    module = LitellmModule()
    sys.meta_path.insert(0, NoMoreFiles())
    try:
        await module.get()
    except OSError as error:
        print(error.strerror)
    await module.aclose()  # a service that ends now ends in peace
    litellm = await module.get()
    assert await module.get() is litellm
    parts = [part for name, part in sys.modules.items() if name.partition(".")[0] == "litellm"]
    copies = {id(part.litellm) for part in parts if hasattr(part, "litellm")}
    print(len(copies), "copy;", sys.modules["litellm"] is litellm.sdk)
    await module.aclose()

asyncio.run(ask())
"""


def test_an_import_that_failed_is_tried_again_from_the_start() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILS_ONCE], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["Too many open files", "1 copy; True"], done.stderr
