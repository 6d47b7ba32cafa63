"""What a few lines of numpy and requests do: floors, not tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import requests


def dvid_one_get(url: str, output: str, shape: list[int]) -> None:
    """The whole crop in one request, held in memory, saved as npy."""
    answer = requests.get(url, timeout=600)
    answer.raise_for_status()
    voxels = np.frombuffer(answer.content, np.uint8).reshape(shape)
    np.save(Path(output) / "get.npy", voxels)


def write_sections(folder: str, output: str, height: int, width: int) -> None:
    """Write as many voxels as sixteen sections hold: nothing else, from one array in memory."""
    plane = np.full((height, width), 7, np.uint8).data
    with open(Path(output) / "plain.bin", "wb") as file:
        for _ in range(16):
            file.write(plane)
