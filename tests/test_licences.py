"""The gate's look at licences tells a strong copyleft from the rest."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("licences", Path(__file__).resolve().parent.parent / ".ci" / "licences.py")
licences = importlib.util.module_from_spec(spec)
spec.loader.exec_module(licences)


@pytest.mark.parametrize("text, refused", [
    ("GPL-3.0-or-later", True), ("GNU General Public License v3 (GPLv3), Other/Proprietary License", True), ("AGPL-3.0", True),
    ("GNU Affero General Public License v3", True), ("LGPL-2.1-or-later", False), ("GNU Lesser General Public License v2 or later (LGPLv2+)", False),
    ("MIT", False), ("GPL-2.0-only OR BSD-3-Clause", False), ("Apache-2.0", False), ("unknown", False)])
def test_what_is_refused(text, refused): assert licences.strong(text) == refused


def test_the_walk_reaches_what_requirements_require():
    found = licences.closure("lesion_seg", ("", "app"))
    assert {"numpy", "pillow", "voila"} <= {n.lower() for n in found}
    assert all(path.startswith("lesion_seg") for path in found.values())
