#!/usr/bin/env python3
"""Damaged inputs at every way in: each has to end as a result or as one sentence, within 2 s of the processor and 1 GB,
with nothing left behind and no traceback.

    python tests/fuzz/campaign.py --minutes 30 --seed 1 -o tests/results/fuzz.json
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
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
HANG = 30.0  # seconds on the wall until a silent worker is killed: on a busy machine, 2 s of the processor take longer
AHEAD = 16  # inputs that a worker is sent before it has answered, so that neither waits for the other
NAMES = ("image", "predict", "dicom", "records", "config", "manifest", "bundle", "zip", "archive", "app", "batch", "scores", "run")


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
            "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent.parent), os.environ.get("PYTHONPATH", ""))),
            "TMPDIR": str(self.base / "tmp"),
            "CONFIG_PATH": "",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), str(self.base), self.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=env
        )
        self.said = b""
        if b"ready" not in self.process.stdout.readline():
            raise RuntimeError(f"no worker for {self.name}: {(self.base / 'noise').read_text()[-2000:]}")

    def send(self, seed: int, i: int) -> None:
        if self.process is None:
            self.start()
        with suppress(BrokenPipeError):  # `receive` finds out what happened
            self.process.stdin.write(f"[{seed}, {i}]\n".encode())

    def receive(self) -> dict:
        "What came of the next input; a worker that dies or says nothing is an outcome too, and has no process afterwards."
        ready: list | None = [self.process.stdout]
        while b"\n" not in self.said and ready:
            ready, _, _ = select.select([self.process.stdout], [], [], HANG)
            chunk = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            self.said += chunk
            if not chunk:
                break
        line, end, self.said = self.said.partition(b"\n")
        if end:
            return json.loads(line)
        if not ready:
            self.process.kill()
        code = self.process.wait()
        self.process = None
        said = (self.base / "noise").read_text(errors="replace")[-500:] if (self.base / "noise").exists() else ""
        died = dict(kind="crash", place=f"code {code}", seconds=0.0) if ready else dict(kind="hang", place="", seconds=HANG)
        return dict(outcome="fault", message=said, memory=0, **died)

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
    tally, lock, end, numbers, again = Tally(), threading.Lock(), time.monotonic() + seconds, iter(range(most)), deque()

    def number() -> int | None:
        with lock:
            return None if time.monotonic() > end else again.popleft() if again else next(numbers, None)

    def work(k: int) -> None:
        worker, waiting = Worker(name, base / f"{name}{k}"), deque()
        while True:
            while len(waiting) < AHEAD and (i := number()) is not None:
                worker.send(seed, i)
                waiting.append(i)
            if not waiting:
                return worker.stop()
            r = worker.receive()
            with lock:
                tally.add(waiting.popleft(), r)
                if worker.process is None:  # the others in its queue are for the next one
                    again.extend(waiting)
                    waiting.clear()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    return tally.facts()


def show(which: str, folder: Path) -> None:
    "Write the files of one input, and print what it does."
    name, seed, i = which.split(":")
    with tempfile.TemporaryDirectory() as tmp:
        worker = Worker(name, Path(tmp) / "w")
        worker.send(int(seed), int(i))
        result = worker.receive()
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
        commands=[" ".join(["python", "tests/fuzz/campaign.py", *sys.argv[1:]])],
        seed=args.seed,
        inputs=sum(r["inputs"] for r in results.values()),
        faulty=sum(r["faulty"] for r in results.values()),
        seconds=round(time.monotonic() - begin),
        python=platform.python_version(),
        versions={k: version(k) for k in libraries},
        entries=results,
    )
    if args.out:
        if args.out.exists():
            kept = json.loads(args.out.read_text())
            facts |= {k: kept[k] for k in ("first", "found") if k in kept}  # written by hand: what campaigns have found, and what was mended
        args.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{facts['inputs']} inputs, {facts['faulty']} faulty, {facts['seconds']} s")
    return 1 if facts["faulty"] else 0


if __name__ == "__main__":
    sys.exit(main())
