"""Training beyond the notebook: kill -9, a run that ended, files that changed, starts, spawned processes."""
import importlib.util
import json

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from fastai.callback.core import Callback
from safetensors.torch import load_file
from torch import nn

from lesion_seg.bundle import Bundle, revise
from lesion_seg.callbacks import BEST, BUNDLE, CHECKPOINT, HISTORY, read_state, read_tensors, seal
from lesion_seg.core import InputError, refuses, sha256
from lesion_seg.loaders import lesion_dls
from lesion_seg.loss import DiceBCELoss
from lesion_seg.manifest import Manifest
from lesion_seg.phantom import write_phantoms
from lesion_seg.train import data_digests, differences, fit, lesion_learner, train_model
from lesion_seg.unet import UNet

SCRIPT = """
import sys
from lesion_seg.manifest import Manifest
from lesion_seg.train import train_model
train_model(Manifest.load(sys.argv[1]), sys.argv[2], dict(name="unet", channels=(8, 16), bottleneck=32, dropout=.2),
            size=64, bs=4, epochs=5, lr=5e-3, schedule="one_cycle", num_workers=1, progress=False)
"""
TINY = dict(model=dict(name='unet', channels=(4, 8), bottleneck=16), size=32, bs=4, epochs=2, num_workers=0,
            progress=False)


REMEDY = 'put the old one back, or start anew with `resume=False`'


def quiet(sentence): pass


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    return write_phantoms(folder, n=32, size=64, seed=5).split((0.5, 0.25, 0.25), seed=0).save(folder / 'split.csv')


@pytest.fixture(scope='module')
def manifest(table): return Manifest.load(table)


@pytest.fixture
def own(tmp_path):
    "A small manifest whose files a test may change."
    return write_phantoms(tmp_path / 'own', n=16, size=32, seed=6).split((0.5, 0.25, 0.25), seed=0)


def files(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256(p) for p in folder.rglob('*') if p.is_file()}


def start(table: Path, folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', SCRIPT, str(table), str(folder)],
                            stdout=subprocess.DEVNULL, start_new_session=True)


# ------------------------------------------------------------------------------------------ interruptions
@pytest.mark.slow
def test_kill_9_and_resume_gives_the_same_weights(table, tmp_path):
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    assert start(table, whole).wait(300) == 0
    run = start(table, cut)
    for _ in range(15_000):
        if (cut / CHECKPOINT).exists() and read_state(cut / CHECKPOINT)['epoch'] >= 2: break
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert 2 <= read_state(cut / CHECKPOINT)['epoch'] < 5, 'the training was killed before its end'
    assert start(table, cut).wait(300) == 0
    a, b = load_file(whole / CHECKPOINT), load_file(cut / CHECKPOINT)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert Bundle.load(whole / BUNDLE).info['weights_sha256'] == Bundle.load(cut / BUNDLE).info['weights_sha256']
    assert not [p for p in cut.rglob('*') if p.suffix in ('.pkl', '.pth', '.pt')]
    assert {CHECKPOINT, BEST, HISTORY, BUNDLE} == {p.name for p in cut.iterdir()}, 'no half-written file is left'


class Plug(Callback):
    "Raise in the middle of an epoch."
    def __init__(self, epoch): self.at = epoch
    def before_batch(self):
        if self.epoch == self.at and self.training and self.iter == 1: raise KeyboardInterrupt


def small_learner(manifest, precision='fp32', seed=0, size=64, loss=None):
    torch.manual_seed(seed)
    return lesion_learner(lesion_dls(manifest, size=size, bs=4, num_workers=0), UNet((4, 8), 16, .2), loss, precision)


def fit_small(manifest, folder, plug=None, seed=0, learn=None, epochs=4, say=quiet, **kw):
    learn = learn or small_learner(manifest, seed=seed)
    if plug is not None: learn.add_cb(Plug(plug))
    with learn.no_bar(), learn.no_logging(): return fit(learn, epochs, folder, lr=5e-3, say=say, **kw)


