"""The shipped network on every runtime, and its peers, in turns: python benchmarks/onnx_speed.py [--bundle FOLDER] [--rounds 25]

At 256 x 256 pixels with one thread and with all cores. Peers and OpenVINO come with `pip install -e '.[bench]'`; what is not installed is said so.
Writes benchmarks/results/onnx_speed.json.
"""

import argparse
import json
from pathlib import Path

from peer_networks import PEERS

from lesion_seg.benchmark import ALL_RUNTIMES, benchmark_bundle, benchmark_table
from lesion_seg.bundle import SHIPPED, code_commit
from lesion_seg.core import cores

RESULT = Path(__file__).resolve().parent / "results" / "onnx_speed.json"


def claims(rows: dict) -> dict[str, float]:
    "Ratios of median latencies."
    ms = {k: r["milliseconds"]["median"] for k, r in rows.items() if "milliseconds" in r}
    pairs = dict(onnx_over_torch=("torch eager", "onnx float"), int8_over_torch=("torch eager", "onnx int8"), int8_over_onnx=("onnx float", "onnx int8"),
                 int8_over_classic=("classic unet", "onnx int8"), onnx_over_classic=("classic unet", "onnx float"))
    return {k: round(ms[a] / ms[b], 2) for k, (a, b) in pairs.items() if a in ms and b in ms}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=SHIPPED)
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    found = dict(command=f"python benchmarks/onnx_speed.py --rounds {args.rounds}", commit=code_commit())
    for key, threads in (("one_thread", 1), ("at_256", cores())):
        result = benchmark_bundle(args.bundle, ALL_RUNTIMES | PEERS, threads, 256, args.rounds, batch=4, warm_up=3)
        print(benchmark_table(result), claims(result["rows"]), sep="\n", flush=True)
        found |= {key: result | dict(ratios=claims(result["rows"]))}
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
