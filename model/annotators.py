"""How far do experts agree, and does a mask's border give away its tool? python model/annotators.py TABLES

TABLES is a folder with two public tables of IMA++ (github.com/sfu-mial/IMAplusplus, output/metadata and output/metrics):
IMAplusplus_seg_metadata.csv, which names annotator and tool of 17,684 masks of the ISIC archive, and
IMAplusplus_multiannotator_subset_IAA_metrics.csv, with the Jaccard index of every two masks of one photograph, and of each with their majority vote.
The tools are T1 (polygon, traced by hand), T2 (grown from a click) and T3 (found by a program). Styles and scores of single photographs come from
model/results/styles.json, which model/styles.py writes. Somebody chose which photographs were drawn twice, so these are no random sample.
Writes model/results/annotators.json.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from lesion_seg.bundle import code_commit, versions
from lesion_seg.evaluate import bootstrap_interval, wilson_interval
from lesion_seg.styles import CUTS, STYLES

RESULTS = Path(__file__).resolve().parent / 'results'
RESULT = RESULTS / 'annotators.json'
TOOLS = dict(zip(('T1', 'T2', 'T3'), STYLES, strict=True))
CONSENSUS = ('ST', 'MV')  # STAPLE and majority vote, which the tables list like annotators


def brief(pairs: pd.DataFrame) -> dict:
    "Jaccard index between masks: photographs count alike, however many masks they have."
    j = pairs.groupby('img_id').jaccard_score.mean()
    failures = int((j < .65).sum())
    return dict(pairs=len(pairs), photographs=len(j), jaccard=float(j.mean()), ci=list(bootstrap_interval(j)), below=failures,
                fraction_below=failures / len(j), fraction_below_ci=list(wilson_interval(failures, len(j))))


def agreement(pairs: pd.DataFrame) -> dict:
    "Between people, of one person, between tools, and of each person with the majority."
    first, second = pairs.annotator1, pairs.annotator2
    people = pairs[~first.isin(CONSENSUS) & ~second.isin(CONSENSUS)]
    majority = pairs[(first == 'MV') & ~second.isin(CONSENSUS) | (second == 'MV') & ~first.isin(CONSENSUS)]
    same = people.annotator1 == people.annotator2
    others = people[~same]
    tools = pd.Series([' and '.join(sorted((TOOLS[a], TOOLS[b]), key=list(STYLES).index))
                       for a, b in zip(others.tool1, others.tool2, strict=True)], others.index)
    return dict(all_pairs=brief(people), same_person=brief(people[same]), different_people=brief(others), with_majority=brief(majority),
                by_tools={t: brief(others[tools == t]) for t in sorted(set(tools))})


def recorded(masks: pd.DataFrame, images: dict[str, dict]) -> dict:
    "Style by the border against the recorded tool, for photographs of ISIC 2017 with one mask in the table."
    tools = masks.groupby('ISIC_id').tool.agg(list)
    rows = [(TOOLS[t[0]], images[i]['style']) for i, t in tools.items() if i in images and len(t) == 1]
    table = {tool: {s: sum(r == (tool, s) for r in rows) for s in STYLES} for tool in STYLES}
    right = sum(table[s][s] for s in STYLES)
    return dict(n=len(rows), right=right, fraction=right / len(rows), table=table)


def scores_by_tool(masks: pd.DataFrame, images: dict[str, dict]) -> dict:
    "The model on the official validation set, by the tools that are on record."
    tools = masks.groupby('ISIC_id').tool.agg(lambda t: ' and '.join(TOOLS[k] for k in sorted(set(t))))
    rows = pd.DataFrame([dict(tools=tools[i], jaccard=r['jaccard']) for i, r in images.items() if 'jaccard' in r and i in tools.index])
    return {t: dict(n=len(g), jaccard=float(g.mean()), ci=list(bootstrap_interval(g)) if len(g) > 1 else None, failures=int((g < .65).sum()))
            for t, g in rows.groupby('tools').jaccard}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('tables', type=Path)
    args = parser.parse_args()
    masks = pd.read_csv(args.tables / 'IMAplusplus_seg_metadata.csv')
    masks = masks[masks.tool.isin(TOOLS)]  # without the consensus of several
    pairs = pd.read_csv(args.tables / 'IMAplusplus_multiannotator_subset_IAA_metrics.csv')
    styles = json.loads((RESULTS / 'styles.json').read_text())
    result = dict(command='python model/annotators.py TABLES', commit=code_commit(), versions=versions(), cuts=list(CUTS),
                  selection='photographs of the ISIC archive that somebody chose for a second drawing',
                  agreement=agreement(pairs), recorded=recorded(masks, styles['images']),
                  scores=scores_by_tool(masks, styles['images']), weights_sha256=styles['weights_sha256'])
    RESULT.write_text(json.dumps(result, indent=1) + '\n')
    print(json.dumps({k: result[k] for k in ('agreement', 'recorded', 'scores')}, indent=1))


if __name__ == '__main__': main()