@pytest.mark.parametrize('plug', [1, 3], ids=['before the thaw', 'after it'])
def test_plateau_and_a_frozen_start_resume_to_the_same_state(manifest, tmp_path, plug):
    settings = dict(lr_patience=1, patience=9, min_delta=.5, freeze_epochs=2, average=.9)
    said: list[str] = []
    fit_small(manifest, tmp_path / 'whole', say=said.append, **settings)
    with pytest.raises(KeyboardInterrupt): fit_small(manifest, tmp_path / 'cut', plug=plug, **settings)
    fit_small(manifest, tmp_path / 'cut', seed=7, **settings)
    a, b = (read_tensors(tmp_path / k / CHECKPOINT)[0] for k in ('whole', 'cut'))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    # no epoch after the first counts as progress, so the rate is halved after each
    assert read_state(tmp_path / 'cut' / CHECKPOINT)['hypers'][-1]['lr'] == pytest.approx(5e-3 / 2**3)
    assert [s for s in said if 'lowered' in s] == [f'epoch {n}: learning rate lowered to {5e-3 / 2**(n - 1):.3g}'
                                                   for n in (2, 3, 4)]


def test_the_encoder_holds_still_while_frozen(manifest, tmp_path):
    learn = small_learner(manifest)
    born = learn.model.down[0][0].weight.detach().clone()
    fit_small(manifest, tmp_path / 'frozen', learn=learn, epochs=1, freeze_epochs=1)
    assert torch.equal(born, learn.model.down[0][0].weight)


def test_a_resume_says_where_it_goes_on(manifest, tmp_path):
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt): fit_small(manifest, tmp_path / 'run', plug=2, say=said.append)
    assert len(said) == 1
    assert said[0].startswith('training on CPU in fp32: 16 photographs, 8 for validation, 64 x 64 pixels;')
    fit_small(manifest, tmp_path / 'run', say=said.append)
    assert said[2:] == ['going on at epoch 3 of 4']


def test_a_network_that_raises_leaves_nothing_switched_on(manifest, tmp_path):
    learn = small_learner(manifest, 'bf16')
    learn.model.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError): fit_small(manifest, tmp_path / 'run', learn=learn)
    assert not torch.is_autocast_enabled('cpu')


# ------------------------------------------------------------------------------------------ a run that ended
def test_a_finished_run_is_returned_untouched(manifest, tmp_path):
    "Threshold, temperature, review, largest and ONNX files of a calibrated bundle survive the same call."
    from lesion_seg.onnx import export_onnx
    said: list[str] = []
    bundle = train_model(manifest, tmp_path / 'run', **TINY, say=said.append)
    revise(bundle, threshold=.37, temperature=1.7, largest=True, review=dict(score='doubt', threshold=.2),
           metrics=dict(calibration=dict(n=3)))
    export_onnx(Bundle.load(bundle.path), opset=17)
    (tmp_path / 'run' / BUNDLE / 'model_card.md').write_text('# mine')
    before = files(tmp_path / 'run')
    assert 'bundle/model.onnx' in before
    again = train_model(manifest, tmp_path / 'run', **TINY, say=said.append)
    assert files(tmp_path / 'run') == before and said[1:] == ['finished; nothing to do']
    assert (again.threshold, again.temperature, again.largest, again.info['review']['score']) == (.37, 1.7, True,
        'doubt')


def test_a_run_that_stopped_early_is_finished_too(manifest, tmp_path):
    said: list[str] = []
    bundle = fit_small(manifest, tmp_path / 'run', epochs=10, patience=2, min_delta=.9, say=said.append)
    before = files(tmp_path / 'run')
    again = fit_small(manifest, tmp_path / 'run', epochs=10, patience=2, min_delta=.9, seed=5, say=said.append)
    assert bundle.info['training']['epochs_done'] == again.info['training']['epochs_done'] == 3
    assert files(tmp_path / 'run') == before
    assert said[1:] == ['epoch 3: no progress since epoch 1, so the training ends here', 'finished; nothing to do']


