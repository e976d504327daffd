"""Refuse what an MIT package must not bring along: python .ci/licences.py

Walks the requirements of the package and of the extras that users install, through everything that is installed here, and prints each licence that
is not plainly permissive. GPL and AGPL end with exit code 1 (the LGPL does not: it binds the library, not what imports it).
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata, requires

from packaging.requirements import Requirement

USERS = ("app", "dicom", "heic", "distributed", "ray", "openvino", "pretrained")
PERMISSIVE = re.compile(r"\b(MIT|BSD|APACHE|ISC|PSF|PYTHON SOFTWARE|MPL|MOZILLA|ZLIB|HPND|UNLICENSE|PUBLIC DOMAIN|CC0|BOOST|0BSD|ZPL)", re.I)
STRONG = re.compile(r"(?<!L)(?<!LESSER )\b(A?GPL|GENERAL PUBLIC LICENSE|AFFERO)", re.I)


def licence(name: str) -> str:
    "What a distribution says of its licence: an expression, else classifiers, else the first line of its text."
    meta = metadata(name)
    classifiers = [c.rpartition(" :: ")[2] for c in meta.get_all("Classifier") or [] if c.startswith("License ::")]
    text = (meta.get("License") or "").strip().splitlines()
    return meta.get("License-Expression") or ", ".join(classifiers) or (text[0] if text else "unknown")


def strong(text: str) -> bool:
    "Is it a strong copyleft, with no permissive choice beside it?"
    plain = re.sub(r"GNU Lesser General Public License|LGPL", "", text, flags=re.I)
    return bool(STRONG.search(plain)) and not PERMISSIVE.search(plain)


def closure(root: str, extras: tuple[str, ...]) -> dict[str, str]:
    "Every distribution that is installed for a package with extras, and what brought it."
    found: dict[str, str] = {}
    todo = [(root, frozenset(extras), root)]
    seen = set()
    while todo:
        name, wanted, path = todo.pop()
        if (name.lower(), wanted) in seen: continue
        seen.add((name.lower(), wanted))
        try: needs = requires(name) or []
        except PackageNotFoundError: continue  # an extra that is not installed here
        found.setdefault(name, path)
        for line in needs:
            need = Requirement(line)
            if need.marker and not any(need.marker.evaluate(dict(extra=e)) for e in (wanted or {""})): continue
            todo.append((need.name, frozenset(need.extras), f"{path} > {need.name}"))
    return found


def main() -> int:
    found = closure("lesion_seg", ("", *USERS))
    bad = 0
    for name, path in sorted(found.items(), key=lambda kv: kv[0].lower()):
        text = licence(name)
        if strong(text):
            print(f"{path}: {text} is not for an MIT package")
            bad += 1
        elif not PERMISSIVE.search(text): print(f"{name}: {text}")
    print(f"{len(found)} distributions, {bad} under GPL or AGPL")
    return int(bad > 0)


if __name__ == "__main__": sys.exit(main())
