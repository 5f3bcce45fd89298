"""TensorZero's embedded gateway, kept running; started with TensorZero's own interpreter, prints its port.

Usage: python tensorzero_server.py CONFIG_FILE [VALKEY_URL]
"""

import asyncio
import sys
from urllib.parse import urlsplit

from tensorzero.tensorzero import _start_http_gateway


async def main() -> None:
    """Answers until it is ended."""
    gateway = await _start_http_gateway(
        config_file=sys.argv[1],
        clickhouse_url=None,
        postgres_url=None,
        valkey_url=sys.argv[2] if len(sys.argv) > 2 else None,
        async_setup=True,
    )
    print(f"port {urlsplit(gateway.base_url).port}", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