def test_a_bundle_that_is_missing_or_of_an_earlier_run_is_written(manifest, tmp_path):
    first = fit_small(manifest, tmp_path / 'run', epochs=2)
    digest = first.info['weights_sha256']
    for p in (tmp_path / 'run' / BUNDLE).iterdir(): p.unlink()
    said: list[str] = []
    again = fit_small(manifest, tmp_path / 'run', epochs=2, seed=3, say=said.append)
    assert again.info['weights_sha256'] == digest
    assert said == ['finished; only its bundle was missing']
    weights = tmp_path / 'run' / BUNDLE / 'model.safetensors'
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-9])
    sentence = refuses(fit_small, manifest, tmp_path / 'run', epochs=2)
    assert sentence.endswith('delete it; the same command writes it again')
    weights.write_bytes(whole)
    # another run in the same folder, killed before it wrote its bundle
    with pytest.raises(RuntimeError, match='killed'):
        with pytest.MonkeyPatch.context() as m:
            m.setattr('lesion_seg.train.save_run', lambda *a: (_ for _ in ()).throw(RuntimeError('killed')))
            fit_small(manifest, tmp_path / 'run', epochs=1, average=.5, resume=False)
    other = fit_small(manifest, tmp_path / 'run', epochs=1, average=.5)
    assert other.info['weights_sha256'] != digest and other.info['training']['epochs'] == 1


# ------------------------------------------------------------------------------------------ other settings, other data
@pytest.mark.parametrize('change, expected', [
    (dict(epochs=7), 'epochs 4 -> 7'),
    (dict(schedule='one_cycle'), 'schedule "plateau" -> "one_cycle"'),
    (dict(freeze_epochs=1), 'freeze_epochs 0 -> 1'),
    (dict(encoder_lr=.1), 'encoder_lr 1.0 -> 0.1'),
    (dict(metadata={'licence': 'CC0'}), 'licence (none) -> "CC0"'),
    (dict(seed_of_run=1), 'seed 42 -> 1')])
def test_other_settings_are_named_with_both_values(manifest, tmp_path, change, expected):
    with pytest.raises(KeyboardInterrupt): fit_small(manifest, tmp_path / 'run', plug=1)
    if 'seed_of_run' in change:
        learn = small_learner(manifest)
        with learn.no_bar(), learn.no_logging():
            sentence = refuses(fit, learn, 4, tmp_path / 'run', lr=5e-3, seed=1, say=quiet)
    else: sentence = refuses(fit_small, manifest, tmp_path / 'run', **change)
    assert sentence == (f'{tmp_path / "run"}: holds a run with other settings ({expected}); '
                        'choose another folder, or start anew with `resume=False`')


def test_another_size_or_another_loss_is_another_run(manifest, tmp_path):
    with pytest.raises(KeyboardInterrupt): fit_small(manifest, tmp_path / 'run', plug=1)
    assert '(size 64 -> 96)' in refuses(fit_small, manifest, tmp_path / 'run', learn=small_learner(manifest, size=96))
    sentence = refuses(fit_small, manifest, tmp_path / 'run', learn=small_learner(manifest, loss=DiceBCELoss(1, 0)))
    assert 'other settings (loss ' in sentence and ', size' not in sentence


def test_differences_by_hand():
    # 1 and 1.0 are equal, as is None to nothing
    assert differences(dict(a=1, b=(1, 2), c=None), dict(a=1., b=[1, 2], d='x')) == 'd (none) -> "x"'
    assert differences(dict(text='y' * 99), {}).startswith('text "yyyy') and len(differences(dict(text='y' * 99),
        {})) < 70


