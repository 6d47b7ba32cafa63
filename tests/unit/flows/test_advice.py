"""What errors advise exists: every setting, variable, option and command that they name."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer

from flows.cli import app
from flows.commands.options import stand_in_module
from lib.archives.registry import loader_configs
from lib.config.manager import ConfigManager
from lib.config.settings import Settings
from lib.config.sources import OTHER_NAMES
from lib.errors import ConfigError

ROOT = Path(__file__).parents[3]
PRODUCT = ("lib", "flows", "tasks", "emulators")

#: Read by others than macroscope: the TLS library, proxies, Prefect, AWS's own files.
FOREIGN = {
    "SSL_CERT_FILE",
    "NO_PROXY",
    "PREFECT_API_URL",
    "role_arn",
}
#: Commands that macroscope does not bring, with the options that advice gives them.
FOREIGN_COMMANDS = (
    "kubectl describe pod",
    "prefect server start",
    "source .macroscope/client.env",
    "pip install 'macroscope[samples]'",
)
#: What asks for an act outside of macroscope in words that would else need a setting.
OUTSIDE = (
    "Set the clock",
    "Raise the file size limit (ulimit -f)",
    "Raise the limit of open files (ulimit -n)",
)

_SETTING_VERB = re.compile(r"\b(set|raise|lower|allow|exclude|include)\b", re.IGNORECASE)
_SNAKE = re.compile(r"(?<![\w./-])[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b(?![\w./(]*\()")
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
_OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]+")
_COMMAND = re.compile(r"`macroscope ([a-z][a-z-]+)")
_QUOTED = re.compile(r"`([^`]+)`")


# --- what there is


def models() -> list[Any]:
    return [Settings, *loader_configs().values()]


def settings() -> dict[str, list[Any]]:
    """Name of each setting -> what it may be, for each model that has it."""
    known: dict[str, list[Any]] = {}
    for model in models():
        for name, field in model.model_fields.items():
            known.setdefault(name, []).append(field.annotation)
    return known


def variables() -> set[str]:
    return {*ConfigManager().keys.environment(), *OTHER_NAMES}


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def options() -> set[str]:
    return {
        option
        for command in commands().values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


SETTINGS, VARIABLES, COMMANDS, OPTIONS = settings(), variables(), commands(), options()


# --- what is said


def texts(node: ast.expr) -> list[str]:
    """The strings that an expression may be; what is filled in at run time is ``{}``."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        return ["".join(map(str, parts))]
    if isinstance(node, ast.IfExp):
        return [*texts(node.body), *texts(node.orelse)]
    if isinstance(node, ast.BinOp):
        return [a + b for a in texts(node.left) for b in texts(node.right) or ["{}"]]
    return []


def advice_in(path: Path) -> Iterator[tuple[int, str]]:
    """Every text of a module that is given as advice, and those of tables that it is taken from."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    indirect = False
    for node in ast.walk(tree):
        value: ast.expr | None = None
        if isinstance(node, ast.keyword) and node.arg == "advice":
            value = node.value
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {getattr(t, "attr", None) or getattr(t, "id", None) for t in targets}
            value = node.value if "advice" in names else None
        if value is not None:
            found = texts(value)
            indirect |= not found and not isinstance(value, ast.Constant)
            yield from ((value.lineno, text) for text in found)
    if indirect:
        yield from (
            (part.lineno, part.value)
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            for part in ast.walk(node.value)
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
            if re.match(r"[A-Z][a-z]+ ", part.value)
        )


ADVICE = [
    (f"{path.relative_to(ROOT)}:{line}", text)
    for package in PRODUCT
    for path in sorted((ROOT / package).rglob("*.py"))
    for line, text in advice_in(path)
    if text.strip()
]


# --- the check


def absent(text: str) -> list[str]:
    """What a text names and nobody has."""
    for command in FOREIGN_COMMANDS:
        text = text.replace(command, "")
    found = [name for name in _VARIABLE.findall(text) if name not in VARIABLES | FOREIGN]
    found += [name for name in _SNAKE.findall(text) if name not in SETTINGS and name not in FOREIGN]
    found += [option for option in _OPTION.findall(text) if option not in OPTIONS]
    found += [f"macroscope {word}" for word in _COMMAND.findall(text) if word not in COMMANDS]
    found += [
        quoted
        for quoted in _QUOTED.findall(text)
        if quoted.strip() and not quoted.startswith("macroscope ")
    ]
    for name, kinds in SETTINGS.items():
        for value in re.findall(rf"\b{name}(?: to |=)(\w+)", text):
            if not any(may_be(kind, value) for kind in kinds):
                found.append(f"{name}={value}")
    return found


def may_be(kind: Any, value: str) -> bool:
    """Whether a setting may have a value, as far as its kind lists them."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is bool:
        return value in ("true", "false")
    return True


def names_a_setting(text: str) -> bool:
    words = {*re.findall(r"[a-z][a-z0-9_]*", text), *_VARIABLE.findall(text)}
    return bool(words & (SETTINGS.keys() | VARIABLES | FOREIGN)) or bool(_OPTION.findall(text))


@pytest.mark.parametrize(("place", "text"), ADVICE, ids=[place for place, _ in ADVICE])
def test_what_advice_names_is_there(place: str, text: str) -> None:
    assert absent(text) == []


@pytest.mark.parametrize(("place", "text"), ADVICE, ids=[place for place, _ in ADVICE])
def test_advice_to_set_something_names_a_setting(place: str, text: str) -> None:
    for outside in OUTSIDE:
        text = text.replace(outside, "")
    if _SETTING_VERB.search(text):
        assert names_a_setting(_SETTING_VERB.sub(kept_if_setting, text)) or "{}" in text


def kept_if_setting(match: re.Match[str]) -> str:
    """``exclude`` is a verb and a setting; ``Exclude this file`` names none."""
    return match[0] if match[0] in SETTINGS else ""


def test_the_warnings_of_a_plan_name_what_is_there() -> None:
    source = (ROOT / "lib/ingest/costs.py").read_text(encoding="utf-8")
    said = [text for node in ast.walk(ast.parse(source)) for text in warnings(node)]
    assert any("--box" in text for text in said)
    for text in said:
        assert absent(text) == []


def warnings(node: ast.AST) -> list[str]:
    return texts(node) if isinstance(node, ast.JoinedStr) else []


def test_the_texts_are_found() -> None:
    places = {place.partition(":")[0] for place, _ in ADVICE}
    assert {"lib/errors.py", "flows/register.py", "lib/storage/durable.py"} <= places
    assert len(ADVICE) > 150


@pytest.mark.parametrize(
    "text",
    [
        "Set keep_everything to true",
        "Set assemble to maybe",
        "Set allow_empty to 3",
        "Choose another part with --boxes",
        "See `macroscope explain`",
        "Set EM_DATA_DIRECTORY",
        "Run `gsutil ls`",
    ],
)
def test_advice_that_names_what_is_not_there_is_found(text: str) -> None:
    assert absent(text)


def test_a_verb_alone_is_no_setting() -> None:
    assert not names_a_setting(_SETTING_VERB.sub(kept_if_setting, "Exclude this file"))
    assert names_a_setting(_SETTING_VERB.sub(kept_if_setting, "Leave it out with exclude"))


@pytest.mark.parametrize("module", ["serving", "s3"])
def test_stand_ins_without_their_extra_are_named_with_what_installs_them(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """Most of it is imported when a server starts, in the middle of a run."""
    monkeypatch.setitem(sys.modules, "pyftpdlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'macroscope\[samples\]'"):
        stand_in_module(module)
