#!/usr/bin/env python3
"""Damaged inputs at every way in: each has to end as a result or as one sentence, within 2 s of the processor and 1 GB,
with nothing left behind and no traceback.

    python tests/fuzz/campaign.py --minutes 30 --seed 1 -o benchmarks/results/fuzz.json
    python tests/fuzz/campaign.py --show image:1:4711 -o folder      # write one input's files, and what it does
"""

import argparse
import json
import os
import platform
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
HANG = 30.0  # seconds on the wall until a silent worker is killed: on a busy machine, 2 s of the processor take longer
NAMES = ("image", "predict", "dicom", "records", "config", "manifest", "bundle", "zip", "archive", "scores", "run")


class Worker:
    "A process for one entry, started again when it dies."

    def __init__(self, name: str, base: Path):
        self.name, self.base, self.process = name, base, None

    def start(self) -> None:
        shutil.rmtree(self.base, ignore_errors=True)
        self.base.mkdir(parents=True)
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent.parent}",
            "TMPDIR": str(self.base / "tmp"),
            "CONFIG_PATH": "",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), str(self.base), self.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        if "ready" not in self.process.stdout.readline():
            raise RuntimeError(f"no worker for {self.name}: {(self.base / 'noise').read_text()[-2000:]}")

    def ask(self, seed: int, i: int) -> dict:
        "What comes of input `i`; a worker that dies or says nothing is an outcome too."
        if self.process is None:
            self.start()
        self.process.stdin.write(json.dumps([seed, i]) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], HANG)
        line = self.process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        if not ready:
            self.process.kill()
        code = self.process.wait()
        said = (self.base / "noise").read_text(errors="replace")[-500:] if (self.base / "noise").exists() else ""
        self.process = None
        return dict(
            outcome="fault",
            kind="crash" if ready else "hang",
            place=f"code {code}" if ready else "",
            message=said,
            seconds=HANG if not ready else 0.0,
            memory=0,
        )

    def stop(self) -> None:
        if self.process:
            self.process.communicate()


class Tally:
    "What an entry's inputs came to."

    def __init__(self):
        self.n, self.outcomes, self.faults, self.slowest, self.largest, self.noisy = 0, Counter(), {}, 0.0, 0, 0

    def add(self, i: int, r: dict) -> None:
        self.n, self.slowest, self.largest = self.n + 1, max(self.slowest, r["seconds"]), max(self.largest, r["memory"])
        self.outcomes[r["outcome"]] += 1
        self.noisy += r.get("noisy", False)
        if r["outcome"] == "fault":
            found = self.faults.setdefault((r["kind"], r["place"]), dict(kind=r["kind"], place=r["place"], count=0, first=i, message=r["message"]))
            found["count"] += 1

    def facts(self) -> dict:
        return dict(
            inputs=self.n,
            read=self.outcomes["read"],
            refused=self.outcomes["refused"],
            faulty=self.outcomes["fault"],
            noisy=self.noisy,
            slowest_seconds=round(self.slowest, 2),
            largest_mib=self.largest >> 20,
            faults=sorted(self.faults.values(), key=lambda f: -f["count"]),
        )


def attack(name: str, seconds: float, most: int, seed: int, workers: int, base: Path) -> dict:
    "One entry for so long, or so many inputs."
    tally, lock, end, numbers = Tally(), threading.Lock(), time.monotonic() + seconds, iter(range(most))

    def work(k: int) -> None:
        worker = Worker(name, base / f"{name}{k}")
        while time.monotonic() < end:
            with lock:
                i = next(numbers, None)
            if i is None:
                break
            r = worker.ask(seed, i)
            with lock:
                tally.add(i, r)
        worker.stop()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    return tally.facts()


def show(which: str, folder: Path) -> None:
    "Write the files of one input, and print what it does."
    name, seed, i = which.split(":")
    with tempfile.TemporaryDirectory() as tmp:
        worker = Worker(name, Path(tmp) / "w")
        result = worker.ask(int(seed), int(i))
        if (Path(tmp) / "w" / "case").exists():
            shutil.copytree(Path(tmp) / "w" / "case", folder, dirs_exist_ok=True)
        worker.stop()
    print(result.pop("message", ""), json.dumps(result), sep="\n")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--entry", default="all", help=f"with commas: {', '.join(NAMES)}")
    p.add_argument("--minutes", type=float, default=10, help="of all entries together")
    p.add_argument("--inputs", type=int, default=10**9, help="at most so many, of all entries together")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--workers", type=int, default=1, help="processes for an entry")
    p.add_argument("--show", help="entry:seed:number")
    p.add_argument("-o", "--out", type=Path, help="JSON file for the results; with --show, a folder for the input")
    args = p.parse_args()
    if args.show:
        return show(args.show, args.out or Path("case")) or 0
    os.environ["PYTHONPATH"] = f"{HERE}{os.pathsep}{HERE.parent.parent}"
    sys.path[:0] = [str(HERE), str(HERE.parent.parent)]
    import entries

    names = list(entries.ENTRIES) if args.entry == "all" else args.entry.split(",")
    total, begin, results = sum(entries.ENTRIES[n].share for n in names), time.monotonic(), {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as tmp:
        for n in names:
            share = entries.ENTRIES[n].share / total
            results[n] = attack(n, 60 * args.minutes * share, max(1, round(args.inputs * share)), args.seed, args.workers, Path(tmp))
            print(n, {k: v for k, v in results[n].items() if k != "faults"}, flush=True)
            for f in results[n]["faults"]:
                print("   ", f["count"], f["kind"], f["place"], f"first {n}:{args.seed}:{f['first']}", end=" ")
                print(f["message"][-300:].replace("\n", " | "), flush=True)
    libraries = ("pillow", "pydicom", "numpy", "onnxruntime", "pyyaml", "pydantic", "safetensors")
    facts = dict(
        command=" ".join(["python", "tests/fuzz/campaign.py", *sys.argv[1:]]),
        seed=args.seed,
        inputs=sum(r["inputs"] for r in results.values()),
        faulty=sum(r["faulty"] for r in results.values()),
        seconds=round(time.monotonic() - begin),
        python=platform.python_version(),
        versions={k: version(k) for k in libraries},
        entries=results,
    )
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{facts['inputs']} inputs, {facts['faulty']} faulty, {facts['seconds']} s")
    return 1 if facts["faulty"] else 0


if __name__ == "__main__":
    sys.exit(main())