def test_a_mask_changed_in_place_stops_a_resume(own, tmp_path):
    with pytest.raises(KeyboardInterrupt): fit_small(own, tmp_path / 'run', plug=1, learn=None)
    pairs = list(own.subset('train'))
    mask, original = Path(pairs[3].mask), Path(pairs[3].mask).read_bytes()
    mask.write_bytes(Path(pairs[0].mask).read_bytes())
    assert refuses(fit_small, own, tmp_path / 'run') == \
        f'{mask}: is not the file that this training began with; {REMEDY}'
    valid = Path(next(iter(own.subset('valid'))).mask)
    changed = valid.read_bytes()
    valid.write_bytes(changed + b'\0')
    assert '(and 1 more)' in refuses(fit_small, own, tmp_path / 'run')
    valid.write_bytes(changed)
    mask.write_bytes(original)
    os.utime(mask) # a new date alone is no change
    assert fit_small(own, tmp_path / 'run').info['training']['epochs_done'] == 4


def test_records_that_were_written_again_stop_a_resume(own, tmp_path):
    from lesion_seg.records import write_records
    records = tmp_path / 'records'
    def learner():
        return lesion_learner(lesion_dls(records, size=32, bs=4, num_workers=0), UNet((4, 8), 16, .2), None, 'fp32')
    write_records(own, records, size=32, shards=1)
    with pytest.raises(KeyboardInterrupt): fit_small(own, tmp_path / 'run', plug=1, learn=learner())
    before = read_state(tmp_path / 'run' / CHECKPOINT)['data']
    shutil.rmtree(records)
    pairs = list(own.subset('train'))
    Path(pairs[3].mask).write_bytes(Path(pairs[0].mask).read_bytes())
    write_records(own, records, size=32, shards=1)
    sentence = refuses(fit_small, own, tmp_path / 'run', learn=learner())
    assert sentence.startswith(f'{records}') and 'is not the file that this training began with; put' in sentence
    now = data_digests([*learner().dls.train_ds.pairs, *learner().dls.valid_ds.pairs])
    assert [k for k in now if now[k] != before[k]] == [pairs[3].id]


def test_the_digest_is_of_names_sizes_and_masks(own, tmp_path):
    import hashlib
    p = list(own)[0]
    def short(*parts): return hashlib.sha256('\n'.join(map(str, parts)).encode()).hexdigest()[:8]
    image, mask = Path(p.image), Path(p.mask)
    assert data_digests([p]) == {p.id: short(image.name, image.stat().st_size) + short(mask.name,
        hashlib.sha256(mask.read_bytes()).hexdigest())}


def test_one_flipped_bit_of_a_run_is_a_sentence(manifest, tmp_path):
    "Not another model, and not 'training diverged'."
    run = tmp_path / 'run'
    with pytest.raises(KeyboardInterrupt): fit_small(manifest, run, plug=2)
    for name in (CHECKPOINT, BEST):
        if name == BEST: # which the end of the run needs
            fit_small(manifest, run)
            (run / BUNDLE / 'bundle.json').unlink()
        whole = (run / name).read_bytes()
        for at in (len(whole) - 3, len(whole) // 2, 40):
            (run / name).write_bytes(whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1:])
            assert refuses(fit_small, manifest, run).startswith(f'{run / name}: is damaged')
        (run / name).write_bytes(whole[:1000] + bytes(500) + whole[1500:])
        assert refuses(fit_small, manifest, run).startswith(f'{run / name}: is damaged')
        (run / name).write_bytes(whole)


# ------------------------------------------------------------------------------------------ starts
def test_a_training_starts_from_a_run_a_bundle_and_the_shipped_model(manifest, tmp_path):
    said: list[str] = []
    first = train_model(manifest, tmp_path / 'first', **TINY | dict(augs='robust', licence='CC0-1.0'), say=quiet)
    further = dict(epochs=1, bs=4, num_workers=0, progress=False, lr=1e-12, say=said.append)
    for i, origin in enumerate((tmp_path / 'first', first, str(first.path))):
        second = train_model(manifest, tmp_path / f'second{i}', start=origin, **further)
        assert second.architecture == first.architecture and second.size == 32
        assert {k: second.info['training'][k] for k in ('augs', 'licence', 'start')} == \
            dict(augs='robust', licence='CC0-1.0', start=first.info['weights_sha256'])
        was, now = (dict(b.model().named_parameters()) for b in (first, second))
        assert all(torch.allclose(was[k], now[k], atol=1e-6) for k in was)
    assert all(s.endswith(f'weights of {first.path}') for s in said)
    changed = train_model(manifest, tmp_path / 'third', start=first, size=64, augs='none', licence='MIT', **further)
    assert (changed.size, changed.info['training']['augs'], changed.info['training']['licence']) == (64, 'none', 'MIT')


