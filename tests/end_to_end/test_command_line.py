"""What the command line says before any volume is touched: help, versions, settings, mistakes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from flows.cli import app
from tests.end_to_end.conftest import Command

COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def installed(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell finds it."""
    command = [str(Path(sys.executable).with_name("macroscope")), *arguments]
    env = {**os.environ, **more}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    done = installed("--version")
    assert (done.returncode, done.stdout) == (0, f"macroscope {version('macroscope')}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_ends_with_two_examples_and_where_the_rest_is_written(
    command: str, macroscope_here: Command
) -> None:
    said = macroscope_here(command, "--help").stdout
    _, _, end = said.partition("Examples:\n")
    examples = re.findall(r"^ +(?:\w+=\S+ )?macroscope( .*?)?(?:  .*)?$", end, re.MULTILINE)
    named = [line for line in examples if f" {command}" in line or "EM_SERVICES" in end]
    assert len(examples) == 2 and named, said
    for place in ("EM_*", "config/config.yaml", "docs/configuration.md", "macroscope config"):
        assert place in end
    assert max(len(line) for line in said.splitlines()) <= 80


def test_the_list_of_commands_is_whole_on_80_columns(macroscope_here: Command) -> None:
    said = macroscope_here("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\S.*[^.]\.$", said, re.MULTILINE), said


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("rnu",), "Did you mean 'run'?"),
        (("run", "--suorce", "ebi"), "--source"),
        (("run", "--source", "ebbi"), "did you mean 'ebi'?"),
        (("plan", "--source", "opengranelle"), "did you mean 'openorganelle'?"),
        (("up", "--archives", "sampels"), "did you mean 'samples'?"),
        (("up", "--port", "99999"), "65535"),
        (("view", "--port", "99999"), "65535"),
        (("run", "--mode", "stagd"), "staged"),
    ],
)
def test_a_word_that_is_not_known_is_answered_with_the_nearest(
    typed: tuple[str, ...], meant: str, macroscope_here: Command
) -> None:
    done = macroscope_here(*typed)
    assert done.returncode == 2
    assert meant in done.stderr


def test_there_is_nothing_to_end_where_nothing_was_started(
    macroscope_here: Command, tmp_path: Path
) -> None:
    assert macroscope_here("up", "--archives", "all").returncode == 2
    assert not (tmp_path / ".macroscope").exists()
    done = macroscope_here("down")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing runs here" in done.stderr


@pytest.mark.long
def test_shells_can_complete_commands_and_sources() -> None:
    def completed(line: str) -> set[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "TERM": "dumb"}
        done = installed(_MACROSCOPE_COMPLETE="complete_bash", **words)
        return set(done.stdout.split())

    assert completed("macroscope con") == {"consolidate", "config"}
    assert completed("macroscope run --source e") == {"ebi", "epfl"}
    assert completed("macroscope run --mode p") == {"parallel"}
    assert completed("macroscope search --archive e") == {"empiar"}
    assert completed("macroscope run --kind l") == {"labels"}
    assert completed("macroscope run --format ") == {"zarr", "npy"}
    assert completed("macroscope run --archives p") == {"public"}
    assert completed("macroscope run em") == {"empiar:"}
    assert completed("macroscope run ") == set()  # the shell shows files


def test_completion_is_by_the_command_s_name_and_zsh_has_it_at_the_first_tab() -> None:
    told = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    for shell in ("bash", "zsh", "fish"):
        script = installed("--show-completion", shell, **told).stdout
        assert "_MACROSCOPE_COMPLETE=complete_" + shell in script
    zsh = installed("--show-completion", "zsh", **told).stdout
    assert zsh.rstrip().endswith("""!= "_macroscope" ]] || _macroscope_completion "$@\"""")


def test_a_full_disk_behind_the_output_is_named() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "macroscope", "config"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "macroscope: cannot write: no space is left [at standard output]. Free space or choose "
        "another destination, then run again: finished work is kept"
    ]


BROKEN = """
data_dri: here
common: {max_workers: many}
sources: {ebi: {entry_id: abc, protocl: ftp}, idr: {image_ids: a}}
execution_mode: stagd
"""
MISTAKES = (
    "EM_BOXX: there is no such setting (from environment); did you mean 'EM_BOX'?",
    "data_dri: there is no such setting (from config/config.yaml); did you mean 'data_dir'?",
    "sources.ebi.protocl: there is no such setting",
    "execution_mode: 'stagd' is refused",
    "common.max_workers: 'many' is refused",
    "sources.ebi.entry_id: 'abc' is refused",
    "sources.idr.image_ids: 'a' is refused",
)


