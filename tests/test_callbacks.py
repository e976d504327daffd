"What a training does beside gradient descent: scores, precision, files that notice damage, history, schedules."
import json
import stat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner, Metric
from fastai.optimizer import Adam
from safetensors.torch import load_file, save
from torch import nn

from lesion_seg import callbacks
from lesion_seg.callbacks import (
    BEST, CHECKPOINT, HISTORY, TENSORBOARD, Checkpoint, CPUBFloat16, History, KeepBest, OneCycle, PerImage, Run,
    SeedEpoch, batch_scores, choose_precision, cpu_has_bf16, precision_callbacks, read_state, read_tensors,
    schedule_callbacks, write_tensors)
from lesion_seg.core import InputError, refuses
from lesion_seg.loss import DiceBCELoss


class Squares:
    "Bright squares on noise."
    def __init__(self, seed):
        rng = torch.Generator().manual_seed(seed)
        self.y = torch.zeros(8, 16, 16, dtype=torch.long)
        self.y[:, 4:12, 4:12] = 1
        self.x = torch.randn(8, 1, 16, 16, generator=rng) + 2 * self.y[:, None]

    def __len__(self): return 8
    def __getitem__(self, i): return self.x[i], self.y[i]


class Dictated(Metric):
    "A validation Jaccard that somebody wrote down before."
    def __init__(self, *scores): self.scores = scores
    def accumulate(self, learn): self.now = self.scores[learn.epoch]
    @property
    def value(self): return self.now
    @property
    def name(self): return 'jaccard'


def toy(metric=None, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1),
                          nn.Sequential(nn.ReLU(), nn.Dropout(.3), nn.Conv2d(4, 1, 3, padding=1)))
    dls = DataLoaders(DataLoader(Squares(1), bs=3), DataLoader(Squares(2), bs=3), device='cpu')
    return Learner(dls, model, loss_func=DiceBCELoss(), opt_func=Adam, metrics=[metric or PerImage('jaccard', 1)],
                   splitter=lambda m: [list(part.parameters()) for part in m])


def train(learn, epochs, *cbs, lr=.01):
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, lr, cbs=cbs)
    return learn


def run_in(folder: Path, epochs=3, **kw):
    folder.mkdir(exist_ok=True)
    return Run(folder, epochs, **kw)


# ------------------------------------------------------------------------------------------ scores
def test_dice_and_jaccard_are_tied():
    torch.manual_seed(0)
    logits, target = torch.randn(6, 1, 9, 9), torch.rand(6, 1, 9, 9) > .5
    dice, jaccard = batch_scores(logits, target)
    assert torch.allclose(dice, 2 * jaccard / (1 + jaccard), atol=1e-6)
    assert torch.equal(batch_scores(logits, target[:, 0])[1], jaccard)
    assert batch_scores(torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2))[1].item() == 1 # a logit of 0 is lesion


def test_batch_scores_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    logits, target = torch.randn(7, 1, 16, 16), torch.randint(0, 2, (7, 16, 16))
    apart = torch.cat([batch_scores(logits[i:i + 1], target[i:i + 1])[1] for i in range(7)])
    assert torch.equal(batch_scores(logits, target)[1], apart)


def test_batch_scores_agree_with_the_metrics_module():
    from lesion_seg.metrics import score_pair
    torch.manual_seed(1)
    logits, target = torch.randn(5, 1, 16, 16), torch.randint(0, 2, (5, 16, 16))
    dice, jaccard = batch_scores(logits, target)
    for i in range(5):
        scores = score_pair((logits[i, 0] >= 0).numpy(), target[i].numpy().astype(bool))
        assert abs(scores['dice'] - dice[i].item()) < 1e-6 and abs(scores['jaccard'] - jaccard[i].item()) < 1e-6


def test_a_metric_without_images_has_no_value():
    metric = PerImage('jaccard', 1)
    metric.reset()
    assert metric.value is None and metric.name == 'jaccard'


# ------------------------------------------------------------------------------------------ precision
@pytest.mark.parametrize('avx512, amx, expected', [(True, False, True), (False, True, True), (False, False, False)])
def test_bfloat16_is_asked_of_the_cpu(monkeypatch, avx512, amx, expected):
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: avx512)
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: amx)
    assert cpu_has_bf16() is expected
    assert choose_precision('auto', torch.device('cpu')) == ('bf16' if expected else 'fp32')


def test_precisions_by_device():
    cpu, cuda = torch.device('cpu'), torch.device('cuda')
    assert [type(cb) for cb in precision_callbacks('fp32', cpu)] == [type(cb) for cb in precision_callbacks('fp32',
        cuda)] == [ChannelsLast]
    assert choose_precision('auto', cuda) == 'fp16'
    assert 'needs a CUDA device' in refuses(precision_callbacks, 'fp16', cpu)
    assert 'choose one of auto, fp32, bf16, fp16' in refuses(precision_callbacks, 'int8', cpu)


