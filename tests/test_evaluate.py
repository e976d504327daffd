"""lesion_seg.evaluate against values worked out by hand, plain loops and scipy."""
import json
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from lesion_seg import evaluate as ev
from lesion_seg import metrics as M
from lesion_seg.core import InputError

matplotlib.use('Agg')


def blobs(seed, shape=(48, 60), level=.15):
    "A pair of masks with ragged borders, holes and islands, often touching the border of the image"
    rng = np.random.default_rng(seed)
    base = ndimage.gaussian_filter(rng.normal(size=shape), 6)
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), 2) for _ in 'ab']
    scores = [base / base.std() + level * n / n.std() for n in noise]
    return tuple(s > np.quantile(s, .7) for s in scores)


# Intervals

values = st.lists(st.floats(0, 1), min_size=2, max_size=30)


@given(values, st.sampled_from([.5, .9, .95, .99]))
def test_t_interval_equals_scipy(x, level):
    lo, hi = ev.t_interval(x, level)
    if np.std(x) > 1e-9:
        want = stats.ttest_1samp(x, 0).confidence_interval(level)
        assert (lo, hi) == pytest.approx((want.low, want.high), abs=1e-9)
    clipped = ev.t_interval(x, level, bounds=(0, 1))
    assert 0 <= clipped[0] <= clipped[1] <= 1 and clipped == (min(max(lo, 0), 1), min(max(hi, 0), 1))


def test_one_value_has_no_interval():
    assert np.isnan(ev.t_interval([.8])).all() and np.isnan(ev.bootstrap_interval([.8])).all()


@pytest.mark.parametrize('f', [ev.t_interval, ev.bootstrap_interval, ev.isic_2017_score, ev.isic_2018_score,
                               ev.failure_rate])
@pytest.mark.parametrize('x', [[], [.5, np.nan], [np.inf, .1], [[.1, .2]]])
def test_bad_values_are_refused(f, x):
    with pytest.raises(InputError): f(x)


@pytest.mark.parametrize('level', [0, 1, 95, -.5])
def test_bad_levels_are_refused(level):
    with pytest.raises(InputError, match='level'): ev.t_interval([.1, .2], level)
    with pytest.raises(InputError, match='level'): ev.bootstrap_interval([.1, .2], level=level)


def test_bootstrap_equals_scipy_where_groups_are_single_images():
    x = np.random.default_rng(3).beta(6, 2, 150)
    want = stats.bootstrap((x,), np.mean, method='percentile', n_resamples=20000, random_state=0).confidence_interval
    assert ev.bootstrap_interval(x, n=20000) == pytest.approx((want.low, want.high), abs=1e-3)


def test_bootstrap_by_group_equals_a_plain_loop():
    rng = np.random.default_rng(5)
    groups = np.repeat([f'p{i}' for i in range(25)], rng.integers(1, 9, 25))
    x = 3 + rng.normal(size=25)[np.unique(groups, return_inverse=True)[1]] + .1 * rng.normal(size=len(groups))
    members = [x[groups == g] for g in np.unique(groups)]
    means = [np.concatenate([members[i] for i in rng.integers(25, size=25)]).mean() for _ in range(20000)]
    got, width = ev.bootstrap_interval(x, groups, n=20000), np.ptp(np.quantile(means, [.025, .975]))
    assert got == pytest.approx(np.quantile(means, [.025, .975]), abs=.03 * width)
    assert np.ptp(got) > 1.5 * np.ptp(ev.bootstrap_interval(x))          # knowing the patients makes us less sure


def test_bootstrap_is_repeatable_and_steered_by_its_seed():
    x = np.random.default_rng(0).random(40)
    assert ev.bootstrap_interval(x, seed=1) == ev.bootstrap_interval(x, seed=1) != ev.bootstrap_interval(x, seed=2)


