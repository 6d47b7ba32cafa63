"""Bring the database of several Prefect servers up to date: its schema, then Prefect's blocks.

One server does both when it starts. Several that start together stand in each other's way, so that
the chart does it before they start: ``python -m flows.database``.
"""

from __future__ import annotations

import asyncio
import sys

from prefect.server.database import provide_database_interface
from prefect.server.models.block_registration import run_block_auto_registration

from lib.present.output import say


async def upgrade() -> None:
    """Migrate the database that the settings name, and register the types of blocks."""
    database = provide_database_interface()
    await database.create_db()
    async with await database.session() as session:
        await run_block_auto_registration(session=session)
    await (await database.engine()).dispose()


def main() -> int:
    """Upgrade; returns the exit code."""
    asyncio.run(upgrade())
    say("the database is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
