"""Schemathesis over the service's whole OpenAPI document: no fault, no violation of a schema.

A server with real models runs beside it, before an upstream that gives every chat one answer. The
one check left out wants every request that the schema allows to be accepted; ours may still name a
method that is not there, or both passages and an index, and is then refused with the reason. Run
from the repository's root:

    OMP_NUM_THREADS=1 python benchmarks/rest_fuzz.py --examples 700

The phases "examples" and "coverage" send the same whatever the seed is, so further pieces with
other seeds take ``--phases fuzzing,stateful``.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from common import parser, report
from rest_load import serving

_KEYS = f"fuzz:{sha256(b'fuzz').hexdigest()}"
_ANSWER = {
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "38 metres."}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}


class _Chats(BaseHTTPRequestHandler):
    """Reads a request and gives the one answer."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(_ANSWER).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: ten thousand lines help nobody."""


@contextmanager
def _upstream() -> Iterator[str]:
    """The base URL of a server for chats."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Chats) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def main() -> None:
    """Run it and count the cases."""
    options = parser(__doc__)
    options.add_argument("--examples", type=int, default=1000, help="for each operation")
    options.add_argument("--phases", default="examples,coverage,fuzzing,stateful")
    chosen = options.parse_args()
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if program is None:
        raise SystemExit("schemathesis is not installed: pip install schemathesis")
    with (
        tempfile.TemporaryDirectory() as folder,
        _upstream() as upstream,
        serving(
            store="memory://",
            methods=["identity", "recomp-extractive", "exit-mini", "refrag"],
            indexes=folder,
            keys=_KEYS,
            upstream=upstream,
        ) as address,
    ):
        command = [program, "run", f"{address}/openapi.json", "--continue-on-failure"]
        command += ["--phases", chosen.phases]
        command += ["--max-examples", str(chosen.examples), "--seed", str(chosen.seed)]
        command += ["--exclude-checks", "positive_data_acceptance", "--request-timeout", "120"]
        command += ["--header", "Authorization: Bearer fuzz"]
        start = time.monotonic()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    sys.stderr.write(done.stdout[-5000:])
    cases = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    report(
        {
            "cases": int(cases[1]) if cases else 0,
            "passed": int(cases[2]) if cases else 0,
            "failures": done.returncode != 0,
            "seconds": round(time.monotonic() - start, 1),
        }
    )


if __name__ == "__main__":
    main()