@pytest.mark.parametrize('nobody', [None, '', float('nan')])
def test_images_without_a_patient_are_not_lumped_into_one(nobody, table):
    with pytest.raises(InputError, match='missing for 2 of 3 images'):
        ev.bootstrap_interval([.1, .2, .3], ['p', nobody, nobody])
    with pytest.raises(InputError, match='1 of 30'): ev.summarise(table.assign(group=[nobody] + ['p'] * 29))


def test_bootstrap_depends_on_membership_not_on_names_or_order():
    x, g = np.arange(12.), np.repeat(list('abcd'), 3)
    assert ev.bootstrap_interval(x, g) == ev.bootstrap_interval(x, [f'patient {i}' for i in np.repeat(range(4), 3)])
    order = np.random.default_rng(0).permutation(12)
    assert ev.bootstrap_interval(x[order], g[order]) == pytest.approx(ev.bootstrap_interval(x, g), abs=1e-12)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=50)
def test_wilson_by_its_formula(kn):
    (k, n), z = kn, stats.norm.ppf(.975)
    p = k / n
    mid, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n))**.5
    lo, hi = ev.wilson_interval(k, n)
    assert (lo, hi) == pytest.approx(((mid - half) / (1 + z * z / n), (mid + half) / (1 + z * z / n)), abs=1e-9)
    assert 0 <= lo <= p + 1e-12 and p - 1e-12 <= hi <= 1


def test_isic_scores_of_hand_made_images():
    "Predictions of a 10 x 10 lesion in a 20 x 20 image with Jaccard 1, 0.65 exactly, 0.64, 0 and (both empty) 1"
    truth, empty = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    truth[:10, :10] = True
    def part(n): return truth & (np.cumsum(truth).reshape(20, 20) <= n)          # the first n pixels of the lesion
    table = ev.evaluate_predictions([('a', None, truth, truth), ('b', None, part(65), truth),
                                     ('c', None, part(64), truth),
                        ('d', None, empty, truth), ('e', None, empty, empty)])
    assert table.jaccard.tolist() == pytest.approx([1, .65, .64, 0, 1], abs=1e-12)
    assert ev.isic_2017_score(table.jaccard) == pytest.approx((1 + .65 + .64 + 0 + 1) / 5, abs=1e-12)
    assert ev.isic_2018_score(table.jaccard) == pytest.approx((1 + .65 + 1) / 5, abs=1e-12)
    assert ev.failure_rate(table.jaccard) == 2 / 5 and ev.summarise(table)['failures'] == 2


# Tables, summaries, reports

@pytest.fixture(scope='module')
def table():
    return ev.evaluate_predictions(((f'{i:03}', f'p{i // 3}', *blobs(i)) for i in range(30)), distances=True)


def test_the_unit_of_the_mean_is_the_image():
    "Neither pooled pixels (the large image would decide) nor means of batches (the last one would weigh too much)"
    large, small, none = (np.zeros((64, 64), bool) for _ in range(3))
    large[2:60, 2:60], small[:2, :2] = True, True
    items = [('l', None, large, large)] + [(f's{i}', None, none, small) for i in range(8)]
    summary = ev.summarise(ev.evaluate_predictions(items))
    assert summary['metrics']['dice']['mean'] == pytest.approx(1 / 9, abs=1e-12)
    assert M.dice(np.stack([i[2] for i in items]).reshape(-1, 64),
                  np.stack([i[3] for i in items]).reshape(-1, 64)) > .99


def test_evaluate_keeps_order_and_counts(table):
    assert table.id.tolist() == [f'{i:03}' for i in range(30)]
    assert set(zip(table.height, table.width, strict=True)) == {(48, 60)}
    assert (table[['tp', 'fp', 'fn', 'tn']].sum(axis=1) == 48 * 60).all()
    for i in (0, 17): assert table.loc[i, list(M.METRICS)].to_dict() == M.score_pair(*blobs(i), distances=True)
    # 2 % of the diagonal is 1.54 pixels
    assert set(table.nsd_tolerance) == {.01 * np.hypot(48, 60)} and set(table.boundary_iou_width) == {2}
    assert set(table.unit) == {'px'} and 'hd95' not in ev.evaluate_predictions([('a', None, *blobs(0))])
    assert ev.evaluate_predictions([('a', None, *blobs(0))], distances=True, spacing=(.1, .1)).unit[0] == 'mm'


