"""Would the tests notice? python tests/mutants.py [MODULE ...] (writes tests/results/mutants.json)

`make mutants` runs it over all of its modules: metrics, loss, manifest, tfrecord, records, download, predict, contours, data and dicom. It puts one small mistake at
a time into a copy of the package and runs the tests of that module; a mistake that they notice is killed. Fails when fewer than 85 % are killed. Too slow for
`make test`: half an hour. A run over some modules leaves the figures of the others in tests/results/mutants.json as they are.
"""

import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "tests" / "results" / "mutants.json"
GOAL = 0.85
CPU_SECONDS, WALL_SECONDS = 200, 900  # a mistake that makes the tests run, or wait, for ever is noticed too
# Imported once; each mistake is tried in a fork, which has them already.
HEAVY = "numpy scipy.ndimage scipy.spatial PIL.Image pyarrow.parquet hypothesis.extra.numpy torch fastai.vision.core".split()

# module: (as it is, with a mistake)
MUTANTS: dict[str, list[tuple[str, str]]] = {
    "metrics": [
        ("return p >= threshold", "return p > threshold"),
        ("claimed - tp, lesion - tp, pixels", "lesion - tp, claimed - tp, pixels"),
        ("pixels - claimed - lesion + tp", "pixels - claimed - lesion"),
        ("return _ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)", "return _ratio(2 * c.tp, c.tp + c.fp + c.fn)"),
        ("return _ratio(c.tp, c.tp + c.fp + c.fn)", "return _ratio(c.tp, c.tp + c.fn + 1)"),
        ("undefined: Any = 1.)", "undefined: Any = 0.)"),
        ("np.where(np.asarray(c.fn) == 0, 1., 0.)", "1."),
        ("return _ratio(c.tn, c.tn + c.fp)", "return _ratio(c.tn, c.tn + c.fn)"),
        ("p = np.pad(m, 1)", "p = np.pad(m, 1, constant_values=True)"),
        ("0. if all(self.empty) else self.diagonal", "0. if any(self.empty) else self.diagonal"),
        ("return float(max(np.percentile", "return float(min(np.percentile"),
        ("tolerance * (1 + 1e-9)", "tolerance * (1 - 1e-9)"),
        ("TOLERANCE = .01 #", "TOLERANCE = .02 #"),
        ("2 * n + 1, axis=axis, mode='constant', cval=0)", "2 * n + 1, axis=axis, mode='nearest')"),
    ],
    "loss": [
        ("logits if logits.dtype == torch.float64 else logits.float()", "logits"),
        ("if lo < 0 or hi > 1:", "if hi > 1:"),
        ("return loss.sum() if self.reduction == 'sum' else loss.mean()", "return loss.mean()"),
        ("return 1 - (2 * (p * t).sum(1) + self.smooth)", "return 1 - (2 * (p * t).sum(1))"),
        ("reduction='none').flatten(1).mean(1)", "reduction='none').flatten(1).sum(1)"),
        ("w * loss.per_image(logits, target) for w", "loss.per_image(logits, target) for w"),
        ("self.alpha * fp + self.beta * fn", "self.beta * fp + self.alpha * fn"),
        ("torch.minimum(p, t).sum(1)", "(p * t).sum(1)"),
        (".clamp(min=1e-7) ** self.gamma", " * self.gamma"),
        ("np.where(mask, 0.5 - inside, outside - 0.5)", "np.where(mask, -inside, outside)"),
    ],
    "manifest": [
        ("f'{seed}:{g}'.encode()", "f'{g}'.encode()"),
        ("return [SPLITS[place[g]] for g in groups]", "return [SPLITS[place[g]] for g in sorted(groups)]"),
        ("size = np.array([counts[g] for g in names])", "size = np.array([1 for g in names])"),
        ("for i in np.argsort(-size, kind='stable'):", "for i in np.argsort(size, kind='stable'):"),
        ("gain[n[out] == 1] = 0", "pass"),
        ("s = int((overall + within).argmin())", "s = int(overall.argmin())"),
        ("spare[np.argmin(size[spare])]", "spare[np.argmax(size[spare])]"),
        ("out[i] = rank * n // len(known)", "out[i] = 0"),
    ],
    "tfrecord": [
        ("+ 0xa282ead8) & 0xffffffff", "+ 0xa282ead9) & 0xffffffff"),
        ("masked_crc32c(self.data[at:at + 8]) != crc", "False"),
        ("if masked_crc32c(payload) == self.checksum(at, n): return payload", "return payload"),
        ("if n <= left: return n", "if n <= left + 4: return n"),
        ("return n - (n >> 63 << 64)", "return n"),
        ("if -2**63 <= n < 2**63: continue", "if -2**63 < n < 2**63: continue"),
    ],
    "records": [
        ("if id in self._rows: raise", "if False: raise"),
        ("if have > size:", "if False:"),
        ("*self.shards[r.shard].checksum(r.k)) for r", "self.shards[r.shard].checksum(r.k)[0]) for r"),
        ("if self.mapped.size() < len(self.mapped):", "if False:"),
        ("if id not in (row.id, ''):", "if False:"),
        ("return order[rank::ranks][worker::workers]", "return order[rank::ranks]"),
    ],
    "download": [
        ("(total != item.size if item.size else total > item.most)", "False"),
        ("if f.tell() + len(chunk) > most: raise", "if False: raise"),
        ("failures = 1 if gained() and not e.slow else failures + 1", "failures += 1"),
        ("self.received - before < slowest * window", "False"),
        ("if now >= self.end: answer.hang_up", "if False: answer.hang_up"),
        ("if item.md5 and md5 != item.md5.lower(): return", "if False: return"),
        ("if guess and again: facts", "if False: facts"),
        ("or int(span[1]) != self.size", "or False"),
        ("sha256=i.sha256 or checksums.rows.get(i.path, {}).get('sha256')", "sha256=i.sha256"),
    ],
    "predict": [
        ("return [ring[:, ::-1] for polygon", "return [ring for polygon"),
        ("bbox=[box[0].start, box[1].start,", "bbox=[box[1].start, box[0].start,"),
        ("columns.stop - columns.start, rows.stop - rows.start]", "rows.stop - rows.start, columns.stop - columns.start]"),
        ("area_mm2=area * rows * columns", "area_mm2=area * rows * rows"),
        ("(s.probability * 255 + .5).astype(", "(s.probability * 255).astype("),
        ("if flip else a, -k, axes=(1, 2))", "if flip else a, k, axes=(1, 2))"),
        ("maps = eight.mean(1) if tta else eight[:, 0]", "maps = eight.mean(1) if tta else eight[:, 1]"),
        ("return self.disagreement > self.review_above", "return self.disagreement >= self.review_above"),
    ],
    "contours": [
        ("if seen.max() < floor:", "if seen.max() <= floor:"),
        ("np.greater_equal(band, level, out=out[rows])", "np.greater(band, level, out=out[rows])"),
        ("connectivity=4)", "connectivity=8)"),
        ("labels[-1], labels[:, 0], labels[:, -1]]", "labels[-1], labels[:, 0]]"),
        ("np.arange(n) + .5, [n, n]]", "np.arange(n), [n, n]]"),
        ("key=lambda rings: -ring_area(rings[0])", "key=lambda rings: ring_area(rings[0])"),
        ("[ring[:nearest + 1], hole, ring[nearest:]]", "[ring[:nearest], hole, ring[nearest:]]"),
        ("ring * (columns, rows) for", "ring * (rows, columns) for"),
    ],
    "data": [
        ("6: Image.Transpose.ROTATE_270", "6: Image.Transpose.ROTATE_90"),
        ("getexif(im).get(274, 1) >= 5", "getexif(im).get(274, 1) > 5"),
        ("return (values >> bits - 8)", "return (values >> 8)"),
        ("if 0 < highest < 1 << bits:", "if 0 < highest <= 1 << bits:"),
        ("on_white.paste(rgb, mask=im.getchannel('A'))", "on_white.paste(rgb)"),
        ("values[..., [2, 1, 0, *range(3, values.shape[2])]]", "values[..., [0, 1, 2, *range(3, values.shape[2])]]"),
        ("return fraction >= 0.5 - 1e-5", "return fraction > 0.5 + 1e-5"),
        ("128 if hi <= 255 else 128 * 257)", "127 if hi <= 255 else 128 * 257)"),
    ],
    "dicom": [
        ("* samples * self.allocated + 7) // 8", "* samples * self.stored + 7) // 8"),
        ("index = (1 if frame is None else frame) - 1", "index = 0 if frame is None else frame"),
        ("return 'RGB' if adobe == 0 else 'YBR_FULL'", "return 'RGB' if adobe == 1 else 'YBR_FULL'"),
        ("/ (width - 1) + 0.5", "/ width + 0.5"),
        ("eight = values >> (bits - 8)", "eight = values >> 8"),
        ("if falling: y = y[::-1]", "pass"),
        ("return -(1 << self.header.stored - 1) if", "return -(1 << self.header.stored) if"),
        ("return (mm[0], mm[1]) if mm", "return (mm[1], mm[0]) if mm"),
    ],
}


