"""Training speed: the pipeline (mixed precision, channels-last) against a plain float32 loop over the same model and data.

    python benchmarks/train_speed.py [--manifest manifest.csv] [--rounds 3] [--batches 8] -o benchmarks/results/train_speed.json

The two run alternately in one process, each round with the same batches; the figures are medians over the rounds.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from fastai.callback.core import Callback, CancelFitException

from lesion_seg.bundle import code_commit
from lesion_seg.manifest import Manifest
from lesion_seg.loaders import lesion_dls
from lesion_seg.loss import DiceBCELoss
from lesion_seg.train import lesion_learner
from lesion_seg.unet import build_model


class Stopwatch(Callback):
    "Time `n` batches after `warm` others; note how long the network waited for data."
    order = 99

    def __init__(self, n, warm): self.n, self.warm, self.wait = n, warm, 0.0
    def before_batch(self):
        now = time.perf_counter()
        if self.iter == self.warm: self.begin = now
        elif self.iter > self.warm: self.wait += now - self.mark
    def after_batch(self):
        self.mark = time.perf_counter()
        if self.iter + 1 == self.n + self.warm:
            self.seconds = self.mark - self.begin
            raise CancelFitException


def pipeline(dls, precision, n, warm):
    "Images per second and share of waiting of a fastai Learner."
    watch = Stopwatch(n, warm)
    learn = lesion_learner(dls, build_model({}, seed=42), precision=precision)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=[watch])
    return n * dls.train.bs / watch.seconds, watch.wait / watch.seconds


def plain(dls, n, warm):
    "Images per second of a bare float32 loop: forward, loss, backward, Adam."
    model, loss_func = build_model({}, seed=42).train(), DiceBCELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for i, (x, y) in enumerate(dls.train):
        if i == warm: begin = time.perf_counter()
        loss_func(model(x.as_subclass(torch.Tensor)), y.as_subclass(torch.Tensor)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if i + 1 == n + warm: return n * dls.train.bs / (time.perf_counter() - begin)
    raise SystemExit("too few images for so many batches")


def phantoms(folder, n):
    from lesion_seg.phantom import write_phantoms
    return write_phantoms(folder, n=n, size=256, seed=0).split((0.9, 0.1, 0.0))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", help="table with splits; else phantoms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--warm", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        needed = 16 * (args.batches + args.warm + 1)
        manifest = Manifest.load(args.manifest) if args.manifest else phantoms(tmp, needed * 5 // 4)
        dls = lesion_dls(manifest)
        rounds = []
        for _ in range(args.rounds):
            fast, waiting = pipeline(dls, "auto", args.batches, args.warm)
            rounds.append(dict(pipeline=fast, waiting=waiting, plain=plain(dls, args.batches, args.warm)))
            print(rounds[-1], flush=True)
    middle = {k: statistics.median(r[k] for r in rounds) for k in rounds[0]}
    result = dict(command=f"python benchmarks/train_speed.py --rounds {args.rounds} --batches {args.batches}" + (" --manifest ..." if args.manifest else ""),
                  images_per_second=middle["pipeline"], plain_images_per_second=middle["plain"], ratio=middle["pipeline"] / middle["plain"],
                  waiting=middle["waiting"], rounds=rounds, data="manifest" if args.manifest else "phantoms", size=256, bs=16, model="lesion_unet",
                  cores=os.cpu_count(), threads=torch.get_num_threads(), bf16=torch.cpu._is_avx512_bf16_supported(), torch=torch.__version__,
                  machine=platform.machine(), commit=code_commit())
    print(json.dumps(result, indent=2))
    if args.out: args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__": main()
