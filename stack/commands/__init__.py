"""The commands of `./buttress`, a module a group."""

import argparse
from typing import TypeAlias

# argparse gives what add_subparsers returns no public name.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