def test_bfloat16_leaves_nothing_behind():
    learn = train(toy(), 1, CPUBFloat16())
    assert {p.dtype for p in learn.model.parameters()} == {torch.float32} and not torch.is_autocast_enabled('cpu')


# ------------------------------------------------------------------------------------------ files
def test_texts_may_look_like_a_digest(tmp_path):
    "The digest's place is found by its quotes, which are escaped inside other texts."
    text = json.dumps({callbacks.DIGEST: 'f' * 64})
    write_tensors(tmp_path / 'w', {callbacks.DIGEST: torch.arange(3)}, state=text, note=f'"{callbacks.DIGEST}":"')
    tensors, texts = read_tensors(tmp_path / 'w')
    assert tensors[callbacks.DIGEST].tolist() == [0, 1, 2] and texts == dict(state=text, note=f'"{callbacks.DIGEST}":"')


def test_the_digest_is_that_of_the_file_with_zeros_in_its_place(tmp_path):
    import hashlib
    write_tensors(tmp_path / 'w', {'w': torch.ones(2)})
    data = (tmp_path / 'w').read_bytes()
    digest = json.loads(data[8:8 + int.from_bytes(data[:8], 'little')])['__metadata__'][callbacks.DIGEST]
    assert digest == hashlib.sha256(data.replace(digest.encode(), b'0' * 64)).hexdigest()
    assert load_file(tmp_path / 'w')['w'].tolist() == [1, 1], 'other programs can read it'


def test_damaged_and_foreign_checkpoints_are_named(tmp_path):
    run = run_in(tmp_path / 'run')
    train(toy(), 1, SeedEpoch(run), History(run), Checkpoint(run))
    good, bad = (tmp_path / 'run' / CHECKPOINT).read_bytes(), tmp_path / 'bad'
    for content in (good[:-50], good[:100], b'', b'PK\3\4', save({'x': torch.zeros(1)})):
        bad.write_bytes(content)
        assert refuses(read_state, bad).startswith(f'{bad}: is damaged')
    assert 'does not exist' in refuses(read_state, tmp_path / 'absent')
    write_tensors(bad, {'x': torch.zeros(1)}) # whole, and without a state
    assert 'is not a checkpoint' in refuses(read_state, bad)
    for state in (dict(epoch=2, rows=[], settings={}, data={}), dict(epoch=1, rows=[{'a': 'x'}], settings={}, data={}),
                  [1]):
        write_tensors(bad, {}, state=json.dumps(state))
        assert 'is not a checkpoint' in refuses(read_state, bad)


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path):
    run = run_in(tmp_path / 'run', 1)
    train(toy(), 1, SeedEpoch(run), History(run), Checkpoint(run))
    good = (run.folder / CHECKPOINT).read_bytes()
    run.settings = {'not JSON': {1}}
    with pytest.raises(TypeError, match='not JSON serializable'): train(toy(), 1, History(run), Checkpoint(run))
    assert (run.folder / CHECKPOINT).read_bytes() == good
    assert sorted(p.name for p in run.folder.iterdir()) == [CHECKPOINT, HISTORY]
    modes = {stat.S_IMODE(p.stat().st_mode) for p in run.folder.iterdir()}
    assert len(modes) == 1, 'readable for whoever may read the history'


def test_a_checkpoint_of_another_network_is_a_sentence(tmp_path):
    run = run_in(tmp_path / 'run', 1)
    train(toy(), 1, SeedEpoch(run), History(run), Checkpoint(run), KeepBest(run))
    other = nn.Conv2d(1, 1, 1)
    assert 'is of another training (RuntimeError)' in refuses(callbacks.load_best, other, run.folder)
    learn = toy()
    learn.model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1))
    again = Run(run.folder, 2, start=1)
    with pytest.raises(InputError, match='is of another training'): train(learn, 1, Checkpoint(again))


# ------------------------------------------------------------------------------------------ history
def test_history_in_every_form(tmp_path):
    events = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    reported: list[dict] = []
    run = run_in(tmp_path / 'run', 2)
    learn = train(toy(), 2, SeedEpoch(run), History(run, tensorboard=True, report=reported.append))
    history = pd.read_csv(run.folder / HISTORY, float_precision='round_trip')
    assert history.to_dict('records') == run.rows == reported
    assert history.valid_loss.tolist() == pytest.approx([v[1] for v in learn.recorder.values])
    assert history.jaccard.iloc[-1] == pytest.approx(learn.validate()[1])
    seen = events.EventAccumulator(str(run.folder / TENSORBOARD)).Reload()
    assert [e.value for e in seen.Scalars('jaccard')] == pytest.approx(history.jaccard)
    assert set(seen.Tags()['scalars']) == set(history.columns) - {'epoch'}


