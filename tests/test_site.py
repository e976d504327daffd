"""The program that looks at the site sees what is broken."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("site_check", ROOT / ".ci" / "site.py")
site_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site_check)


def problems(folder: Path, body: str) -> list[str]:
    "What is said about a page, without what is said about the pages that are missing."
    (folder / "index.html").write_text(f"<title>t</title><h1 id='top'>h</h1>{body}")
    return [p.partition(": ")[2] for p in site_check.problems(folder) if p.startswith("index.html: ") and "social" not in p]


def test_good_links_pass(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "index.html").write_text("<title>a</title><h1 id='x y'>a</h1>")
    assert problems(tmp_path, "<a href='a/#x%20y'>.</a><a href='#top'>.</a><a href='https://example.org/none'>.</a><a href='a/index.html?q=1'>.</a>") == []


def test_broken_links_and_pictures_are_named(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    found = problems(tmp_path, "<a href='none.html'>.</a><a href='#nowhere'>.</a><img src='none.png' alt='x'><img src='text.png' alt='x'>"
                               "<img src='https://example.org/x.png' alt='x'><h1>again</h1>")
    for words in ("none.html leads nowhere", "#nowhere leads to no place", "none.png is missing", "text.png is none", "comes from elsewhere",
                  "2 first headings"):
        assert sum(words in f for f in found) == 1, (words, found)
    assert len(found) == 6


def test_pages_that_were_not_built_are_named(tmp_path):
    problems(tmp_path, "")
    assert "01_data was not built" in site_check.problems(tmp_path) and "llms.txt is missing" in site_check.problems(tmp_path)
