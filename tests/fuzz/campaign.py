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
HANG, ASLEEP = 30.0, 300.0  # seconds until a silent worker is killed: of its processor; on the wall, if it waits for something
AHEAD = 16  # inputs that a worker is sent before it has answered, so that neither waits for the other
DAMAGED = ("image", "predict", "dicom", "records", "config", "manifest", "bundle", "zip", "archive", "app", "batch", "scores", "run")
SHAPED = ("tiles", "scans", "chains", "elements", "graphs", "tables", "displays")  # written by programs, some of them damaged


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
            "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent), str(HERE.parent.parent), os.environ.get("PYTHONPATH", ""))),
            "TMPDIR": str(self.base / "tmp"),
            "CONFIG_PATH": "",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), str(self.base), self.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=env
        )
        self.said = b""
        if b"ready" not in self.process.stdout.readline():
            raise RuntimeError(f"no worker for {self.name}: {(self.base / 'noise').read_text()[-2000:]}")

    def spent(self) -> float:
        "Seconds of the processor that the process has had (Linux); elsewhere the clock has to do."
        stat = Path(f"/proc/{self.process.pid}/stat")
        if not stat.exists():
            return time.monotonic()
        user, system = stat.read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def send(self, seed: int, i: int) -> None:
        if self.process is None:
            self.start()
        with suppress(BrokenPipeError):  # `receive` finds out what happened
            self.process.stdin.write(f"[{seed}, {i}]\n".encode())

    def receive(self) -> dict:
        "What came of the next input; a worker that dies or says nothing is an outcome too, and has no process afterwards."
        ready: list = [self.process.stdout]
        spent, since = self.spent(), time.monotonic()
        while b"\n" not in self.said:
            ready, _, _ = select.select([self.process.stdout], [], [], 1)
            chunk = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            self.said += chunk
            if ready and not chunk or not ready and (self.spent() - spent > HANG or time.monotonic() - since > ASLEEP):
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


class Journal:
    "What came of each input, a line each, so that a campaign that was cut goes on."

    def __init__(self, path: Path | None, seed: int):
        self.path, self.seed = path, seed
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.known = [json.loads(line) for line in lines if line.endswith("}")]

    def of(self, name: str) -> dict[int, dict]:
        return {k["i"]: k["result"] for k in self.known if (k["name"], k["seed"]) == (name, self.seed)}

    def add(self, name: str, i: int, result: dict) -> None:
        if self.path:
            with self.path.open("a") as f:
                f.write(json.dumps(dict(name=name, seed=self.seed, i=i, result=result)) + "\n")


def attack(name: str, seconds: float, most: int, seed: int, workers: int, base: Path, journal: Journal) -> dict:
    "One entry for so long, or so many inputs; what the journal knows is not done again."
    done, tally, lock, end, again = journal.of(name), Tally(), threading.Lock(), time.monotonic() + seconds, deque()
    numbers = (i for i in range(most) if i not in done)
    for i, r in done.items():
        tally.add(i, r)

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
                tally.add(i := waiting.popleft(), r)
                journal.add(name, i, r)
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
    p.add_argument("--entry", default="all", help=f"with commas: {', '.join(DAMAGED + SHAPED)}; or damaged, or shaped, for one of the two kinds")
    p.add_argument("--minutes", type=float, default=10, help="of all entries together")
    p.add_argument("--inputs", type=int, default=10**9, help="at most so many, of all entries together")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--workers", type=int, default=1, help="processes for an entry")
    p.add_argument("--journal", type=Path, help="a file of results so far: a campaign that was cut goes on from there")
    p.add_argument("--show", help="entry:seed:number")
    p.add_argument("-o", "--out", type=Path, help="JSON file for the results; with --show, a folder for the input")
    args = p.parse_args()
    if args.show:
        return show(args.show, args.out or Path("case")) or 0
    sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]
    import entries

    groups = dict(all=DAMAGED + SHAPED, damaged=DAMAGED, shaped=SHAPED)
    names = groups.get(args.entry) or args.entry.split(",")
    journal = Journal(args.journal, args.seed)
    total, results = sum(entries.ENTRIES[n].share for n in names), {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as tmp:
        for n in names:
            share = entries.ENTRIES[n].share / total
            results[n] = attack(n, 60 * args.minutes * share, max(1, round(args.inputs * share)), args.seed, args.workers, Path(tmp), journal)
            print(n, {k: v for k, v in results[n].items() if k != "faults"}, flush=True)
            for f in results[n]["faults"]:
                print("   ", f["count"], f["kind"], f["place"], f"first {n}:{args.seed}:{f['first']}", end=" ")
                print(f["message"][-300:].replace("\n", " | "), flush=True)
    command = " ".join(["python", "tests/fuzz/campaign.py", *sys.argv[1:]])
    for n in names:
        results[n] = dict(command=command, seed=args.seed) | results[n]
    write(args.out, results)
    faulty = sum(r["faulty"] for r in results.values())
    print(f"{sum(r['inputs'] for r in results.values())} inputs, {faulty} faulty")
    return 1 if faulty else 0


def write(out: Path | None, results: dict[str, dict]) -> None:
    "Write the figures of these entries; those of others, and what was written by hand about faults that were found, stay."
    if not out:
        return
    kept = json.loads(out.read_text()) if out.exists() else {}
    all_of_them = kept.get("entries", {}) | results
    libraries = ("pillow", "pydicom", "numpy", "onnxruntime", "pyyaml", "pydantic", "safetensors")
    facts = dict(
        command=next(iter(results.values()))["command"],
        inputs=sum(r["inputs"] for r in all_of_them.values()),
        faulty=sum(r["faulty"] for r in all_of_them.values()),
        slowest_seconds=max(r["slowest_seconds"] for r in all_of_them.values()),
        largest_mib=max(r["largest_mib"] for r in all_of_them.values()),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, shared with other work; seconds are those of the processor",
        python=platform.python_version(),
        versions={k: version(k) for k in libraries},
        entries=all_of_them,
    )
    facts |= {k: kept[k] for k in ("first", "found") if k in kept}
    out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