def test_only_the_first_process_writes_and_speaks(tmp_path):
    said: list[str] = []
    run = run_in(tmp_path / 'run', 2, writes=False, say=said.append)
    train(toy(), 2, SeedEpoch(run), History(run, report=lambda row: said.append('row')), Checkpoint(run))
    run.tell('hello')
    assert said == [] and list(run.folder.iterdir()) == []


class Slow(Callback):
    "Time passes: each epoch begins `seconds` ago."
    order = History.order + 1
    def __init__(self, history, seconds): self.history, self.seconds = history, seconds
    def after_train(self): self.history.begin -= self.seconds


@pytest.mark.parametrize('seconds, expected', [(5, []), (100, ['about 5 min left, at 2 min an epoch'])])
def test_after_the_first_epoch_the_rest_is_estimated(tmp_path, seconds, expected):
    said: list[str] = []
    run = run_in(tmp_path / 'run', 4, say=said.append)
    history = History(run)
    train(toy(), 4, history, Slow(history, seconds))
    assert said == expected


# ------------------------------------------------------------------------------------------ schedules
def plateau(folder, *scores, start=0, **kw):
    "What is said under dictated scores, and the learning rates."
    said: list[str] = []
    run = run_in(folder, start + len(scores), start=start, say=said.append)
    train(toy(Dictated(*scores)), len(scores), History(run), *schedule_callbacks('plateau', run, **kw), lr=.1)
    return said, [r['lr'] for r in run.rows], run


def test_messages_count_from_the_first_epoch_and_from_one(tmp_path):
    said, rates, run = plateau(tmp_path / 'a', .5, .5, .4, .6, .6005, .6, .6, .7, lr_patience=2, patience=3)
    assert said == ['epoch 3: learning rate lowered to 0.05', 'epoch 6: learning rate lowered to 0.025',
                    'epoch 7: no progress since epoch 4, so the training ends here']
    assert rates == pytest.approx([.1, .1, .1, .05, .05, .05, .025]) and run.stopped and run.done
    said, _, _ = plateau(tmp_path / 'b', .5, .5, .5, start=10, lr_patience=5, patience=2) # resumed after ten epochs
    assert said == ['epoch 13: no progress since epoch 11, so the training ends here']


def test_the_rate_has_a_floor_and_one_cycle_has_no_patience(tmp_path):
    said, rates, _ = plateau(tmp_path / 'a', .5, .5, .5, .5, .5, lr_patience=1, lr_factor=.1, min_lr=.005)
    assert rates == pytest.approx([.1, .1, .01, .005, .005]) and len(said) == 2, 'a rate that stays is not announced'
    run = run_in(tmp_path / 'b')
    assert [type(cb) for cb in schedule_callbacks('one_cycle', run)] == [OneCycle]
    assert 'choose one of plateau, one_cycle' in refuses(schedule_callbacks, 'sawtooth', run)


def test_one_cycle_is_that_of_fastai(tmp_path):
    class Rates(Callback):
        seen: list[float] = []
        def after_batch(self):
            if self.training: self.seen.append(self.opt.hypers[-1]['lr'])
    ours, theirs = Rates(), toy()
    train(toy(), 8, OneCycle(run_in(tmp_path / 'a', 8)), ours, lr=.1)
    with theirs.no_bar(), theirs.no_logging():
        theirs.fit_one_cycle(8, .1, div=25, div_final=1e4, pct_start=.25, moms=(.95, .85, .95))
    assert ours.seen == pytest.approx(theirs.recorder.lrs) and int(np.argmax(ours.seen)) == 6


def test_seeds_by_epoch(tmp_path):
    def numbers(seed, start, epoch):
        cb = SeedEpoch(Run(tmp_path, 9, seed, start=start))
        cb.learn = SimpleNamespace(epoch=epoch, dls=SimpleNamespace(train_ds=SimpleNamespace()))
        cb.before_epoch()
        return torch.rand(3).tolist(), cb.learn.dls.train_ds.epoch
    assert numbers(42, 0, 4) == numbers(42, 4, 0)
    assert len({tuple(numbers(s, 0, e)[0]) for s in (42, 43) for e in range(5)}) == 10


def test_the_best_epoch_is_in_a_file_that_can_be_checked(tmp_path):
    run = run_in(tmp_path / 'run')
    train(toy(Dictated(.2, .6, .4)), 3, KeepBest(run))
    assert read_tensors(run.folder / BEST)[1] == {'epoch': '1'}
