"""The console command, also as ``python -m macroscope``."""

import sys


def main() -> None:
    """Entry point: a Ctrl-C while all of it is imported ends it as one later does."""
    try:
        from flows.cli import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
