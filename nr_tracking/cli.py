"""The command line: ``nr_tracking track | batch | evaluate | bench | config | demo | synthesize | train | view``.

Whatever is wrong with the input ends in one line on stderr and exit code 2; ``--debug`` shows where it came from.
Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys

from nr_tracking.commands.arguments import DEMO, parse
from nr_tracking.commands.extras import how_to_install
from nr_tracking.config import ConfigError
from nr_tracking.types import InputError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        if arguments[:1] == [DEMO]:
            from nr_tracking.commands.demo import main as demo

            return int(demo(arguments[1:]) or 0)
        options = parse(arguments)
        return int(options.run(options))
    except (InputError, ConfigError) as error:
        if debug:
            raise
        print(f"nr_tracking: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if debug or not error.name or error.name.startswith("nr_tracking"):
            raise
        print(
            f"nr_tracking: this needs the Python package {error.name!r}: {how_to_install(error.name)}", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt:
        remedy = "; --resume goes on from the last checkpoint" if arguments[:1] == ["track"] else ""
        print(f"nr_tracking: interrupted{remedy}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:  # a disk that is full, a file that went away: the message names it
        if debug:
            raise
        print(f"nr_tracking: {error}", file=sys.stderr)
        return 2
