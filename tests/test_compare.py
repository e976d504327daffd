"""lesion_seg.compare against scipy, published examples, plain loops and tables whose winner is known."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lesion_seg import compare as C
from lesion_seg import evaluate as ev
from lesion_seg.core import InputError


def scores(jaccard, groups=None, ids=None):
    ids = ids or [f"i{k:03}" for k in range(len(jaccard))]
    return pd.DataFrame(dict(id=ids, group=groups if groups is not None else ids, jaccard=np.asarray(jaccard, float)))


@pytest.fixture(scope="module")
def three():
    rng = np.random.default_rng(1)
    hard, groups = rng.uniform(.5, .9, 60), [f"p{k // 2}" for k in range(60)]
    return {name: scores(hard + gain + rng.normal(0, .02, 60), groups) for name, gain in (("low", -.05), ("mid", 0), ("high", .05))}


# Wilcoxon, Holm

def test_wilcoxon_of_darwin():
    "Maize plants, crossed less self-fertilised, in eighths of an inch; the example in scipy's documentation: statistic 24, p 0.0413."
    d = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]
    assert C.signed_rank_p(d) == pytest.approx(0.041259765625, abs=1e-12)


def test_wilcoxon_equals_scipy_and_knows_groups():
    rng = np.random.default_rng(0)
    d, groups = rng.normal(.1, 1, 40), [f"p{k % 13}" for k in range(40)]
    assert C.signed_rank_p(d) == pytest.approx(stats.wilcoxon(d).pvalue, abs=1e-12)
    means = pd.Series(d).groupby(groups).mean()
    assert C.signed_rank_p(d, groups) == pytest.approx(stats.wilcoxon(means).pvalue, abs=1e-12)


def test_group_means_keep_values_apart():
    assert C.group_means([1, 2, 6, 10], ["b", "a", "a", "b"]).tolist() == [4, 5.5] and C.group_means([1, 2]).tolist() == [1, 2]


@pytest.mark.parametrize("p, want", [
    ([.50, .003, .32, .054, .0003], [.64, .012, .64, .162, .0015]),  # pingouin's documentation
    ([.01, .02, .03, .04, .05], [.05, .08, .09, .09, .09]),  # R: p.adjust(c(.01, .02, .03, .04, .05), 'holm')
    ([.5, .9], [1, 1]), ([.2], [.2]), ([], [])])
def test_holm(p, want):
    assert C.holm(p) == pytest.approx(want, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(.001, .2))
def test_holm_rejects_what_the_step_down_rule_rejects(p, alpha):
    "Holm 1979: go up the sorted p values as long as p(k) <= alpha / (m - k + 1)."
    order, rejected = np.argsort(p, kind="stable"), set()
    for k, i in enumerate(order):
        if p[i] * (len(p) - k) > alpha: break
        rejected.add(int(i))
    adjusted = C.holm(p)
    assert {i for i in range(len(p)) if adjusted[i] <= alpha} == rejected and (adjusted >= p).all()


@pytest.mark.parametrize("p", [[1.2], [-.1], [float("nan")], [[.1]]])
def test_holm_refuses(p):
    with pytest.raises(InputError, match="p values"): C.holm(p)


# Ranks

def test_ranks_of_a_clear_case(three):
    r = C.rank_stability({k: ev.errors(t, "jaccard") for k, t in three.items()}, three["low"].group)
    assert [r["ranks"][k]["rank"] for k in three] == [3, 2, 1] and r["kendall_tau"] == 1
    assert r["ranks"]["high"]["places"] == [1, 0, 0] and r["ranks"]["low"]["ci"] == [3, 3]


def test_ranks_by_a_plain_loop():
    rng = np.random.default_rng(3)
    groups = np.repeat(list("abcdefgh"), 3)
    losses = {k: rng.random(24) + .1 * j for j, k in enumerate("xyz")}
    r = C.rank_stability(losses, groups, n=1500)
    matrix, members = np.column_stack(list(losses.values())), [np.flatnonzero(groups == g) for g in "abcdefgh"]
    places, taus, full = [], [], matrix.mean(0)
    for _ in range(1500):
        rows = np.concatenate([members[i] for i in rng.integers(8, size=8)])
        means = matrix[rows].mean(0)
        places.append(stats.rankdata(means))
        taus.append(stats.kendalltau(means, full).statistic)
    assert r["kendall_tau"] == pytest.approx(np.mean(taus), abs=.05)
    assert [v["mean"] for v in r["ranks"].values()] == pytest.approx(np.mean(places, 0), abs=.05)


def test_one_group_has_ranks_and_nothing_else():
    r = C.rank_stability(dict(a=np.array([.1, .2]), b=np.array([.3, .1])), ["p", "p"])
    assert r == dict(ranks=dict(a=dict(rank=1), b=dict(rank=2)), kendall_tau=None)


# Tables

def test_images_that_not_all_have_are_named(three):
    some = {**three, "mid": three["mid"][3:], "high": three["high"].sample(frac=1, random_state=0)}
    aligned, notes = C.common_images(some, "jaccard")
    assert all(t.id.tolist() == three["low"].id.tolist()[3:] for t in aligned.values())
    assert notes == [f"{k}: 3 images are not compared, since not all have them: i000, i001, i002" for k in ("low", "high")]
    result = C.compare_all(some)
    assert result["n"] == 57 and result["notes"] == notes
    assert result["models"]["high"]["mean"] == pytest.approx(three["high"].jaccard[3:].mean())


def test_groups_of_the_manifest_decide(three):
    own = {k: t.assign(group=t.id) for k, t in three.items()}
    groups = dict(zip(three["low"].id, three["low"].group, strict=True)) | {"i999": "p99"}
    result = C.compare_all(own, groups=groups)
    assert result["groups"] == 30 and result["pairs"] == C.compare_all(three)["pairs"]
    assert result["notes"] == ["1 photographs of the manifest are not compared, since not all have them: i999"]


def test_refusals(three):
    with pytest.raises(InputError, match="two or more"): C.compare_all(dict(a=three["low"]))
    with pytest.raises(InputError, match="i000: has another group in mid"): C.compare_all({**three, "mid": three["mid"].assign(group="x")})
    with pytest.raises(InputError, match="mid: the table: lacks the column hd95"):
        C.compare_all({"low": three["low"].assign(hd95=1), "mid": three["mid"]}, "hd95")
    with pytest.raises(InputError, match="no image in common"): C.compare_all(dict(a=three["low"][:5], b=three["low"][5:]))


def test_pairs_are_those_of_evaluate_and_scipy(three):
    result = C.compare_all(three, level=.9, n=500, seed=3)
    assert [(p["a"], p["b"]) for p in result["pairs"]] == [("low", "mid"), ("low", "high"), ("mid", "high")]
    for p in result["pairs"]:
        a, b = three[p["a"]], three[p["b"]]
        assert {k: p[k] for k in ("ci", "wins", "losses", "difference")}.items() <= ev.compare(a, b, level=.9, n=500, seed=3).items()
        d = (a.jaccard - b.jaccard).groupby(a.group).mean()
        assert p["p"] == pytest.approx(stats.wilcoxon(d).pvalue)
    assert [p["p_holm"] for p in result["pairs"]] == pytest.approx(C.holm([p["p"] for p in result["pairs"]]))
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_length_is_better_when_it_is_small(three):
    tables = {k: t.assign(hd95=10 * (1 - t.jaccard)) for k, t in three.items()}
    result = C.compare_all(tables, "hd95")
    assert [result["ranks"][k]["rank"] for k in three] == [3, 2, 1]
    pair = result["pairs"][1]
    assert pair["difference"] > 0 and pair["losses"] > pair["wins"]


def test_subgroups_of_any_column(three):
    by = pd.DataFrame(dict(id=three["low"].id, site=["x"] * 50 + [""] * 10, sex=list("fm") * 30))
    result = C.compare_all(three, by=by)
    assert {c: {v: s["n"] for v, s in values.items()} for c, values in result["subgroups"].items()} == {
        "site": {"unknown": 10, "x": 50}, "sex": {"f": 30, "m": 30}}
    inside = result["subgroups"]["sex"]["m"]
    assert inside["models"]["mid"]["mean"] == pytest.approx(three["mid"].jaccard[1::2].mean()) and inside["note"] == ""
    assert "5 groups: fewer than 10" in result["subgroups"]["site"]["unknown"]["note"]
    rows = C.comparison_rows(result)
    assert len(rows) == 3 * 5 and set(rows.value) == {"", "unknown", "x", "f", "m"}


@pytest.mark.parametrize("groups, words", [(1, "one group"), (9, "9 groups: fewer than 10"), (10, "")])
def test_few_groups_get_a_sentence(groups, words):
    n = 20
    tables = {k: scores(np.linspace(.3, .9, n) + d * (-1) ** np.arange(n), [f"p{i % groups}" for i in range(n)]) for k, d in (("a", .01), ("b", .03))}
    result = C.compare_all(tables)
    assert result["groups"] == groups and ("".join(result["notes"]).startswith(words) if words else result["notes"] == [])
    assert json.dumps(result, allow_nan=False) and C.comparison_text(result)


def test_the_smallest_p_value_is_the_one_that_is_told():
    assert f"is {stats.wilcoxon(np.arange(1, 7)).pvalue:.2g}" in C.group_note(6)


def test_equal_tables_are_equal(three):
    result = C.compare_all(dict(a=three["low"], b=three["low"]))
    assert result["pairs"][0]["p"] == 1 and result["pairs"][0]["difference"] == 0
    assert [r["rank"] for r in result["ranks"].values()] == [1, 1] and result["ranks"]["a"]["places"] == [1, 0]


def test_text_and_images(three):
    text = C.comparison_text(C.compare_all(three))
    assert text.splitlines()[1].startswith("1. high: ") and "Wilcoxon p < 0.0001, < 0.0001 by Holm" in text
    rows = C.image_rows(three)
    assert rows.spread.is_monotonic_decreasing and set(rows.columns) == {"id", "group", *three, "spread"}
    k = int(rows.id[0][1:])
    values = [t.jaccard[k] for t in three.values()]
    assert rows.spread[0] == pytest.approx(max(values) - min(values))


def test_plot_names_pairs_and_models(three):
    fig = C.plot_comparison(C.compare_all(three))
    assert [t.get_text() for t in fig.axes[1].get_yticklabels()] == ["high", "mid", "low"]
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["low - mid", "low - high", "mid - high"]
