"""The replies of vsftpd, which ftp.ebi.ac.uk resembles, in place of pyftpdlib's own.

Clients match on reply text more often than they should ("Login incorrect." is retried).
"""

from __future__ import annotations

import re

BANNER = (
    "220-Welcome to ftp.ebi.ac.uk",
    "220-",
    "220-Stand-in server: synthetic data only.",
    "220 ",
)
TOO_MANY = "421 There are too many connections from your internet address."
LOGIN_INCORRECT = "530 Login incorrect."
NO_DATA_CONNECTION = "425 Failed to establish connection."
NO_SIZE = "550 Could not get file size."
NO_FILE = "550 Failed to open file."
NO_REST = "502 REST not implemented."

_BY_COMMAND = {
    ("CWD", "250"): "250 Directory successfully changed.",
    ("CDUP", "250"): "250 Directory successfully changed.",
    ("CWD", "550"): "550 Failed to change directory.",
    ("SIZE", "550"): NO_SIZE,
    ("RETR", "550"): NO_FILE,
    ("MDTM", "550"): "550 Could not get file modification time.",
    ("LIST", "150"): "150 Here comes the directory listing.",
    ("NLST", "150"): "150 Here comes the directory listing.",
    ("MLSD", "150"): "150 Here comes the directory listing.",
    ("LIST", "125"): "150 Here comes the directory listing.",
    ("NLST", "125"): "150 Here comes the directory listing.",
    ("MLSD", "125"): "150 Here comes the directory listing.",
    ("LIST", "226"): "226 Directory send OK.",
    ("NLST", "226"): "226 Directory send OK.",
    ("MLSD", "226"): "226 Directory send OK.",
}
_BY_CODE = {
    "221": "221 Goodbye.",
    "230": "230 Login successful.",
    "331": "331 Please specify the password.",
    "530": LOGIN_INCORRECT,
}
_BY_TEXT = (
    (re.compile(r"^200 Type set to: ASCII.*"), "200 Switching to ASCII mode."),
    (re.compile(r"^200 Type set to: Binary.*"), "200 Switching to Binary mode."),
    (re.compile(r'^257 (".*") is the current directory\.$'), r"257 \1 is the current directory"),
    (re.compile(r"^227 Entering passive mode"), "227 Entering Passive Mode"),
    (re.compile(r"^229 Entering extended passive mode"), "229 Entering Extended Passive Mode"),
    (re.compile(r"^350 Restarting at position (\d+)\.$"), r"350 Restart position accepted (\1)."),
    (re.compile(r"^530 Log in with USER.*"), "530 Please login with USER and PASS."),
    (re.compile(r"^426 .*"), "426 Failure writing network stream."),
    (re.compile(r'^500 Command ".*'), "500 Unknown command."),
    (
        re.compile(r"^(?:125|150) (?:File status okay|Data connection already open).*"),
        "150 Opening BINARY mode data connection.",
    ),
)


def reworded(command: str, reply: str) -> str:
    """A pyftpdlib reply as vsftpd would put it."""
    for pattern, words in _BY_TEXT[:7]:
        if pattern.match(reply):
            return pattern.sub(words, reply)
    by_command = _BY_COMMAND.get((command, reply[:3]))
    if by_command is not None:
        return by_command
    for pattern, words in _BY_TEXT[7:]:
        if pattern.match(reply):
            return pattern.sub(words, reply)
    return _BY_CODE.get(reply[:3], reply)
