"""Phantoms a second on one core, as JSON on stdout: `OMP_NUM_THREADS=1 python benchmarks/phantom_speed.py [--size 256] [--n 96] [--repeats 5]`

The same seeds are drawn `repeats` times, by default with the realistic mix of artefacts. `images_per_second` is by wall time, of the best
repeat; `images_per_cpu_second` by processor time, which a busy machine disturbs less."""
import argparse
import json
import platform
import time

import numpy as np
import PIL
import scipy

from lesion_seg.phantom import make_phantom


def one_pass(n: int, size: int, artefacts) -> tuple[float, float]:
    "Wall and processor seconds for n phantoms."
    wall, cpu = time.perf_counter(), time.process_time()
    for seed in range(n): make_phantom(seed, size, artefacts)
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--size', type=int, default=256, help='side in pixels')
    a.add_argument('--n', type=int, default=96, help='phantoms a repeat')
    a.add_argument('--repeats', type=int, default=5)
    args = a.parse_args()
    make_phantom(0, args.size)
    out: dict = dict(command=f'OMP_NUM_THREADS=1 python benchmarks/phantom_speed.py --size {args.size} --n {args.n} --repeats {args.repeats}', size=args.size, n=args.n, repeats=args.repeats)
    for name, artefacts in (('mix', None), ('clean', {})):
        wall, cpu = (min(t) for t in zip(*(one_pass(args.n, args.size, artefacts) for _ in range(args.repeats)), strict=True))
        out[name] = dict(images_per_second=round(args.n / wall, 1), images_per_cpu_second=round(args.n / cpu, 1))
    versions = dict(python=platform.python_version(), numpy=np.__version__, scipy=scipy.__version__, pillow=PIL.__version__)
    print(json.dumps(out | dict(machine=platform.processor() or platform.machine(), **versions), indent=1))


if __name__ == '__main__': main()
