"""Everything below the schedule: archives, readers, the shard engine, records. No Prefect here."""

from importlib.metadata import version

__version__ = version("macroscope")
