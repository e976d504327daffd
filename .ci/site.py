"""Build the site without Quarto, and look at every page of it: python .ci/site.py

nbdev processes the notebooks, smalldocs renders them from the same _quarto.yml that Quarto reads on GitHub. With a folder, only look at the site
there, whoever built it: python .ci/site.py _docs

Each link to a page or a place on it has to lead there, each picture has to be a picture (and to say what it shows, if it is a file
and no cell's output), each page has a title and one heading,
and the search index, llms.txt, favicon and social card are there. Prints what is wrong; the exit code is the number of things, at most 1.
"""

import io
import json
import subprocess
import sys
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


class Page(HTMLParser):
    "Links, pictures, ids and headings of a page."

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.links, self.pictures, self.ids, self.headings, self.metas, self.title, self._in = [], [], set(), 0, {}, "", ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if a.get("id"): self.ids.add(a["id"])
        if tag in ("a", "link") and a.get("href") is not None: self.links.append(a["href"])
        if tag == "script" and a.get("src"): self.links.append(a["src"])
        if tag == "img": self.pictures.append((a.get("src") or "", a.get("alt")))
        if tag == "meta" and a.get("content"): self.metas[a.get("property") or a.get("name")] = a["content"]
        self.headings += tag == "h1"
        self._in = tag

    def handle_data(self, data):
        if self._in == "title": self.title += data

    def handle_endtag(self, tag): self._in = ""


def picture_problem(src: str, page: Path) -> str | None:
    "Why a picture cannot be seen."
    if src.startswith("data:image/"): content = b64decode(src.partition(",")[2])
    elif urlparse(src).scheme: return f"the picture {src} comes from elsewhere"
    else:
        file = page.parent / unquote(urldefrag(src)[0])
        if not file.is_file(): return f"the picture {src} is missing"
        content = file.read_bytes()
    if b"<svg" in content[:400]: return None
    try: Image.open(io.BytesIO(content)).verify()
    except Exception as e: return f"the picture {src[:60]} is none ({e})"
    return None


def problems(site: Path) -> list[str]:
    "Everything that is wrong, one line each."
    pages = {p.resolve(): Page(p) for p in sorted(site.rglob("*.html"))}
    found = [] if pages else [f"{site} holds no page: build it with `make docs`"]

    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        def say(what, name=name): found.append(f"{name}: {what}")

        for href in page.links:
            url, anchor = urldefrag(href)
            if urlparse(url).scheme or url.startswith("//"): continue
            target = path if not url else (path.parent / unquote(urlparse(url).path)).resolve()
            if target.is_dir(): target /= "index.html"
            if not target.is_file(): say(f"the link {href} leads nowhere")
            elif anchor and target in pages and unquote(anchor) not in pages[target].ids: say(f"the link {href} leads to no place on that page")
        for src, alt in page.pictures:
            if why := picture_problem(src, path): say(why)
            if not alt and not src.startswith("data:"): say(f"the picture {src[:60]} does not say what it shows")
        if not page.title.strip(): say("it has no title")
        if name.name != "404.html" and page.headings != 1: say(f"it has {page.headings} first headings")
    return found + missing(site, {p.relative_to(site.resolve()).with_suffix("").as_posix() for p in pages}, pages)


def missing(site: Path, built: set[str], pages: dict[Path, Page]) -> list[str]:
    "Pages that were not built, and what belongs to a site beside its pages."
    sources = {p.relative_to(ROOT / "nbs").with_suffix("").as_posix() for p in (ROOT / "nbs").rglob("*.ipynb") if "checkpoint" not in str(p)}
    found = [f"{name} was not built" for name in sorted(sources - built)]
    found += [f"{name} is missing" for name in ("llms.txt", "search.json", "images/favicon.png", "images/social.jpg") if not (site / name).is_file()]
    if (site / "llms.txt").is_file():
        text = (site / "llms.txt").read_text(encoding="utf-8")
        found += [f"llms.txt does not name {name}" for name in sorted(sources) if f"{name}." not in text]
    if (site / "search.json").is_file() and not json.loads((site / "search.json").read_text(encoding="utf-8")): found.append("the search index is empty")
    front = pages.get((site / "index.html").resolve())
    if front and "og:image" not in front.metas: found.append("index.html: no social card")
    return found


def build() -> Path:
    "The folder of the site. nbdev_proc_nbs would do the first step too, but wants to install Quarto."
    from nbdev.serve import proc_nbs
    from nbdev.quarto import refresh_quarto_yml
    sys.path.append(str(ROOT / "tests"))  # nbdev runs the notebooks' imports; one takes a server from there
    refresh_quarto_yml()
    proc_nbs()
    subprocess.run([sys.executable, "-m", "smalldocs.cli", "render"], cwd=ROOT / "_proc", check=True)
    return ROOT / "_proc" / "_docs"


def main(folder: str | None = None) -> int:
    site = Path(folder) if folder else build()
    found = problems(site)
    print("\n".join(found) if found else f"{len(list(site.rglob('*.html')))} pages: every link leads somewhere, every picture is one")
    return int(bool(found))


if __name__ == "__main__": sys.exit(main(*sys.argv[1:]))