@pytest.mark.slow
def test_a_training_starts_from_the_shipped_model(manifest, tmp_path):
    said: list[str] = []
    bundle = train_model(manifest, tmp_path / 'run', start='shipped', size=64, epochs=1, bs=4, num_workers=0,
                         progress=False, lr=1e-12, say=said.append)
    shipped = Bundle.shipped()
    assert bundle.architecture == shipped.architecture and bundle.info['training']['augs'] == 'robust'
    assert bundle.info['training']['start'] == shipped.info['weights_sha256']
    assert said[0].endswith('weights of the shipped model')
    was, now = (dict(b.model().named_parameters()) for b in (shipped, bundle))
    assert all(torch.allclose(was[k], now[k], atol=1e-3) for k in was)


def test_a_start_of_another_architecture_is_a_sentence(manifest, tmp_path):
    first = train_model(manifest, tmp_path / 'first', **TINY, say=quiet)
    other = TINY | dict(model=TINY['model'] | dict(bottleneck=8))
    sentence = refuses(train_model, manifest, tmp_path / 'other', start=first, **other)
    assert sentence.startswith(f'start {first.path}: is of another architecture (bottleneck 16 -> 8); leave the')
    assert 'no bundle.json' in refuses(train_model, manifest, tmp_path / 'other', start=tmp_path / 'nowhere', **TINY)


# ------------------------------------------------------------------------------------------ what goes in
class Count(Callback):
    n = 0
    def after_batch(self): self.n += self.training


def test_callbacks_of_ones_own(manifest, tmp_path):
    count = Count()
    bundle = train_model(manifest, tmp_path / 'run', **TINY, cbs=[count], say=quiet)
    assert count.n == 2 * 4 and bundle.info['training']['callbacks'] == ['Count']
    assert 'callbacks ["Count"] -> (none)' in refuses(train_model, manifest, tmp_path / 'run', **TINY, say=quiet)


@pytest.mark.parametrize('loss', ['tversky_bce', dict(name='tversky', alpha=.3, beta=.7)],
                         ids=['a name', 'a name with options'])
def test_a_loss_by_its_name(manifest, tmp_path, loss):
    from lesion_seg.loss import make_loss
    bundle = train_model(manifest, tmp_path / 'run', **TINY | dict(epochs=1), loss=loss, say=quiet)
    expected = make_loss(**loss) if isinstance(loss, dict) else make_loss(loss)
    assert bundle.info['training']['loss'] == repr(expected) != repr(DiceBCELoss())
    assert "loss 'hinge': is not known; choose one of " in refuses(train_model, manifest, tmp_path / 'other', **TINY,
                                                                   loss='hinge')


def test_settings_without_effect_are_named(manifest, tmp_path):
    said: list[str] = []
    train_model(manifest, tmp_path / 'a', **TINY | dict(epochs=1), schedule='one_cycle', patience=3, min_delta=.1,
                say=said.append)
    assert "without effect under the schedule 'one_cycle': min_delta, patience" in said
    train_model(manifest, tmp_path / 'b', **TINY | dict(epochs=1, bs=99), say=said.append)
    assert 'the batch size 99 is larger than the 16 training photographs, which are one batch' in said
    unet = TINY | dict(model=TINY['model'] | dict(pretrained=True))
    assert refuses(train_model, manifest, tmp_path / 'c', **unet) == \
        "pretrained: is not for the model 'unet', which has no such encoder; leave it out, or choose 'lesion_unet'"
    said.clear()
    tiny = dict(name='lesion_unet', decoder=[8, 8, 8, 8])
    first = train_model(manifest, tmp_path / 'd', **TINY | dict(model=tiny, epochs=1, say=quiet))
    again = TINY | dict(model=tiny | dict(pretrained=True), epochs=1, say=said.append)
    assert train_model(manifest, tmp_path / 'e', start=first, **again).info['training']['pretrained'] == 'False'
    assert said[0] == 'without effect, since the training starts from a trained model: pretrained'