def test_some_metrics_of_borders_by_their_names():
    p, t = blobs(0)
    row = ev.evaluate_predictions([('a', None, p, t)], distances=M.BIAS)
    assert row.loc[0, list(M.BIAS)].tolist() == [M.border_bias(p, t), M.relative_bias(p, t)]
    assert row.unit[0] == 'px' and not {'hd95', 'nsd', 'nsd_tolerance', 'boundary_iou_width'} & set(row.columns)
    with pytest.raises(InputError, match='tolerance: has no effect'):
        ev.evaluate_predictions([('a', None, p, t)], distances=M.BIAS, tolerance=2)
    assert ev.evaluate_predictions([('a', None, p, t)], distances='nsd', tolerance=2).nsd[0] == M.nsd(p, t, 2)
    with pytest.raises(InputError, match='the metric hd99: is not one of borders'):
        ev.evaluate_predictions([('a', None, p, t)], distances=['hd99'])


def test_subgroups(table):
    styles = table.assign(style=['polygon', 'grown', ''] * 10, camera=['A'] * 9 + [None] * 21)
    found = ev.subgroups(styles, ['style', 'camera'], level=.9, n=300, seed=3)
    assert [list(parts) for parts in found.values()] == [['grown', 'polygon', 'unknown'], ['A', 'unknown']]
    for column, parts in found.items():
        assert sum(p['n'] for p in parts.values()) == 30
        for value, part in parts.items():
            rows = styles[styles[column].fillna('').replace('', 'unknown') == value]
            for name in ('jaccard', 'area_ratio', *M.BIAS):
                assert part[name]['mean'] == pytest.approx(rows[name].mean(), abs=1e-12)
                assert part[name]['ci'] == pytest.approx(ev.bootstrap_interval(rows[name], rows.group, .9, 300, 3), abs=1e-12)
            assert part['isic_2018']['mean'] == pytest.approx(ev.isic_2018_score(rows.jaccard))
            assert (part['groups'], part['failures']) == (rows.group.nunique(), (rows.jaccard < .65).sum())
            assert part['failure_rate_ci'] == list(ev.wilson_interval(part['failures'], part['n'], .9))
    s = ev.summarise(styles, by=['style'])
    json.dumps(s, allow_nan=False)
    assert ev.text_report(s).startswith(ev.text_report(ev.summarise(table)))
    line = next(x for x in ev.text_report(s).splitlines() if x.startswith('polygon: '))
    p = s['subgroups']['style']['polygon']
    assert line.startswith(f"polygon: 10 images, jaccard {p['jaccard']['mean']:.3f} [{p['jaccard']['ci'][0]:.3f}, {p['jaccard']['ci'][1]:.3f}]")
    with pytest.raises(InputError, match='has no column tone'): ev.subgroups(styles, ['tone'])


def test_evaluate_accepts_probabilities_and_names_the_image_that_is_wrong():
    p, t = blobs(0)
    assert ev.evaluate_predictions([('a', '', p * .4, t)], threshold=.3).dice[0] == M.dice(p, t)
    assert ev.evaluate_predictions([('a', '', p, t)]).group[0] == 'a'
    for bad, words in ((p * np.nan, 'NaN'), (p[:4], 'shape'), (p * 7., 'sigmoid')):
        with pytest.raises(InputError, match=f'^b, .*{words}'):
            ev.evaluate_predictions([('a', None, p, t), ('b', None, bad, t)])
    with pytest.raises(InputError, match='^b, .*255'): ev.evaluate_predictions([('b', None, p, t * np.uint8(255))])
    with pytest.raises(InputError, match='twice'): ev.evaluate_predictions([('a', None, p, t)] * 2)
    with pytest.raises(InputError, match='no images'): ev.evaluate_predictions([])


