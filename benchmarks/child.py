"""One measured run in a process of its own: ``python -m benchmarks.child MODULE:FUNCTION JSON``.

Time and CPU are taken from after the imports to the finished output; the answer is one line of
JSON on standard output.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib import import_module


def _cpu_s() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main(target: str, parameters: str) -> None:
    """Import, run, report."""
    began = time.perf_counter()
    module, _, name = target.partition(":")
    function = getattr(import_module(module), name)
    import_s, import_cpu_s = time.perf_counter() - began, _cpu_s()
    began = time.perf_counter()
    extra = function(**json.loads(parameters)) or {}
    answer = {
        "seconds": time.perf_counter() - began,
        "cpu_s": _cpu_s() - import_cpu_s,
        "import_s": import_s,
        **extra,
    }
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