@pytest.mark.parametrize("command", ["plan", "run", "consolidate", "verify", "view", "config"])
def test_a_broken_configuration_is_told_in_full_each_mistake_once(
    command: str, macroscope_here: Command, tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(BROKEN)
    done = macroscope_here(command, EM_BOXX="1")
    assert done.returncode == 2
    assert done.stderr.startswith(f"macroscope: {len(MISTAKES)} settings are refused:\n")
    assert [done.stderr.count(mistake) for mistake in MISTAKES] == [1] * len(MISTAKES)
    assert "Traceback" not in done.stderr


def test_the_advice_of_a_refusal_can_be_followed(macroscope_here: Command, tmp_path: Path) -> None:
    """`macroscope config` shows where each value came from, also while one of them is refused."""
    (tmp_path / ".env").write_text("EM_BOX=5\nOPENORGANELLE_S3_SECRET=hidden\n")
    refused = macroscope_here("plan")
    assert refused.returncode == 2 and "`macroscope config`" in refused.stderr
    shown = macroscope_here("config")
    assert shown.returncode == 2
    assert re.search(r"^sources\.ebi\.box +5  \(\.env\)$", shown.stdout, re.MULTILINE)
    assert "hidden" not in shown.stdout + shown.stderr
    rows = json.loads(macroscope_here("config", "--json").stdout)
    assert {"key": "sources.idr.box", "value": "5", "origin": ".env"} in rows


@pytest.mark.parametrize("name", [".env", "config/config.yaml"])
def test_a_file_that_is_not_utf8_is_a_named_error(
    name: str, macroscope_here: Command, tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"# a comment\nEM_LOGS_DIR: \xe4rger\n")
    for command in ("plan", "config"):
        done = macroscope_here(command)
        assert done.returncode == 2
        assert f"not UTF-8: byte 0xe4 in line 2 [at {name}]" in done.stderr
        assert "Save it as UTF-8" in done.stderr


def test_a_tilde_is_the_home_folder_wherever_a_folder_is_named(
    macroscope_here: Command, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "settings").mkdir(parents=True)
    (home / "settings" / "mine.yaml").write_text("logs_dir: ~/logs\nmetadata_dir: ~/records\n")
    done = macroscope_here(
        "config",
        "--json",
        HOME=str(home),
        EM_CONFIG_PATH="~/settings/mine.yaml",
        EM_DATA_DIR="~/volumes",
        IDR_OUTPUT_DIR="~/elsewhere",
    )
    values = {row["key"]: row["value"] for row in json.loads(done.stdout)}
    assert values["data_dir"] == values["sources.ebi.output_dir"] == f"{home}/volumes"
    assert values["logs_dir"] == f"{home}/logs"
    assert values["metadata_dir"] == f"{home}/records"
    assert values["sources.idr.output_dir"] == f"{home}/elsewhere"
    wrong = macroscope_here("config", EM_DATA_DIR="~nobody-of-this-name/x")
    assert wrong.returncode == 2
    assert "there is no home folder ~nobody-of-this-name" in wrong.stderr


def test_consolidate_and_view_look_where_they_are_told(
    macroscope_here: Command, tmp_path: Path
) -> None:
    for command in ("consolidate", "view"):
        done = macroscope_here(command, "--data-dir", "~/elsewhere", HOME=str(tmp_path))
        assert done.returncode == 1
        assert f"{tmp_path}/elsewhere" in done.stderr


def test_ctrl_c_ends_a_command_as_shells_expect(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """130 says "interrupted": a loop of a shell ends at it, at 1 it goes on."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "{}:{}".format(*silent.getsockname())
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("macroscope")), "plan", "--source", "flyem"],
            cwd=tmp_path,
            env={**environment, "FLYEM_DVID_SERVER": address},
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in said


INTERRUPTED = """
import sys
class Stopped:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stopped())
sys.argv = ["macroscope", "--help"]
from macroscope.__main__ import main
main()
"""


def test_a_ctrl_c_while_the_command_is_imported_is_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_plan_of_nothing_prints_its_errors_and_no_sums(macroscope_here: Command) -> None:
    done = macroscope_here("plan", "/nowhere/x.tif")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no such file or folder" in done.stderr
