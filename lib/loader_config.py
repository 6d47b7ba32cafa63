"""The settings of each loader, under the name that users import. See `lib.config.loaders`."""

from lib.config.loaders import (
    LOADER_CONFIGS,
    EBIConfig,
    EPFLConfig,
    FlyEMConfig,
    IDRConfig,
    LoaderConfig,
    OpenOrganelleConfig,
)

__all__ = [
    "LOADER_CONFIGS", "EBIConfig", "EPFLConfig", "FlyEMConfig", "IDRConfig", "LoaderConfig",
    "OpenOrganelleConfig",
]  # fmt: skip