def killed(module: str, old: str, new: str) -> bool:
    "Do the module's tests fail on the mistake?"
    with tempfile.TemporaryDirectory() as tmp:
        for name in ("lesion_seg", "tests"): shutil.copytree(ROOT / name, Path(tmp) / name, ignore=shutil.ignore_patterns("__pycache__", "shipped"))
        for name in ("lesion_seg/shipped", "model", "settings.ini"): (Path(tmp) / name).symlink_to(ROOT / name) # which some tests read
        shutil.copy(ROOT / "setup.cfg", tmp)
        path, log = Path(tmp) / "lesion_seg" / f"{module}.py", Path(tmp) / "log"
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
        if (child := os.fork()) == 0:
            with open(log, "w") as f:
                for stream in (1, 2): os.dup2(f.fileno(), stream)
            os._exit(tested(tmp, module))
        status = os.waitpid(child, 0)[1]
        code = 1 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        if code not in (0, 1): raise RuntimeError(f"{module}, {new!r}: pytest stopped with {code}\n{log.read_text()[-2000:]}")
        return code == 1


def tested(folder: str, module: str) -> int:
    "What pytest says, in a process of its own that sees the copy alone."
    os.chdir(folder)
    os.environ["PYTHONPATH"] = folder
    sys.path.insert(0, folder)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    signal.alarm(WALL_SECONDS)
    if not importlib.import_module("lesion_seg").__file__.startswith(os.path.realpath(folder)): return 99
    return int(pytest.main(["-x", "-q", "-m", "not slow", f"tests/test_{module}.py"]))


