"""`python -m tests.load.peers`: our gateway and three others in one run, behind the same provider and the same clients.

Ours has identity, all limits and durable usage on; what each peer has on is said beside its figures. The first run
installs the peers into environments of their own (.buttress/tools/peers, a minute or two).
"""

import argparse
import asyncio
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import orjson

from stack.errors import StackError
from tests.load.measure import LoadFailed
from tests.load.peers.report import as_markdown
from tests.load.peers.run import PEERS, SLOW_STREAM, Extent, Run
from tests.load.scenarios import USERS, describe_machine
from tests.load.subjects import NotReady, running_subjects


def main() -> int:
    """0 when everybody answered every request; the tables are on standard output."""
    options = _options()
    machine = describe_machine()
    extent = Extent(
        clients=tuple(int(one) for one in options.clients.split(",")),
        seconds=options.seconds,
        streams=options.streams,
        peers=tuple(peer for peer in PEERS if peer not in options.without.split(",")),
    )
    try:
        with running_subjects(USERS, more_models=(SLOW_STREAM,)) as subjects:
            rows = asyncio.run(Run(subjects, extent).all())
    except (StackError, LoadFailed, NotReady) as error:
        print(error, file=sys.stderr)
        return 1
    print(as_markdown(machine, rows))
    figures = [{**asdict(row.measured), "what_is_on": row.what_is_on} for row in rows]
    options.json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
    failed = [row.measured for row in rows if row.measured.failed]
    for row in failed:
        print(f"{row.name}, {row.clients} clients: {row.failed} failed; {row.examples[0]}", file=sys.stderr)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load.peers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each row is measured (default 5)")
    parser.add_argument("--clients", default="1,32,128", help="how many clients at once (default 1,32,128)")
    parser.add_argument("--streams", type=int, default=500, help="how many streams at once (default 500)")
    parser.add_argument("--without", default="", help=f"peers to leave out, comma separated: {', '.join(PEERS)}")
    parser.add_argument(
        "--json", type=Path, default=Path(tempfile.gettempdir()) / "buttress-peers.json", help="every figure as JSON"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
