"Runtimes in turns: the clock, the order, what is said of a runtime that fails."
import json
import sys

import pytest
import torch

from lesion_seg.benchmark import ALL_RUNTIMES, benchmark_bundle, benchmark_table, spread
from lesion_seg.bundle import save_bundle
from lesion_seg.cli import main
from lesion_seg.onnx import export_onnx
from lesion_seg.unet import UNet

MODULE = '''
import os, time
from pathlib import Path
from lesion_seg.benchmark import Ready
LOG = Path(__file__).with_name('turns')
def sleeper(name, seconds):
    def predict(batch):
        with LOG.open('a') as f: f.write(name + str(len(batch)) + ' ')
        time.sleep(seconds * len(batch))
    return Ready(predict, 1_500_000)
def short(bundle, threads): return sleeper('s', .01)
def long(bundle, threads):
    print('libraries are chatty')
    return sleeper('l', .04)
def absent(bundle, threads): import no_such_runtime
def hungry(bundle, threads):
    ballast = bytearray(200_000_000)
    for i in range(0, len(ballast), 4096): ballast[i] = 1
    return Ready(lambda batch: len(ballast), 1)
'''


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    torch.manual_seed(0)
    small = save_bundle(tmp_path_factory.mktemp('b') / 'tiny', UNet((8,), 8), size=64)
    export_onnx(small, opset=17)  # its exporter is the quick one
    return small.path


@pytest.mark.slow
def test_all_take_turns_and_the_clock_is_right(bundle, tmp_path, monkeypatch):
    (tmp_path / 'sleepers.py').write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ('short', 'long', 'absent', 'hungry')
    result = benchmark_bundle(bundle, {n: f'sleepers:{n}' for n in names}, threads=1, size=32, rounds=4, batch=3,
                              warm_up=1)
    rows = result['rows']
    assert (tmp_path / 'turns').read_text().split() == ['s1', 'l1'] * (1 + 1 + 4) + ['s3', 'l3'] * (2 + 3)
    assert rows['short']['milliseconds']['min'] >= 10 and rows['long']['milliseconds']['min'] >= 40
    assert rows['long']['images_per_second'] <= 25 and rows['long']['file_mb'] == 1.5
    assert 'no_such_runtime' in rows['absent']['missing'] and 'no_such_runtime' in benchmark_table(result)
    if sys.platform == 'linux': assert rows['hungry']['peak_memory_mb'] - rows['short']['peak_memory_mb'] > 150


def test_spread_by_hand():
    assert spread([.004, .001, .003, .002]) == dict(mean=2.5, std=1.291, min=1., median=2.5, p95=3.85, max=4.)
    assert spread([.002])['std'] == 0


def test_the_command_line(bundle, tmp_path, capsys):
    assert main(['benchmark', str(bundle), '--only', 'onnx float, onnx int8', '--rounds', '2', '--size', '64', '-o',
                 str(tmp_path / 'b.json'), '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / 'b.json').read_text()) == result and list(result['rows']) == ['onnx float',
        'onnx int8']
    assert result['rows']['onnx float']['milliseconds']['median'] > 0
    assert '--quantize static' in result['rows']['onnx int8']['missing']
    assert main(['benchmark', str(bundle), '--only',
                 'abacus']) == 2 and ', '.join(ALL_RUNTIMES) in capsys.readouterr().err
