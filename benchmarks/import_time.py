"""What an import costs: python benchmarks/import_time.py (writes benchmarks/results/import_time.json)

CPU seconds, user and system, of a fresh process that imports a module, less those of one that imports nothing; the least of five, so that a busy
machine does not matter.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

RESULT = Path(__file__).resolve().parent / "results" / "import_time.json"
MODULES = ("lesion_seg", "lesion_seg.data", "lesion_seg.predict", "lesion_seg.cli", "lesion_seg.train")


def cpu_seconds(code: str) -> float:
    "Of a process that runs `code`."
    before = os.times()
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main():
    least = {name: min(cpu_seconds(f"import {name}") for _ in range(5)) for name in ("sys", *MODULES)}
    cost = {name: round(max(0.0, least[name] - least["sys"]), 3) for name in MODULES}
    RESULT.write_text(json.dumps(dict(command="python benchmarks/import_time.py", cpu_seconds=cost, python=platform.python_version()), indent=1) + "\n")
    print(cost)


if __name__ == "__main__": main()
