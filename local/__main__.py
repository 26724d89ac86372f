"""`python -m local serve | up | down | status`: the local cloud as a program."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from local import daemon
from local.configuration import PORT, Configuration
from local.server import CannotServeError, serve


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 only if it did what it was asked to."""
    options = _parser().parse_args(arguments)
    configuration = Configuration(root=Path(options.root).resolve(), port=options.port)
    try:
        if options.command == "serve":
            serve(configuration)
        elif options.command == "up":
            daemon.up(configuration, say=print)
        elif options.command == "down":
            daemon.down(configuration, say=print)
        else:
            state = daemon.status(configuration)
            print(json.dumps(state, indent=2) if options.json else daemon.describe(state))
    except CannotServeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in (
        ("serve", "serve in the foreground until interrupted"),
        ("up", "start in the background and wait until it answers"),
        ("down", "stop it; its state stays in the folder"),
        ("status", "say whether it runs, and what it only records"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("--root", default="build/cloud", help="folder of all state (%(default)s)")
        command.add_argument("--port", type=_port, default=PORT, help="on 127.0.0.1 (%(default)s)")
        if name == "status":
            command.add_argument("--json", action="store_true", help="machine readable")
    return parser


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port (1 to 65535)")
    return number


if __name__ == "__main__":
    sys.exit(main())
