"""The peers' side of scripts/bench/peer.ts: one JSON object a line, asked on stdin, answered on stdout.

The first line answered says what the peer is. Whatever else is printed goes to stderr. An exception is answered as
{"error": ...} and ends the process.
"""

import json
import os
import sys
import traceback


def serve(about: dict, handlers: dict) -> None:
    """Answers {"do": name, ...} with handlers[name](**rest), a dict, until stdin ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: dict) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    answer(about)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer(handlers[request.pop("do")](**request))
        except Exception as error:  # whatever it is, the other side has to hear of it
            traceback.print_exc()
            answer({"error": f"{type(error).__name__}: {error}"})
            raise SystemExit(1) from error


def peak_bytes() -> int:
    """VmHWM: the most memory this process has held."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
