"""The command line: what each command is called and takes. What it does stands in stack/commands/, a module a group."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence

from stack.commands import checks, inspect, migrate, reset, running
from stack.errors import StackError
from stack.interrupts import StopRequested, stoppable


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 done, 1 refused or failed with a sentence on stderr, 2 not understood, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a terminal that cannot show a character is no reason to fail; who reads from a pipe reads along
            stream.reconfigure(errors="replace", line_buffering=True)
    try:
        with stoppable():
            options, rest = _parser().parse_known_args(arguments)
            if rest and not options.passes_on:
                _parser().error(f"unrecognized arguments: {' '.join(rest)}")
            options.rest = rest
            run: Callable[[argparse.Namespace], int] = options.run
            return run(options)
    except StackError as error:
        print(f"buttress: {error}", file=sys.stderr)
        return 1
    except StopRequested:
        return 130
    except BrokenPipeError:  # whoever read our words has gone; the interpreter must not try to flush more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./buttress", description="The whole backend on this machine: Supabase, the API, the LLM gateway, a model."
    )
    parser.set_defaults(passes_on=False)
    commands = parser.add_subparsers(required=True, metavar="command")
    for group in (running, inspect, reset, migrate, checks):
        group.add_to(commands)
    return parser
