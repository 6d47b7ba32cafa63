"""Which layers a viewer shows, and how: the state that a Neuroglancer link carries.

Neuroglancer's JSON state, version 2.41: coordinates in units of the global dimensions, cross
section scale in finest voxels for each screen pixel.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from typing import Any
from urllib.parse import quote

from lib.errors import UnsupportedFormatError
from lib.geometry import LengthsZYX
from lib.present.described import DescribedVolume

MOST_OVERLAYS = 4
"""Labels that are drawn at first; of a crop of forty classes the others are a click away."""
MOST_PANELS = 4
"""Images beside each other; with more, they share one panel and are switched by their names."""

_PANEL_PIXELS = 360.0  # about the smaller side of one of four panes on a laptop
# Neuroglancer has no int64; ids of uint64 are exact in it, above 2^53, too
_DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"]
_SHADER = "#uicontrol invlerp normalized\nvoid main() {\n  emitGrayscale(normalized());\n}\n"


def check_viewable(volume: DescribedVolume) -> None:
    """Refuse what Neuroglancer cannot show.

    Raises
    ------
    UnsupportedFormatError
        A ``.npy``, or a dtype that a graphics card does not take.
    """
    if not volume.levels:
        raise UnsupportedFormatError(
            "a .npy has no chunks and no levels, so the viewer cannot show it",
            location=volume.key,
            advice="Look at its preview, or make it again with output_format zarr",
        )
    if volume.dtype.name not in _DTYPES:
        raise UnsupportedFormatError(
            f"the viewer cannot show {volume.dtype.name}",
            location=volume.key,
            advice=f"It shows {', '.join(_DTYPES)}; the preview shows any",
        )


def viewer_state(volumes: Sequence[DescribedVolume], sources: Sequence[str]) -> dict[str, Any]:
    """The state that shows some volumes at the right scale, units and contrast.

    Labels lie over the image that they belong to: that of the same folder whose name begins like
    theirs. Several images stand beside each other, each centred.

    Parameters
    ----------
    sources
        The address of each volume's OME-Zarr.
    """
    names = _names(volumes)
    images = [i for i, volume in enumerate(volumes) if volume.kind == "image"]
    split = 1 < len(images) <= MOST_PANELS
    groups = _groups(volumes, images) if split else [list(range(len(volumes)))]
    layers = [
        _layer(volume, name, source, over=bool(images))
        for volume, name, source in zip(volumes, names, sources, strict=True)
    ]
    if not split:
        for hidden in images[1:]:
            layers[hidden]["visible"] = False
    labels = [i for i, volume in enumerate(volumes) if volume.kind == "labels"]
    for hidden in labels[MOST_OVERLAYS:]:
        layers[hidden]["visible"] = False
    # images first: what comes later is drawn on top
    order = sorted(range(len(volumes)), key=lambda i: volumes[i].kind == "labels")
    first = volumes[groups[0][0]]
    voxel = first.levels[0].scale_nm_zyx
    state: dict[str, Any] = {
        "dimensions": {a: [v / 1e9, "m"] for a, v in zip("xyz", reversed(voxel), strict=True)},
        **_camera(first, voxel),
        "layers": [layers[i] for i in order],
        "showScaleBar": True,
        "showDefaultAnnotations": True,
        "showAxisLines": False,
        "crossSectionBackgroundColor": "#14181e",
        "layout": "4panel-alt",
    }
    if split:
        state["layout"] = {
            "type": "row",
            "children": [
                {
                    "type": "viewer",
                    "layout": "4panel-alt",
                    "layers": [names[i] for i in order if i in group],
                    **{
                        key: {"link": "unlinked", "value": value}
                        for key, value in _camera(volumes[group[0]], voxel, half=True).items()
                    },
                }
                for group in groups
            ],
        }
    return state


def fragment(state: dict[str, Any]) -> str:
    """The part of a link after ``#``."""
    return "!" + quote(json.dumps(state, separators=(",", ":")), safe="~@$()*!+=:;,.?/'")


def _names(volumes: Sequence[DescribedVolume]) -> list[str]:
    """Short names, told apart by their folder where two are alike."""
    short = [volume.name for volume in volumes]
    return [
        name if short.count(name) == 1 else volume.key.removesuffix(".ome.zarr")
        for name, volume in zip(short, volumes, strict=True)
    ]


def _groups(volumes: Sequence[DescribedVolume], images: list[int]) -> list[list[int]]:
    groups = {i: [i] for i in images}
    for i, volume in enumerate(volumes):
        if volume.kind == "labels":
            like = max(images, key=lambda k: _alike(volumes[k].key, volume.key))
            groups[like].append(i)
    return list(groups.values())


def _alike(a: str, b: str) -> int:
    """How many letters two names have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _layer(volume: DescribedVolume, name: str, source: str, *, over: bool) -> dict[str, Any]:
    layer: dict[str, Any] = {"name": name, "source": f"{source}/|zarr3:"}
    if volume.kind == "labels":
        return layer | {"type": "segmentation", "selectedAlpha": 0.3 if over else 0.7}
    low, high = volume.window or (0.0, 255.0)
    margin = (high - low) / 4
    span, window = [low, high], [low - margin, high + margin]
    if volume.dtype.kind in "iu":
        span, window = [round(low), max(round(high), round(low) + 1)], [round(v) for v in window]
    return layer | {
        "type": "image",
        "opacity": 1,
        "shader": _SHADER,
        "shaderControls": {"normalized": {"range": span, "window": window}},
    }


def _camera(
    volume: DescribedVolume, unit_nm_zyx: LengthsZYX, *, half: bool = False
) -> dict[str, Any]:
    """Where to look, and how much of it fits in a pane."""
    level = volume.levels[0]
    extent = [n * s for n, s in zip(level.grid.shape_zyx, level.scale_nm_zyx, strict=True)]
    # the centre of the middle voxel; the translation is the centre of the first one
    middle = [
        (t + n // 2 * s) / u
        for t, n, s, u in zip(
            level.translation_nm_zyx,
            level.grid.shape_zyx,
            level.scale_nm_zyx,
            unit_nm_zyx,
            strict=True,
        )
    ]
    longest = max(extent) / min(unit_nm_zyx)
    return {
        "position": middle[::-1],
        "crossSectionScale": longest / _PANEL_PIXELS * (1.2 if half else 1),
        "projectionScale": longest * 1.5,
    }
