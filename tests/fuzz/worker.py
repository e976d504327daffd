"""One process that reads damaged inputs, one after another, and says how each went; the campaign watches over it."""

import ctypes
import gc
import json
import os
import re
import resource
import shutil
import sys
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

import entries

SECONDS, BYTES = 2.0, 1 << 30  # what one input may cost: of the processor, and of memory
NETWORKS = 600 << 20  # of memory for all networks: the limit of the package is larger, and what is tried here is whether it holds
BASE = 1 << 40  # bytes of the process before the first input


def peak(reset: bool = False) -> int:
    "The largest resident size in bytes since the last reset (Linux), or ever."
    if reset:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def trim() -> None:
    "Give memory that is not in use back to the system (glibc)."
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def where(e: BaseException) -> str:
    "The innermost place in the package that an exception came through."
    frames = [f for f in traceback.extract_tb(e.__traceback__) if "lesion_seg" in f.filename and "/fuzz/" not in f.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "outside"


def strangers(folder: Path, case: set[str], ends: tuple[str, ...], known: set[str]) -> list[str]:
    "Files that an input left where it should not have."
    inside = [p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).parts[0] != "out" and p.name not in case]
    hidden = [p for p in (folder / "out").rglob("*") if p.name.startswith(".") and not p.name.endswith(ends or ("\0",))]
    return [str(p) for p in (*inside, *hidden, *Path("cwd").iterdir(), *(p for p in Path("tmp").iterdir() if p.name not in known))]


def one(entry: entries.Entry, case: dict[str, bytes], base: Path, known: set[str] = frozenset()) -> dict:
    "What came of one input."
    folder = base / "case"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in case.items():
        (folder / name).write_bytes(data)
    trim()
    peak(reset=True)
    before = resident()
    start, outcome = time.process_time(), dict(outcome="read")
    try:
        entry.run(folder)
    except entries.InputError as e:
        outcome = dict(outcome="refused", message=str(e)[:300])
    except entries.Flaw as e:
        outcome = dict(outcome="fault", kind="answer", place=str(e).split(":")[0][:40], message=str(e)[:600])
    except BaseException as e:
        outcome = dict(outcome="fault", kind=type(e).__name__, place=where(e), message="".join(traceback.format_exception(e))[-1500:])
    seconds, memory = time.process_time() - start, peak() - max(0, before - BASE)  # what an earlier input left is not this one's
    if outcome["outcome"] != "fault":
        if seconds > SECONDS:
            outcome = dict(outcome="fault", kind="slow", place="", message=f"{seconds:.1f} s of the processor")
        elif memory > BYTES:
            outcome = dict(outcome="fault", kind="memory", place="", message=f"{memory >> 20} MiB")
        elif left := strangers(folder, set(case), entry.leaves, known):
            outcome = dict(outcome="fault", kind="left behind", place="", message=", ".join(left)[:300])
    return outcome | dict(seconds=seconds, memory=memory)


def kept_seeds(name: str, folder: Path) -> list[dict[str, bytes]]:
    "The seeds of an entry, made by its first worker."
    if not folder.exists():
        (made := folder.with_suffix(f".{os.getpid()}")).mkdir()
        for k, case in enumerate(entries.ENTRIES[name].seeds()):
            (made / f"{k:03}").mkdir()
            for file, data in case.items():
                (made / f"{k:03}" / file).write_bytes(data)
        if folder.exists():
            shutil.rmtree(made)
        else:
            made.rename(folder)
    return [{p.name: p.read_bytes() for p in sorted(case.iterdir())} for case in sorted(folder.iterdir())]


def main(base: Path, name: str) -> None:
    "Read numbers from stdin, answer with JSON lines on the channel that stdout was."
    os.chdir(base)
    for folder in ("tmp", "cwd"):
        Path(folder).mkdir(exist_ok=True)
    os.environ["TMPDIR"] = str(base / "tmp")
    answers, noise = os.fdopen(os.dup(1), "w"), os.open(base / "noise", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(noise, 1), os.dup2(noise, 2)
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    import lesion_seg.onnx

    lesion_seg.onnx.NETWORK_BYTES = NETWORKS
    entry, seeds = entries.ENTRIES[name], kept_seeds(name, base.parent / f"{name}.seeds")
    one(entry, seeds[0], base)  # libraries are loaded now
    known = {p.name for p in Path("tmp").iterdir()}
    os.ftruncate(noise, 0)
    gc.freeze()
    trim()
    global BASE
    BASE = resident()
    warnings.filterwarnings("ignore", module="PIL")  # as on the command line
    print(json.dumps(dict(ready=len(seeds))), file=answers, flush=True)
    for line in sys.stdin:
        seed, i = json.loads(line)
        result = one(entry, entries.make_case(name, seeds, seed, i), base, known)
        sys.stdout.flush(), sys.stderr.flush()
        if said := os.pread(noise, 600, 0):
            os.ftruncate(noise, 0)
            os.lseek(noise, 0, os.SEEK_SET)
            text = said.decode(errors="replace")
            place = found[0] if (found := re.search(r"\w+\.py:\d+", text)) else re.sub(r"\W+", " ", text)[:40]
            if ".py" in text and result["outcome"] != "fault":
                result |= dict(outcome="fault", kind="noise", place=place, message=text)
            result["noisy"] = True  # libtiff and the like write remarks of their own to stderr
        print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