def test_evaluate_takes_items_one_by_one():
    alive = []

    def items():
        for i in range(5):
            alive.append(i)
            yield f'{i}', None, *blobs(i)
            if i == 2: raise RuntimeError('stop here')
    with pytest.raises(RuntimeError): ev.evaluate_predictions(items())
    assert alive == [0, 1, 2]


RANGES = dict(border_bias=(-np.inf, np.inf), relative_bias=(-np.inf, np.inf), hd95=(0, np.inf), assd=(0, np.inf), area_ratio=(0, np.inf))


def test_summary(table):
    s = ev.summarise(table, level=.9, n=500, seed=7)
    assert (s['n'], s['groups'], s['level'], s['unit']) == (30, 10, .9, 'px') and list(s['metrics']) == list(M.METRICS)
    for name, m in s['metrics'].items():
        x = table[name]
        bounds = RANGES.get(name, (0, 1))
        assert (m['mean'], m['std'], m['median']) == pytest.approx((x.mean(), x.std(), x.median()), abs=1e-12)
        assert m['ci'] == pytest.approx(ev.t_interval(x, .9, bounds))
        assert bounds[0] <= m['ci'][0] and m['ci'][1] <= bounds[1] and m['n'] == 30
        assert m['bootstrap_ci'] == pytest.approx(ev.bootstrap_interval(x, table.group, .9, 500, 7))
    assert s['isic_2018'] == ev.isic_2018_score(table.jaccard)
    assert s['isic_2018_ci'] == pytest.approx(ev.bootstrap_interval(table.jaccard.where(table.jaccard >= .65, 0),
                                                                    table.group, .9, 500, 7))
    assert s['failures'] == (table.jaccard < .65).sum()
    assert s['failure_rate_ci'] == list(ev.wilson_interval(s['failures'], 30, .9))
    assert json.loads(json.dumps(s, allow_nan=False)) == s


def test_intervals_never_pass_one():
    t = pd.DataFrame(dict(id=list('abc'), group=list('abc'), jaccard=[1., 1., .7], dice=[1., 1., .8]))
    assert ev.t_interval(t.dice)[1] > 1 and ev.summarise(t)['metrics']['dice']['ci'][1] == 1


def test_text_report_format():
    t = pd.DataFrame(dict(id=list('abc'), group=list('aab'), dice=[.6, .8, 1.], jaccard=[.5, .7, .9]))
    lines = ev.text_report(ev.summarise(t)).splitlines()
    # t of 2 degrees of freedom 4.30265, s = 0.2: half width 0.4968, so the upper bounds pass 1 and are clipped
    assert lines[:4] == ['Evaluation Results', '=' * 50, 'dice: 0.8000 +/- 0.2000 (95% CI: [0.3032, 1.0000])',
                         'jaccard: 0.7000 +/- 0.2000 (95% CI: [0.2032, 1.0000])']
    text = '\n'.join(lines)
    assert 'ISIC 2018 score: 0.5333' in text and 'Failures (Jaccard < 0.65): 1 of 3 = 0.3333 (95% Wilson CI' in text
    assert '97.5% CI' in ev.text_report(ev.summarise(t, level=.975))
    assert '95%' not in ev.text_report(ev.summarise(t, level=.8))


def test_units_stand_in_the_report(table):
    assert '\nhd95 [px]: ' in ev.text_report(ev.summarise(table))
    assert '\nhd95 [mm]: ' in ev.text_report(ev.summarise(table.assign(unit='mm')))


