"lesion_seg.core: files that are whole or not there."
import os

import pyarrow as pa
import pyarrow.parquet as pq
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


class TestSafe:
    @pytest.mark.parametrize('mark', [*'\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\x1b\x00\x07\r\x9b\u2028\ufeff'])
    def test_what_does_not_print_is_visible(self, mark):
        assert core.printable(f'mole{mark}.jpg') == 'mole?.jpg'
        assert mark not in core.safe_cell(f'mole{mark}.jpg')
        assert mark not in str(core.InputError(f'mole{mark}.jpg', f'is {mark} bad', f'repair {mark} it'))

    def test_a_name_with_a_line_break_stays_on_its_line(self):
        assert str(core.InputError('a.jpg: fine\nb.jpg', 'is empty', 'copy it again')) == 'a.jpg: fine?b.jpg: is empty; copy it again'

    @pytest.mark.parametrize('start', [*'=+-@＝＋－＠', '\t=', '\r=', ' =', '\n@'])
    def test_no_text_begins_as_a_formula(self, start):
        assert core.safe_cell(f'{start}cmd()').startswith("'")
        assert core.safe_cell(core.safe_cell(f'{start}cmd()')) == core.safe_cell(f'{start}cmd()')

    @pytest.mark.parametrize('value', ['-3.5', '+1e-5', '-.5', '7', 'mole.jpg', 'a-b', '', -3.5, 0, None, True, 'ü' * 9999])
    def test_what_is_harmless_stays(self, value): assert core.safe_cell(value) is value or core.safe_cell(value) == value

    @pytest.mark.parametrize('value', ['-3.5.1', '+49 30 1', '--', '-1+1', '-1e', '+1|cmd'])
    def test_what_only_looks_like_a_number_is_text(self, value): assert core.safe_cell(value) == f"'{value}"


class TestParquet:
    def rows(self, tmp_path, **columns):
        pq.write_table(pa.table(columns), tmp_path / 't.parquet')
        return list(core.read_rows(tmp_path / 't.parquet'))

    def test_missing_values_are_empty_text(self, tmp_path):
        assert self.rows(tmp_path, image=['a.jpg', None], age=[float('nan'), 5.]) == [dict(image='a.jpg', age=''), dict(image='', age=5.)]

    @pytest.mark.parametrize('name, cell', [('image', dict(bytes=b'\xff\xd8', path='a.jpg')), ('photo', dict(bytes=b'\xff\xd8', path=None)),
                                            ('image', b'\xff\xd8'), ('mask', b'\x89PNG'), ('seg_mask_png', b'\x89PNG')])
    def test_pictures_in_a_table_are_a_sentence(self, tmp_path, name, cell):
        sentence = core.refuses(self.rows, tmp_path, **{name: [cell], 'id': ['a']})
        assert f'holds whole pictures in its column {name}' in sentence and sentence.endswith('list the names of the files')

    def test_other_nested_columns_stay(self, tmp_path):
        assert self.rows(tmp_path, image=['a.jpg'], box=[[1, 2, 3, 4]], who=[dict(age=5)]) == [dict(image='a.jpg', box=[1, 2, 3, 4], who=dict(age=5))]

    def test_a_moment_that_no_calendar_has_is_a_sentence(self, tmp_path):
        assert 'cannot be read as Parquet' in core.refuses(self.rows, tmp_path, when=pa.array([2 ** 62], pa.timestamp('us')))
