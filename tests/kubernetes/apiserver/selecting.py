"""Label and field selectors, and the two kinds of patches."""

from __future__ import annotations

import re
from typing import Any

import jsonpatch

Manifest = dict[str, Any]
_SET = re.compile(r"\s*([^\s,!=()]+)\s+(in|notin)\s+\(([^)]*)\)\s*")


def matches_labels(manifest: Manifest, selector: str) -> bool:
    """Whether an object's labels satisfy a selector in the API's notation."""
    labels = manifest["metadata"].get("labels") or {}
    return all(_one_label(labels, term) for term in _terms(selector))


def _terms(selector: str) -> list[str]:
    return [term.strip() for term in re.split(r",(?![^(]*\))", selector) if term.strip()]


def _one_label(labels: dict[str, str], term: str) -> bool:
    if found := _SET.fullmatch(term):
        values = {value.strip() for value in found[3].split(",")}
        return (labels.get(found[1]) in values) == (found[2] == "in")
    if "!=" in term:
        key, value = term.split("!=", 1)
        return labels.get(key.strip()) != value.strip()
    if "=" in term:
        key, value = re.split("==?", term, maxsplit=1)
        return labels.get(key.strip()) == value.strip()
    if term.startswith("!"):
        return term[1:].strip() not in labels
    return term in labels


def matches_fields(manifest: Manifest, selector: str) -> bool:
    """Whether an object satisfies a field selector such as ``status.phase=Running``."""
    for term in _terms(selector):
        wanted = "!=" not in term
        path, value = re.split("!=|==?", term, maxsplit=1)
        if (str(at(manifest, path.strip()) or "") == value.strip()) != wanted:
            return False
    return True


def at(manifest: Manifest, path: str) -> Any:
    """The value at a dotted path, or None."""
    value: Any = manifest
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def merge(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396), applied to a copy."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def patched(manifest: Manifest, patch: Any, content_type: str) -> Manifest:
    """An object with a patch applied; a strategic patch is taken for a merge patch.

    Raises
    ------
    ValueError
        A JSON patch whose test fails, or whose path is not there.
    """
    if "json-patch" not in content_type:
        result: Manifest = merge(manifest, patch)
        return result
    try:
        done: Manifest = jsonpatch.apply_patch(manifest, patch)
        return done
    except jsonpatch.JsonPatchException as error:
        raise ValueError(str(error)) from None
    except (KeyError, IndexError) as error:
        raise ValueError(f"no such path: {error}") from None
