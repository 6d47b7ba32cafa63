"""``python -m macroscope``: the console command."""

from flows.cli import main

main()
