"""What MC dropout costs: python benchmarks/mc_speed.py [-n 20] [--size 256] [--rounds 15]

Times, in alternation and warmed up, one deterministic pass of the shipped model, `n` naive passes with dropout, and `mc_samples`, all on torch with
the same threads and switches; medians. Writes benchmarks/results/mc_speed.json.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from lesion_seg.bundle import Bundle, code_commit, versions
from lesion_seg.mc_dropout import DropoutMasks, dropout_rate, mc_samples
from lesion_seg.phantom import make_phantom

RESULT = Path(__file__).resolve().parent / "results" / "mc_speed.json"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=20)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    model = Bundle.shipped().model().to(memory_format=torch.channels_last)
    image = torch.from_numpy(make_phantom(0, args.size).image).permute(2, 0, 1)[None] / 127.5 - 1
    image, rate = image.contiguous(memory_format=torch.channels_last), dropout_rate(model)

    def single(): return model(image)[:, 0].sigmoid()
    def naive():
        passes = (model.decode(model.encode(image), image.shape[-2:], dropout=DropoutMasks(rate, args.n, slice(k, k + 1))) for k in range(args.n))
        return torch.cat([p[:, 0].sigmoid() for p in passes]).numpy()
    def shared(): return mc_samples(model, image, args.n)

    ways = dict(single=single, naive=naive, shared=shared)
    seconds = {name: [] for name in ways}
    with torch.inference_mode():
        difference = float(np.abs(naive() - shared()).max())
        for i in range(args.rounds + 2):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                if i > 1: seconds[name].append(time.perf_counter() - start)
    ms = {name: median(s) * 1e3 for name, s in seconds.items()}
    result = dict(command=f"python benchmarks/mc_speed.py -n {args.n} --size {args.size} --rounds {args.rounds}", commit=code_commit(), versions=versions(),
                  threads=torch.get_num_threads(), weights_sha256=Bundle.shipped().info["weights_sha256"], n=args.n, size=args.size, milliseconds=ms,
                  shared_over_single=ms["shared"] / ms["single"], naive_over_shared=ms["naive"] / ms["shared"], largest_difference=difference)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__": main()
