"lesion_seg.core: files that are whole or not there."
import os

import pytest

from lesion_seg import core


class TestAtomic:
    def test_replaces_and_keeps_suffix(self, tmp_path):
        p = tmp_path / 'a.png'
        p.write_text('old')
        with core.atomic_path(p) as t:
            assert t.parent == tmp_path and t.suffix == '.png' and t != p
            t.write_text('new')
            assert p.read_text() == 'old'
        assert p.read_text() == 'new' and os.listdir(tmp_path) == ['a.png']

    def test_failure_keeps_old_and_leaves_nothing(self, tmp_path):
        p = tmp_path / 'a.png'
        p.write_text('old')
        with pytest.raises(KeyboardInterrupt), core.atomic_path(p) as t:
            t.write_text('half')
            raise KeyboardInterrupt
        assert p.read_text() == 'old' and os.listdir(tmp_path) == ['a.png']

    def test_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / 'file').touch()
        with pytest.raises(core.InputError, match='file: cannot be written'), core.atomic_path(tmp_path / 'file' / 'a.png'): pass