def keep(found: list[dict]) -> None:
    "Write the modules' figures beside those of the others."
    of = json.loads(RESULT.read_text(encoding="utf-8"))["modules"] if RESULT.exists() else {}
    for m in dict.fromkeys(f["module"] for f in found):
        mine = [f for f in found if f["module"] == m]
        of[m] = dict(killed=sum(f["killed"] for f in mine), of=len(mine), survived=[[f["old"], f["new"]] for f in mine if not f["killed"]])
    killed, all = (sum(m[k] for m in of.values()) for k in ("killed", "of"))
    facts = dict(command="python tests/mutants.py", killed=killed, of=all, share=round(killed / all, 3), modules=dict(sorted(of.items())))
    RESULT.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(*modules: str) -> int:
    os.environ["OMP_NUM_THREADS"] = "1"
    todo = [(m, old, new) for m in modules or MUTANTS for old, new in MUTANTS[m]]
    for m, old, _ in todo:
        n = (ROOT / "lesion_seg" / f"{m}.py").read_text(encoding="utf-8").count(old)
        if n != 1: raise SystemExit(f"{m}: {old!r} stands there {n} times; mend tests/mutants.py")
    with warnings.catch_warnings(): # for the imports alone: some tests ask whether a warning was given
        warnings.simplefilter("ignore")
        for name in HEAVY: importlib.import_module(name)
    for m in sorted({m for m, _, _ in todo}):
        if killed(m, "", ""): raise SystemExit(f"{m}: its tests fail without any mistake")
    found = []
    for m, old, new in todo:
        found.append(dict(module=m, old=old, new=new, killed=killed(m, old, new)))
        print(f"{m}: {'killed  ' if found[-1]['killed'] else 'SURVIVED'} {old!r} -> {new!r}", flush=True)
    dead = sum(f["killed"] for f in found)
    print(f"{dead} of {len(found)} killed, {dead / len(found):.0%}")
    keep(found)
    return int(dead / len(found) < GOAL)


if __name__ == "__main__": sys.exit(main(*sys.argv[1:]))