@pytest.mark.parametrize('suffix', ['.csv', '.parquet', '.CSV'])
def test_tables_survive_a_round_trip(table, tmp_path, suffix):
    tricky = table.assign(id=['0007', 'NA', 'null', '1e5', 'Größe', 'a,b', '=c'] + table.id.tolist()[7:])
    path = ev.save_table(tricky, tmp_path/f'scores{suffix}')
    pd.testing.assert_frame_equal(ev.load_table(path), tricky, check_dtype=False, rtol=0, atol=0)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_nothing_half_written(table, tmp_path, monkeypatch):
    path = ev.save_table(table, tmp_path/'t.csv')
    before = path.read_bytes()

    def fails(self, target, **_):
        Path(target).write_text('half a ta')
        raise OSError('disk full')
    monkeypatch.setattr(pd.DataFrame, 'to_csv', fails)
    with pytest.raises(OSError): ev.save_table(table, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError): ev.save_summary(dict(x=float('nan')), tmp_path/'s.json')
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('text, words', [('a;b\n1;2\n', 'lacks the column id'), ('', 'is empty'),
                                         ('id,group,jaccard\na,a,x\n', 'x'), ('id,group,jaccard\na,a,\n', '')])
def test_foreign_tables_are_refused_by_name(tmp_path, text, words):
    (tmp_path/'t.csv').write_text(text)
    with pytest.raises(InputError, match=f't.csv.*{words}'): ev.load_table(tmp_path/'t.csv')
    (tmp_path/'t.parquet').write_text(text)
    with pytest.raises(InputError, match='t.parquet'): ev.load_table(tmp_path/'t.parquet')


def test_tables_with_holes_are_refused(table):
    for f in (ev.summarise, ev.plot_distribution, ev.worst, lambda t: ev.compare(t, table)):
        with pytest.raises(InputError, match='004: .*NaN'):
            f(table.assign(jaccard=table.jaccard.where(table.id != '004')))
        with pytest.raises(InputError, match='no images'): f(table[:0])
        with pytest.raises(InputError, match='lacks the column'): f(table.drop(columns='id'))


# Two models

def compared(ja, jb, groups=None, metric='jaccard', **kwargs):
    ids = [f'i{k}' for k in range(len(ja))]
    a, b = (pd.DataFrame({'id': ids, 'group': groups or ids, metric: j}) for j in (ja, jb))
    return ev.compare(a, b[::-1], metric, **kwargs)


def test_compare_by_hand():
    r = compared([.9, .8, .5, .7], [.8, .8, .6, .705])
    assert r['difference'] == pytest.approx((.1 + 0 - .1 - .005) / 4, abs=1e-12)
    assert (r['wins'], r['ties'], r['losses'], r['n'], r['groups']) == (1, 2, 1, 4, 4)
    far = compared([3., 9., 1.], [5., 8., 4.], metric='hd95', tie=.5)
    # a smaller distance wins
    assert (far['wins'], far['losses']) == (2, 1) and far['difference'] == pytest.approx(-4 / 3)
    assert json.loads(json.dumps(r, allow_nan=False)) == r


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
@settings(max_examples=40)
def test_compare_is_antisymmetric(rows):
    a, b = map(list, zip(*rows, strict=True))
    r, s = compared(a, b), compared(b, a)
    assert (r['wins'], r['ties'], r['losses']) == (s['losses'], s['ties'], s['wins'])
    assert r['difference'] == pytest.approx(-s['difference'], abs=1e-12)
    assert r['ci'] == pytest.approx([-x for x in s['ci'][::-1]], abs=1e-9)


def test_compare_resamples_patients():
    shift = np.repeat([.1, -.08, .05, .12, -.06, .09], 20)
    one, many = compared(.7 + shift, [.7] * 120), compared(.7 + shift, [.7] * 120, [f'p{k // 20}' for k in range(120)])
    assert one['ci'][0] > 0 > many['ci'][0]                      # 120 images convince, six patients do not


def test_compare_refuses_unlike_tables(table):
    with pytest.raises(InputError, match='003'): ev.compare(table, table[table.id != '003'])
    with pytest.raises(InputError, match='002: has another group'):
        ev.compare(table, table.assign(group=table.group.where(table.id != '002', 'z')))
    with pytest.raises(InputError, match='twice'): ev.compare(pd.concat([table, table]), table)


# Undefined values, empty masks, lengths, and metrics of one's own

E = np.zeros((48, 60), bool)


