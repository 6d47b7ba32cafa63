"""The table in docs/reliability.md of how each field of a record is proven, from the code.

``python -m docs.proof_table`` writes it; a test holds the committed page to the code.
"""

from __future__ import annotations

from pathlib import Path

from lib.verify.findings import PROOFS

PATH = Path(__file__).with_name("reliability.md")
_BEGIN, _END = "<!-- proofs: begin -->\n", "<!-- proofs: end -->"


def table() -> str:
    """One row for each field."""
    rows = ["| field | proven by | or not, because |", "|---|---|---|"]
    for name, proof in PROOFS.items():
        how = proof.how + (" (`--deep`)" if proof.how and proof.deep else "")
        rows.append(f"| `{name}` | {how or '-'} | {proof.why_not or '-'} |")
    return "\n".join(rows) + "\n"


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(_BEGIN)
    return before + _BEGIN + table() + _END + rest.partition(_END)[2]


if __name__ == "__main__":
    PATH.write_text(page(PATH.read_text("utf-8")), "utf-8")