@pytest.mark.parametrize('model', [dict(name='unet', pretrained=True), dict(name='unet', encoder='resnet18')])
def test_a_setting_that_a_model_does_not_have_is_a_sentence(manifest, tmp_path, model):
    assert list(model)[1] in refuses(train_model, manifest, tmp_path / 'run', **TINY | dict(model=model), say=quiet)


@pytest.mark.parametrize('model', [dict(name='unet', channels=(4, 8, 16, 16, 16), bottleneck=16),
                                   dict(name='lesion_unet', decoder=[16, 16, 8, 8])])
def test_a_batch_of_one_at_32_pixels_is_a_sentence_or_works(manifest, tmp_path, model):
    args = TINY | dict(model=model, bs=1, epochs=1, say=quiet)
    sentence = refuses(train_model, manifest, tmp_path / 'run', **args)
    assert sentence == ('a batch of one image of 32 x 32 pixels: leaves batch normalisation nothing to compare; '
                        'put at least two images into a batch, or train at a larger size')
    assert train_model(manifest, tmp_path / 'run2', **args | dict(bs=2)).info['training']['epochs_done'] == 1
    assert train_model(manifest, tmp_path / 'run3',
                       **args | dict(model=TINY['model'])).info['training']['epochs_done'] == 1


def test_any_network_with_one_channel_of_logits(manifest, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    learn = lesion_learner(lesion_dls(manifest, size=32, bs=4, num_workers=0), network, precision='fp32')
    bundle = fit_small(manifest, tmp_path / 'run', learn=learn, epochs=1)
    x = torch.randn(1, 3, 32, 32)
    assert torch.allclose(bundle.model()(x), network.eval()(x))
    before = files(tmp_path / 'run')
    again = fit_small(manifest, tmp_path / 'run', learn=learn, epochs=1)
    assert files(tmp_path / 'run') == before and torch.allclose(again.model()(x), network(x))


SPAWN = """
import multiprocessing, sys
from lesion_seg.manifest import Manifest
from lesion_seg.train import train_model
if __name__ == '__main__':
    multiprocessing.set_start_method(sys.argv[1])
    train_model(Manifest.load(sys.argv[2]), sys.argv[3], dict(name='unet', channels=(4, 8), bottleneck=16), size=32,
                bs=8, epochs=1, num_workers=1, progress=False, say=lambda sentence: None)
"""


@pytest.mark.slow
@pytest.mark.parametrize('method', ['spawn', 'forkserver'])
def test_one_epoch_where_processes_are_spawned(table, manifest, tmp_path, method):
    "As on macOS and Windows, and with Python 3.14."
    (tmp_path / 'program.py').write_text(SPAWN)
    done = subprocess.run([sys.executable, '-W', 'ignore', tmp_path / 'program.py', method, table, tmp_path / 'run'],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    here = train_model(manifest, tmp_path / 'here', **TINY | dict(bs=8, epochs=1), say=quiet)
    assert Bundle.load(tmp_path / 'run' / BUNDLE).info['weights_sha256'] == here.info['weights_sha256']


def test_loaders_can_be_sent_to_another_process(manifest):
    "Quick, so that every run of the tests sees it."
    import pickle
    dls = lesion_dls(manifest, size=32, bs=4, num_workers=1)
    for dl in dls: pickle.loads(pickle.dumps(dl.fake_l))  # noqa: S301 - what fastai hands to a loading process


def test_a_manifest_keeps_its_digest_through_a_table(manifest, tmp_path):
    assert Manifest.load(manifest.save(tmp_path / 'split.csv')).digest == manifest.digest


# ------------------------------------------------------------------------------------------ the mean of weights
def test_the_mean_of_weights_of_the_trials(manifest, tmp_path):
    spec = importlib.util.spec_from_file_location('mean_weights',
                                                  Path(__file__).parent.parent / 'model' / 'trials' / 'mean_weights.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    bundles = [train_model(manifest, tmp_path / str(seed), **TINY | dict(epochs=1, seed=seed),
                           say=quiet) for seed in (1, 2)]
    mean = module.mean_weights(bundles)
    a, b, c = (next(m.parameters()) for m in (*(x.model() for x in bundles), mean))
    assert torch.allclose(c, (a + b) / 2) and not mean.training
    grey = torch.full((2, 3, 32, 32), .5) # of one colour: batch norm's mean is what the first convolution makes of it
    mean = module.mean_weights(bundles, [(grey, None)])
    assert torch.allclose(mean.down[0][1].running_mean, mean.down[0][0](grey).mean((0, 2, 3)), atol=1e-4)
    wider = train_model(manifest, tmp_path / 'wider',
                        **TINY | dict(epochs=1, model=TINY['model'] | dict(bottleneck=8)), say=quiet)
    assert 'another architecture' in refuses(module.mean_weights,
                                             [bundles[0], wider]) and 'at least one' in refuses(module.mean_weights, [])


# ------------------------------------------------------------------------------------------ checkpoints that mean harm
def with_state(whole: bytes, change) -> bytes:
    "A checkpoint with another state in its header, and the right digest."
    n = int.from_bytes(whole[:8], 'little')
    header = json.loads(whole[8:8 + n])
    header['__metadata__']['state'] = change(json.loads(header['__metadata__']['state']))
    text = json.dumps(header, separators=(',', ':')).encode()
    return seal(len(text).to_bytes(8, 'little') + text + whole[8 + n:])


def places(value, path=()):
    "The path of every value in a tree."
    yield path
    for k, v in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(v, (*path, k))


def replaced(state, path, value):
    tree = json.loads(json.dumps(state))
    if not path: return json.dumps(value)
    at = tree
    for k in path[:-1]: at = at[k]
    if value is ...: del at[path[-1]]
    else: at[path[-1]] = value
    return json.dumps(tree)


@pytest.mark.slow
def test_a_checkpoint_with_the_right_digest_and_a_wrong_state(manifest, tmp_path):
    "Each value in turn is missing or of another kind: a sentence that names a file, or a training that ends."
    import random
    run, rng = tmp_path / 'run', random.Random(0)
    with pytest.raises(KeyboardInterrupt): fit_small(manifest, run, plug=1, epochs=2, average=.5)
    whole, best = ((run / name).read_bytes() for name in (CHECKPOINT, BEST))
    n = int.from_bytes(whole[:8], 'little')
    state = json.loads(json.loads(whole[8:8 + n])['__metadata__']['state'])
    inside = [p for p in places(state) if p[:1] not in [('data',), ('settings',)]]
    kinds = {tuple(0 if isinstance(k, int) else k for k in p): p for p in inside}
    dls = small_learner(manifest).dls
    for path in kinds.values():
        value = rng.choice([..., None, -1, 1e308, 'x', [], {}])
        (run / CHECKPOINT).write_bytes(with_state(whole, lambda s, p=path, v=value: replaced(s, p, v)))
        (run / BEST).write_bytes(best)
        torch.manual_seed(0)
        learn = lesion_learner(dls, UNet((4, 8), 16, .2), None, 'fp32')
        try: fit_small(manifest, run, learn=learn, epochs=2, average=.5)
        except InputError as e: assert str(e).startswith(f'{run}'), (path, e)
        for p in (run / BUNDLE).glob('*'): p.unlink()
    deep = with_state(whole, lambda s: '[' * 100_000)
    (run / CHECKPOINT).write_bytes(deep)
    assert 'is not a checkpoint' in refuses(fit_small, manifest, run, epochs=2, average=.5)