@pytest.fixture(scope='module')
def with_empty_masks():
    p, t = blobs(0)
    return ev.evaluate_predictions([('a', 'x', p, t), ('no truth', 'x', p, E), ('no prediction', 'y', E, t),
                                    ('neither', 'z', E, E)], distances=True)


def test_empty_masks_are_counted_and_left_out_of_the_bias(with_empty_masks, tmp_path):
    s, (p, t) = ev.summarise(with_empty_masks, n=200), blobs(0)
    assert (s['empty_truths'], s['empty_predictions']) == (2, 2)
    ratio, bias = (s['metrics'][m] for m in ('area_ratio', 'border_bias'))
    assert (ratio['n'], bias['n'], s['metrics']['hd95']['n']) == (3, 2, 4)
    assert ratio['mean'] == pytest.approx((p.sum() / t.sum() + 0 + 1) / 3)
    assert bias['mean'] == pytest.approx(M.border_bias(p, t) / 2)
    assert json.loads(json.dumps(s, allow_nan=False)) == s and None not in ratio['bootstrap_ci']
    text = ev.text_report(s)
    assert 'Empty masks: 2 true, 2 predicted' in text
    lines = [line for line in text.splitlines() if line.startswith('border_bias [px; above 0 is too far out]')]
    assert len(lines) == 1 and lines[0].endswith(', 2 of 4 images)')
    for name in ('t.csv', 't.parquet'):
        back = ev.load_table(ev.save_table(with_empty_masks, tmp_path/name))
        assert ev.summarise(back, n=200) == s
    assert ev.worst(with_empty_masks, 4, 'border_bias').id.tolist()[0] == 'a'


def test_empty_truths_are_not_empty_predictions():
    p, t = blobs(0)
    s = ev.summarise(ev.evaluate_predictions([('a', None, p, E), ('b', None, t, E), ('c', None, E, t), ('d', None, p, t)]))
    assert (s['empty_truths'], s['empty_predictions']) == (2, 1) and 'Empty masks: 2 true, 1 predicted' in ev.text_report(s)


def test_nothing_is_defined():
    s = ev.summarise(ev.evaluate_predictions([('a', None, E, ~E), ('b', None, E, ~E)], distances=True))
    assert s['metrics']['border_bias'] == dict(mean=None, std=None, median=None, ci=[None, None], n=0,
                                               bootstrap_ci=[None, None])
    assert 'border_bias [px; above 0 is too far out]: n/a +/- n/a (95% CI: n/a, 0 of 2 images)' in ev.text_report(s)


def test_lengths_stand_in_the_text(table):
    assert '\nnsd [tolerance 0.768 px]: ' in ev.text_report(ev.summarise(table))
    assert '\nboundary_iou [width 2 px]: ' in ev.text_report(ev.summarise(table))
    sizes = [('a', None, np.ones((30, 40), bool), np.ones((30, 40), bool)),
             ('b', None, np.ones((300, 400), bool), np.ones((300, 400), bool))]
    text = ev.text_report(ev.summarise(ev.evaluate_predictions(sizes, distances=True)))
    assert '\nnsd [tolerance 0.5 to 5 px]: ' in text and '\nboundary_iou [width 1 to 10 px]: ' in text
    text = ev.text_report(ev.summarise(ev.evaluate_predictions(sizes, distances=True, spacing=(.5, .5), tolerance=.7,
                                                               width=2)))
    assert '\nnsd [tolerance 0.7 mm]: ' in text and '\nboundary_iou [width 2 mm]: ' in text


