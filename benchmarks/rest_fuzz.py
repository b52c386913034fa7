"""Schemathesis over the service's whole OpenAPI document: no fault, no violation of a schema.

A server with real models runs beside it. The one check left out wants every request that the
schema allows to be accepted; ours may still name a method that is not there, or both passages and
an index, and is then refused with the reason. Run from the repository's root:

    OMP_NUM_THREADS=1 python benchmarks/rest_fuzz.py --examples 1000
"""

import re
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from common import parser, report
from rest_load import serving

_KEYS = f"fuzz:{sha256(b'fuzz').hexdigest()}"


def main() -> None:
    """Run it and count the cases."""
    options = parser(__doc__)
    options.add_argument("--examples", type=int, default=1000, help="for each operation")
    chosen = options.parse_args()
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if program is None:
        raise SystemExit("schemathesis is not installed: pip install schemathesis")
    methods = ["identity", "recomp-extractive", "exit-mini"]
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(store="memory://", methods=methods, indexes=folder, keys=_KEYS) as address,
    ):
        command = [program, "run", f"{address}/openapi.json", "--continue-on-failure"]
        command += ["--max-examples", str(chosen.examples), "--seed", str(chosen.seed)]
        command += ["--exclude-checks", "positive_data_acceptance", "--request-timeout", "120"]
        command += ["--header", "Authorization: Bearer fuzz"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    sys.stderr.write(done.stdout[-5000:])
    cases = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    report(
        {
            "cases": int(cases[1]) if cases else 0,
            "passed": int(cases[2]) if cases else 0,
            "failures": done.returncode != 0,
        }
    )


if __name__ == "__main__":
    main()
