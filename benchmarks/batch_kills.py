"""Fifty random kills of one batch, then a last run: python benchmarks/batch_kills.py [--kills 50] [--inputs 4000]

Each round starts `segment_folder` with two processes and kills -9, after a random time, the parent alone, one worker, or all. At the end every input must have
exactly one row, equal to that of a run nobody disturbed, and no hidden file may be left. Writes benchmarks/results/batch_kills.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from batch_scale import OUT, make_bundle, make_inputs

SCRIPT = """import sys
from lesion_seg.batch import segment_folder
if __name__ == '__main__': segment_folder(*sys.argv[1:4], masks='png', shard_size=16, workers=int(sys.argv[4]))"""


def start(photos: Path, out: Path, bundle: Path, workers: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, (photos, out, bundle, workers))], stderr=subprocess.DEVNULL, start_new_session=True)


def workers_of(pid: int) -> list[int]:
    "The workers of a process, from /proc."
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try: pids = [int(p) for p in children.read_text().split()]
    except OSError: return []
    return [p for p in pids if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]


def kill(run: subprocess.Popen, kind: str) -> bool:
    "Kill what the kind says; whether there was something to kill."
    workers = workers_of(run.pid)
    if run.poll() is not None or (kind == "worker" and not workers): return False
    if kind == "all": os.killpg(run.pid, signal.SIGKILL)
    else: os.kill(run.pid if kind == "parent" else workers[0], signal.SIGKILL)
    return True


def rows(folder: Path) -> list[dict]: return pq.read_table(folder / "results").to_pylist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--inputs", type=int, default=4000)
    args = parser.parse_args()
    from lesion_seg.bundle import code_commit
    rng, kills, at = random.Random(0), Counter[str](), []
    with tempfile.TemporaryDirectory() as tmp:
        bundle, photos, out = make_bundle(Path(tmp) / "bundle"), make_inputs(Path(tmp), args.inputs), Path(tmp) / "out"
        while kills.total() < args.kills:
            run, kind = start(photos, out, bundle, 2), rng.choice(["parent", "worker", "all"])
            done, end = len(list(out.glob("results/*"))), time.monotonic() + 60
            while len(list(out.glob("results/*"))) == done and run.poll() is None and time.monotonic() < end: time.sleep(0.01)
            time.sleep(rng.random() * 0.5)
            if kill(run, kind): kills[kind] += 1
            elif run.poll() == 0: raise SystemExit(f"finished after {kills.total()} kills: give more --inputs")
            run.wait()
            at.append(len(list(out.glob("results/*"))))
            print(kills.total(), kind, at[-1], flush=True)
        last = start(photos, out, bundle, 2).wait()
        start(photos, Path(tmp) / "whole", bundle, 2).wait()
        got, whole = rows(out), rows(Path(tmp) / "whole")
        files = {str(p.relative_to(out)) for p in (out / "masks").rglob("*") if p.is_file()}
        names = Counter(r["image"] for r in got)
        facts = dict(inputs=args.inputs, kills=dict(kills), finished_shards_at_each_kill=" ".join(map(str, at)), last_exit=last, rows=len(got),
                     inputs_once=sum(n == 1 for n in names.values()),
                     equal_to_undisturbed=got == whole, masks_equal=all((out / f).read_bytes() == (Path(tmp) / "whole" / f).read_bytes() for f in files),
                     masks=len(files), hidden_left=[p.name for p in out.iterdir() if p.name.startswith(".")])
    path = OUT / "batch_kills.json"
    command = f"python benchmarks/batch_kills.py --kills {args.kills} --inputs {args.inputs}"
    path.write_text(json.dumps(dict(command=command, commit=code_commit(), **facts), indent=1) + "\n")
    print(path.read_text())


if __name__ == "__main__": main()