def test_a_metric_from_minus_one_to_one_in_table_summary_and_text(monkeypatch):
    monkeypatch.setattr(M, 'METRICS', M.METRICS)
    before = dict(M.METRICS)
    try:
        M.register_metric(M.Metric('agreement', lambda c: 2 * (c.tp + c.tn) / (c.tp + c.fp + c.fn + c.tn) - 1,
                                   (-1., 1.)))
        t, half = np.ones((4, 4), bool), np.tile([True, False], (4, 2))
        table = ev.evaluate_predictions([('a', None, ~t, t), ('b', None, ~t, t), ('c', None, half, t)])
        assert table.agreement.tolist() == [-1, -1, 0]
        found = ev.summarise(table)['metrics']['agreement']
        assert found['mean'] == pytest.approx(-2/3)
        assert found['ci'][0] == -1 and found['ci'][1] == pytest.approx(-2/3 + 4.302653 / 3, abs=1e-5)
        assert '\nagreement: -0.6667 +/- 0.5774 (95% CI: [-1.0000, 0.7676])' in ev.text_report(ev.summarise(table))
        assert ev.worst(table, 3, 'agreement').id.tolist() == ['a', 'b', 'c']
        assert ev.plot_distribution(table, ('agreement',)).axes
    finally:
        M.METRICS.clear()
        M.METRICS.update(before)


def test_an_unknown_metric_has_no_direction(table):
    with pytest.raises(InputError, match='not in the registry'): ev.worst(table, 3, 'fp')


@pytest.mark.parametrize('item, words', [((E, E), 'item 2: is 2 values; give .id, group, prediction, truth.'),
                                         (E, 'item 2: is a ndarray'), (7, 'is a int')])
def test_items_that_are_not_tuples_of_four(item, words):
    with pytest.raises(InputError, match=words): ev.evaluate_predictions([('a', None, E, E), item])


def test_unknown_pixels_stay_out_of_the_table():
    t = np.zeros((20, 20), bool)
    t[5:10, 5:10] = True
    rim = ndimage.binary_dilation(t, iterations=3) & ~t
    a, b = ev.evaluate_predictions([('a', None, t | rim, t), ('b', None, t | rim, t, ~rim)],
                                   distances=True).to_dict('records')
    assert (a['fp'], b['fp'], b['jaccard'], b['hd95'], b['area_ratio']) == (rim.sum(), 0, 1, 0, 1) and a['jaccard'] < .3
    assert b['tp'] + b['fp'] + b['fn'] + b['tn'] == 400 - rim.sum()
    with pytest.raises(InputError, match='c, the mask of known pixels: has the shape'):
        ev.evaluate_predictions([('c', None, t, t, rim[:3])])


def test_settings_without_effect_are_named():
    for setting in (dict(tolerance=2), dict(width=3)):
        with pytest.raises(InputError, match=f'{next(iter(setting))}: has no effect without distances'):
            ev.evaluate_predictions([('a', None, E, E)], **setting)


@pytest.mark.parametrize('nobody', [None, '', float('nan'), 'NA', ' unknown ', '-'])
def test_an_image_without_a_patient_stands_for_itself(nobody):
    table = ev.evaluate_predictions([('a', nobody, E, E), ('b', nobody, E, E), ('c', 'p', E, E)])
    assert table.group.tolist() == ['a', 'b', 'p'] and ev.summarise(table)['groups'] == 3


@pytest.mark.parametrize('text, words', [
    ('id,group,jaccard\n', 'holds no images'),
    ('id,group,jaccard\na,a,1e999\n', 'NaN or infinite'),
    ('id,group,jaccard\na,a,' + '9' * 400 + '\n', 'not numbers|infinite'),
    ('id,group,jaccard,dice\na,a,1,\n', 'a: dice is NaN'),
    ('id,group,jaccard\na,a,1\na,a,1\n', 'occurs twice'),
])
def test_hostile_tables_end_in_a_sentence(tmp_path, text, words):
    (tmp_path/'t.csv').write_text(text)
    with pytest.raises(InputError, match=words): ev.load_table(tmp_path/'t.csv')


def test_counts_that_are_no_numbers(tmp_path):
    (tmp_path/'t.csv').write_text('id,group,tp,fp,fn,jaccard\na,a,x,0,0,1\n')
    with pytest.raises(InputError, match='the column tp: holds values that are not numbers'):
        ev.summarise(ev.load_table(tmp_path/'t.csv'))


# Pictures

