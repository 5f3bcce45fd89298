"""`python -m stack …`, which is what `./buttress …` runs once the environment exists."""

import sys

from stack.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
