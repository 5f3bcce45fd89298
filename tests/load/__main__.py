"""`./buttress bench`: how fast gateway and API are beside the bare provider and the bare PostgREST, in one run."""

import argparse
import asyncio
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from stack.errors import StackError
from tests.load.measure import LoadFailed
from tests.load.report import as_json, as_markdown
from tests.load.scenarios import QUICK, USERS, Bench, Extent, describe_machine
from tests.load.subjects import NotReady, running_subjects


def main() -> int:
    """0 when every request was answered and the accounts agree; the tables are on standard output."""
    options = _options()
    extent, machine = _extent(options), describe_machine()

    def tell(line: str) -> None:
        print(f"  {line} …", file=sys.stderr, flush=True)

    tell("starting PostgreSQL, Supabase, the API with the gateway, and the fake provider")
    try:
        with running_subjects(USERS) as subjects:
            report = asyncio.run(Bench(subjects, extent, machine, tell).run())
    except (StackError, LoadFailed, NotReady) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(as_markdown(report))
    options.json.write_text(as_json(report))
    print(f"Every figure: {options.json}")
    for failure in report.failures:
        print(failure, file=sys.stderr)
    agree = report.accounts is not None and report.accounts.agree
    return 0 if agree and not report.failures else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="buttress bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about ten seconds instead of a minute; rougher figures")
    parser.add_argument("--clients", help="how many clients at once, comma separated (default 1,32,128)")
    parser.add_argument("--seconds", type=float, help="how long each row is measured (default 2.5)")
    parser.add_argument("--answers-per-client", type=int, help="end each row after so many answers to each client")
    parser.add_argument("--streams", type=int, help="how many streams at once (default 50)")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path(tempfile.gettempdir()) / "buttress-bench.json",
        help="where every figure is written as JSON (default: %(default)s)",
    )
    return parser.parse_args()


def _extent(options: argparse.Namespace) -> Extent:
    extent = QUICK if options.quick else Extent()
    if options.clients:
        clients = tuple(int(one) for one in options.clients.split(","))
        extent = replace(extent, clients=clients, api_clients=clients[:2])
    if options.seconds:
        extent = replace(extent, seconds=options.seconds, warm_up_s=min(extent.warm_up_s, options.seconds))
    if options.answers_per_client:
        extent = replace(extent, answers_per_client=options.answers_per_client)
    if options.streams:
        extent = replace(extent, streams=options.streams)
    return extent


if __name__ == "__main__":
    sys.exit(main())
