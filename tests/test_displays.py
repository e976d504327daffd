"""Rich displays: no element and no attribute of what a notebook shows comes from a field. The oracles are Python's HTML parser and markdown-it."""

import itertools

import pytest
from displays import HOSTILE, MAKERS, displays, shown_classes, skeleton

from lesion_seg.core import safe_markdown


def words(strings):
    "Each call gives the next of the strings, again and again, with a number, so that no two fields are equal."
    numbers, chosen = itertools.count(), itertools.cycle(strings)
    return lambda: f"{next(chosen)}{next(numbers)}"


def test_every_class_with_a_rich_display_has_a_maker():
    "A class without one is fine where a class that stems from it has one, and shows itself by the same methods."
    for kind in shown_classes():
        tried = [k for k in MAKERS if issubclass(k, kind) and displays(kind).items() <= displays(k).items()]
        assert tried, f"tests/displays.py has no maker for {kind.__module__}.{kind.__name__}"


@pytest.mark.parametrize("kind", MAKERS, ids=lambda kind: kind.__name__)
def test_no_element_comes_from_a_field(kind):
    make = MAKERS[kind]
    for name in displays(kind):
        plain = skeleton(name, getattr(make(words(["word"])), name)())
        assert plain
        make(word := words([""]))
        if word() == "0": continue  # it holds no string
        pictures = not isinstance(plain, list)
        odd = [[h] for h in HOSTILE if not h.isprintable() or len(h) > 5000]  # what a font or a page has no place for
        for strings in [HOSTILE, *odd] if pictures else [[h] for h in HOSTILE] + [HOSTILE[i:] for i in range(1, len(HOSTILE))]:
            shown = getattr(make(words(strings)), name)()
            assert skeleton(name, shown) == plain, (name, strings)
            assert len(shown) < 200_000


def test_the_skeleton_sees_what_comes_in():
    "The oracle itself: each of these has another skeleton than plain text, and what the package writes has not."
    seen = [h for h in HOSTILE if skeleton("_repr_html_", f"<p>{h}</p>") != skeleton("_repr_html_", "<p>x</p>")]
    assert {h[:4] for h in seen} >= {"<img", '"><s', "'><s", "</td", "<htt", "<!--", "<?ph"}
    with pytest.raises(AssertionError, match="without brackets"): skeleton("_repr_markdown_", "see www.evil.example")
    assert skeleton("_repr_markdown_", "![x](y)") != skeleton("_repr_markdown_", "x")
    assert skeleton("_repr_markdown_", safe_markdown("![x](y) www.evil.example")) == skeleton("_repr_markdown_", "x")