def test_worst_first(table):
    assert ev.worst(table, 3).jaccard.tolist() == sorted(table.jaccard)[:3]
    assert ev.worst(table, 3, 'hd95').hd95.tolist() == sorted(table.hd95)[:-4:-1]
    assert ev.worst(table.assign(jaccard=1.), 2).id.tolist() == ['000', '001'] and len(ev.worst(table, 99)) == 30


def test_plots(table, tmp_path):
    import matplotlib.pyplot as plt
    loaded = []

    def load(id):
        loaded.append(id)
        p, t = blobs(int(id))
        return np.full((*t.shape, 3), 200, np.uint8), p, t if id != loaded[0] else t & ~t
    fig = ev.plot_worst(table, load, n=4, cols=3)
    assert loaded == ev.worst(table, 4).id.tolist() and len(fig.axes) == 6
    assert [ax.get_title().split(':')[0] for ax in fig.axes[:4]] == loaded
    dist = ev.plot_distribution(table, ('jaccard', 'hd95'))
    assert [ax.get_xlabel() for ax in dist.axes] == ['jaccard', 'hd95']
    assert sum(p.get_height() for p in dist.axes[0].patches) == 30
    dist.savefig(tmp_path/'d.png')
    assert (tmp_path/'d.png').stat().st_size > 1000 and not plt.get_fignums()      # returned, not left open


def test_cases_of_different_sizes_are_not_drawn_over_each_other(table):
    def load(id): return np.zeros((48, 60, 3), np.uint8), blobs(0)[0], blobs(0)[1][::2]
    with pytest.raises(InputError, match='comes as an image of .48, 60. with masks of .48, 60. and .24, 60.'):
        ev.plot_worst(table, load, n=1)


@pytest.mark.parametrize('failures, n', [(5, 3), (-1, 3), (0, 0)])
def test_failures_among_the_trials(failures, n):
    with pytest.raises(InputError, match='is not a proportion'): ev.wilson_interval(failures, n)


def test_evaluate_imports_neither_torch_nor_matplotlib():
    import subprocess
    import sys
    heavy = ('torch', 'fastai', 'matplotlib', 'monai')
    code = f'import sys, lesion_seg.evaluate; sys.exit(sum(m in sys.modules for m in {heavy}))'
    assert subprocess.run([sys.executable, '-c', code], cwd=Path(ev.__file__).parents[1]).returncode == 0


# Pooled scores

def test_pooled_scores_equal_those_of_all_pixels_in_one_mask(table):
    "All images of one size: the sums are those of one long mask."
    pred, truth = (np.concatenate(m) for m in zip(*[blobs(i) for i in range(30)], strict=True))
    found = ev.summarise(table)['pooled']
    assert (found['dice'], found['jaccard']) == pytest.approx((M.dice(pred, truth), M.jaccard(pred, truth)), abs=1e-12)
    assert found['dice_ci'][0] < found['dice'] < found['dice_ci'][1]


def test_a_large_photograph_weighs_no_more_than_a_small_one():
    t = pd.DataFrame(dict(id=list('ab'), group=list('ab'), tp=[10, 4000], fp=[0, 0], fn=[10, 0], height=[10, 100],
                          width=[10, 100], jaccard=[.5, 1.]))
    # fractions of the images: 0.1 and 0.4 right, 0.1 missed
    assert ev.pooled_overlap(t)['jaccard'] == pytest.approx(.5 / .6) and ev.pooled_overlap(t)['dice'] == pytest.approx(1 / 1.1)
    one = ev.pooled_overlap(t.assign(group='p'))
    assert one['dice'] == pytest.approx(1 / 1.1) and one['dice_ci'] == [None, None]


def test_pooled_scores_say_what_they_are(table):
    text = ev.text_report(ev.summarise(table))
    assert 'not comparable with the means per image:\npooled dice: ' in text
    assert 'pooled' not in ev.text_report(ev.summarise(table.drop(columns='height')))


def test_pooled_scores_of_nothing_are_perfect():
    assert ev.pooled_overlap(ev.evaluate_predictions([('a', None, E, E), ('b', None, E, E)]))['dice_ci'] == [1, 1]
