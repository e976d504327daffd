"""A thousand predictions in a row, and eight threads on one Segmenter: does memory stay flat, do the masks stay the same?

    python benchmarks/memory_over_time.py
"""

import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from lesion_seg.phantom import make_phantom
from lesion_seg.predict import Segmenter

OUT = Path(__file__).parent / "results" / "memory_over_time.json"


def resident() -> float:
    "MiB of this process (Linux)."
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(n: int = 1000) -> None:
    segmenter, begin, memory = Segmenter(threads=1), time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as tmp:
        photos = []
        for i in range(16):
            photos.append(Path(tmp) / f"{i}.jpg")
            Image.fromarray(make_phantom(i, (480, 640)).image).save(photos[-1])
        for i in range(n + 1):
            if i % 100 == 0: memory[i] = round(resident(), 1)
            segmenter.predict(photos[i % 16]).save(tmp, kinds=("mask", "json"))
        seconds = time.perf_counter() - begin
        alone = [segmenter.predict(p).mask for p in photos]
        with ThreadPoolExecutor(8) as pool: together = list(pool.map(lambda p: segmenter.predict(p).mask, photos * 8))
    different = sum(not np.array_equal(m, alone[k % 16]) for k, m in enumerate(together))
    facts = dict(command=f"python {' '.join(sys.argv)}", predictions=n, seconds=round(seconds, 1), resident_mib=memory,
                 threads=8, shared_predictions=len(together), masks_that_differ=different)
    OUT.write_text(json.dumps(facts, indent=1) + "\n")
    print(facts)


if __name__ == "__main__": main()
