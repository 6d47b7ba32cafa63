"""HTTP, DVID and FTP stand-ins of one benchmark, in a process of their own.

``python -m benchmarks.serve HTTP_FOLDER FTP_FOLDER FIRST_BYTE_S BYTES_PER_SECOND`` prints a line
of JSON with the ports and ends with its standard input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.truth import volume
from emulators.control import Control, Settings
from emulators.dvid import DvidApp
from emulators.empiar import empiar_app
from emulators.ftp import FtpSide
from emulators.http_side import HttpSide
from emulators.mirror import mirror_app


def main(http_folder: str, ftp_folder: str, first_byte_s: str, bytes_per_second: str) -> None:
    """Serve until standard input ends."""
    control = Control()
    # what the archive's own server allows is not what is measured
    control.settings = Settings(dvid_max_throttled=64)
    control.set_latency(
        "*", first_byte_s=float(first_byte_s), bytes_per_second=float(bytes_per_second)
    )
    volume("uint8")
    side = HttpSide(control)
    side.start()
    ftp = FtpSide(Path(ftp_folder), control)
    ftp.start()
    ports = {
        "http": side.add("epfl", mirror_app(Path(http_folder))),
        "dvid": side.add("dvid", DvidApp(control, volume("uint8"))),
        "mirror": side.add("mirror", mirror_app(Path(ftp_folder))),
        "empiar": side.add("empiar", empiar_app()),
        "ftp": ftp.port,
    }
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    ftp.stop()
    side.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
