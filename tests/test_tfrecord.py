"lesion_seg.tfrecord against RFC 3720, google.protobuf, values by hand, and damage of every kind."
import gzip
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lesion_seg import tfrecord as tr
from lesion_seg.core import InputError, refuses


def crc32c_bitwise(data):
    "CRC32C by its definition: reflected polynomial 0x82F63B78."
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8): crc = crc >> 1 ^ 0x82f63b78 * (crc & 1)
    return crc ^ 0xffffffff


def masked(data):
    c = crc32c_bitwise(data)
    return (((c >> 15) | (c << 17)) + 0xa282ead8) % 2 ** 32


class TestChecksum:
    READ_PDU = bytes.fromhex('01c00000' + '00' * 12 + '14000000' + '00000400' + '00000014' + '00000018' + '28000000' + '00000000' + '02000000' + '00000000')

    @pytest.mark.parametrize('data,crc', [(bytes(32), 0x8a9136aa), (b'\xff' * 32, 0x62a8ab43), (bytes(range(32)), 0x46dd794e),
                                          (bytes(range(31, -1, -1)), 0x113fdb5c), (READ_PDU, 0xd9963a56)])
    def test_rfc_3720(self, data, crc):
        assert crc32c_bitwise(data) == crc
        assert tr.masked_crc32c(data) == masked(data) == (((crc >> 15) | (crc << 17)) + 0xa282ead8) % 2 ** 32

    @given(st.binary(max_size=200))
    @settings(deadline=None)
    def test_bytes_and_views(self, data):
        assert tr.masked_crc32c(data) == tr.masked_crc32c(np.frombuffer(data, np.uint8)) == masked(data)
        padded = np.frombuffer(b'xyz' + data + b'x', np.uint8)[3:3 + len(data)]
        assert tr.masked_crc32c(padded) == masked(data)

    def test_frame_by_hand(self):
        n = b'\x03' + bytes(7)
        assert tr.frame(b'abc') == n + struct.pack('<I', masked(n)) + b'abc' + struct.pack('<I', masked(b'abc'))
        assert len(tr.frame(b'')) == 16 and tr.Frames(np.frombuffer(tr.frame(b''), np.uint8), 'x').payload(0).size == 0


INT = st.integers(-2 ** 63, 2 ** 63 - 1)
FEATURES = st.dictionaries(st.text(max_size=8), st.one_of(st.lists(st.binary(max_size=300), max_size=4), st.lists(INT, max_size=5),
                                                          st.lists(st.floats(width=32, allow_nan=False), max_size=5)), max_size=6)


def plain(features):
    return {k: [bytes(v) if isinstance(v, memoryview) else v for v in vs] for k, vs in features.items()}


class TestExample:
    @given(FEATURES)
    @settings(deadline=None, max_examples=60)
    def test_round_trip(self, features): assert plain(tr.decode_example(tr.encode_example(features))) == features

    @given(FEATURES)
    @settings(deadline=None, max_examples=60)
    def test_as_google_protobuf_has_it(self, features):
        pb = pytest.importorskip('tfrecord').example_pb2
        def feature(v):
            if not v: return pb.Feature()
            if isinstance(v[0], bytes): return pb.Feature(bytes_list=pb.BytesList(value=v))
            return pb.Feature(int64_list=pb.Int64List(value=v)) if isinstance(v[0], int) else pb.Feature(float_list=pb.FloatList(value=v))
        ex = pb.Example(features=pb.Features(feature={k: feature(v) for k, v in features.items()}))
        theirs = ex.SerializeToString(deterministic=True)
        assert pb.Example.FromString(tr.encode_example(features)) == ex
        assert plain(tr.decode_example(theirs)) == features
        prefixes = any(a != b and b.startswith(a) for a in features for b in features)  # which of two such names comes first is its own affair
        if features and not prefixes: assert tr.encode_example(features) == theirs
        twice = pb.Example.FromString(theirs + theirs)  # messages that are joined are merged
        assert len(twice.features.feature) == len(tr.decode_example(theirs + theirs))

    def test_by_hand(self):
        # Example > features (13 bytes) > map entry (11) > 1: 'h', 2: Feature (6) > int64_list (4) > packed (2) 0x80 0x02 = 256
        assert tr.encode_example({'h': 256}) == bytes.fromhex('0a0d 0a0b 0a0168 1206 1a04 0a028002')
        assert tr.decode_example(bytes.fromhex('0a0c 0a0a 0a0168 1205 1a03 088002')) == {'h': [256]}  # not packed
        assert tr.encode_example({'i': 'a'}) == bytes.fromhex('0a0c 0a0a 0a0169 1205 0a03 0a0161')
        assert tr.encode_example({'f': 1.0}) == bytes.fromhex('0a0f 0a0d 0a0166 1208 1206 0a040000803f')
        assert tr.decode_example(b'') == {}

    def test_unknown_fields_are_passed_over(self):
        extra = bytes.fromhex('1801') + bytes.fromhex('25aabbccdd') + bytes.fromhex('29') + bytes(8) + bytes.fromhex('3a0178')
        assert plain(tr.decode_example(extra + tr.encode_example({'h': [1]}) + extra)) == {'h': [1]}

    def test_last_kind_counts(self):
        integers = [tr.message_field(3, tr.message_field(1, n)) for n in (b'\x05', b'\x06')]
        both = tr.message_field(1, tr.message_field(1, b'x')) + b''.join(integers)
        assert tr.decode_feature(memoryview(both)) == [5, 6]

    @given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 255))
    @example(b'\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f', 0, 0)
    @settings(deadline=None, max_examples=300)
    def test_garbage_is_refused_or_read(self, junk, at, byte):
        good = bytearray(tr.encode_example({'image': bytes(60), 'height': [5, -1], 'scores': [1.5, 2.5]}))
        good[at % len(good)] = byte
        for data in (junk, bytes(good), bytes(good[:at % len(good)]) + junk):
            try: out = tr.decode_example(data)
            except InputError: continue
            assert all(isinstance(k, str) and isinstance(v, list) for k, v in out.items())

    @pytest.mark.parametrize('kind,body', [(3, b'\x0a\x65' + bytes(101)), (3, b'\x08\x05' * 101), (1, b'\x0a\0' * 101), (2, b'\x0a\x94\x03' + bytes(404))])
    def test_a_list_is_bounded(self, kind, body, monkeypatch):
        feature = memoryview(tr.message_field(kind, body))
        assert len(tr.decode_feature(feature)) == 101
        monkeypatch.setattr(tr, 'MOST_VALUES', 100)
        with pytest.raises(InputError, match='more than 100 values'): tr.decode_feature(feature)

    def test_features_are_bounded(self, monkeypatch):
        monkeypatch.setattr(tr, 'MOST_VALUES', 100)
        assert len(tr.decode_example(tr.encode_example({str(i): [] for i in range(100)}))) == 100
        with pytest.raises(InputError, match='more than 100 features'): tr.decode_example(tr.encode_example({str(i): [] for i in range(101)}))

    @pytest.mark.parametrize('value,says', [(2 ** 63, '64 bits'), (None, 'NoneType'), ([1, 'a'], 'int'), ([1.5, b''], 'float')])
    def test_refused(self, value, says):
        with pytest.raises(InputError, match=says): tr.encode_example({'a': value})


class TestFrames:
    two = np.frombuffer(tr.frame(b'mole') + tr.frame(b'skin'), np.uint8)

    def test_payloads_are_views(self):
        frames = tr.Frames(self.two, 'a')
        assert frames.starts().tolist() == [0, 20]
        assert [frames.payload(at).tobytes() for at in (0, 20)] == [b'mole', b'skin']
        assert np.shares_memory(frames.payload(20), self.two)
        assert frames.checksum(20, 4) == masked(b'skin')

    @pytest.mark.parametrize('cut', [39, 32, 31, 25, 21])
    def test_cut(self, cut):
        frames = tr.Frames(self.two[:cut], 'a')
        assert f'a: ends at byte {cut}, before the end of the record that starts at byte 20; copy it again' == refuses(frames.payload, 20)
        assert f'ends at byte {cut}' in refuses(frames.starts)

    @pytest.mark.parametrize('at', range(40))
    def test_no_bit_can_be_flipped_unseen(self, at):
        for bit in range(8):
            bad = self.two.copy()
            bad[at] ^= 1 << bit
            start = 20 * (at // 20)
            assert f'at byte {start}' in refuses(tr.Frames(bad, 'a').payload, start)

    @pytest.mark.parametrize('content, says', [(b'<!DOCTYPE html><html>', 'is not a TFRecord file'), (bytes(50), 'is not a TFRecord file'),
                                               (gzip.compress(tr.frame(b'abc'), mtime=0), 'unpack it with gunzip first')])
    def test_foreign(self, content, says): assert says in refuses(tr.Frames(np.frombuffer(content, np.uint8), 'a').starts)

    @pytest.mark.parametrize('n', [2 ** 64 - 1, 2 ** 63, 2 ** 40, 100])
    def test_a_dishonest_length_with_an_honest_checksum(self, n):
        header = struct.pack('<Q', n)
        data = np.frombuffer(header + struct.pack('<I', masked(header)) + bytes(99), np.uint8)
        assert 'a: ends at byte 111' in refuses(tr.Frames(data, 'a').payload, 0)


class TestMessages:
    @pytest.mark.parametrize('n, data', [(1, b'\x01'), (300, b'\xac\x02'), (-1, b'\xff' * 9 + b'\x01')])
    def test_numbers(self, n, data):
        assert tr.varint(n) == data
        assert tr.read_varint(memoryview(data), 0) == (n % 2 ** 64, len(data))

    @pytest.mark.parametrize('data, says', [(b'\x80', 'ends inside a number'), (b'\xff' * 11, 'more than ten bytes')])
    def test_numbers_that_do_not_end(self, data, says): assert says in refuses(tr.read_varint, memoryview(data), 0)

    @pytest.mark.parametrize('data, says', [(b'\x0a\x7fabc', 'a field of 127 bytes where 3 are left'), (b'\x0b', 'wire type 3'), (b'\x02\0', 'number 0')])
    def test_fields_that_cannot_be(self, data, says): assert says in refuses(list, tr.message_fields(memoryview(data)))

    @pytest.mark.parametrize('kind, body, values', [
        (3, tr.message_field(1, tr.varint(3) + tr.varint(-7)), [3, -7]), (3, b'\x08\x03\x08' + tr.varint(-7), [3, -7]),
        (2, b'\x0d' + struct.pack('<f', 1.5), [1.5])])
    def test_lists_packed_or_not(self, kind, body, values): assert tr.decode_feature(memoryview(tr.message_field(kind, body))) == values

    def test_lists_that_cannot_be(self):
        assert 'kind 2' in refuses(tr.decode_feature, memoryview(tr.message_field(2, tr.message_field(1, b'abc'))))
        assert 'more than 1048576 values' in refuses(tr.decode_feature, memoryview(tr.message_field(3, tr.message_field(1, bytes(2 ** 20 + 1)))))

    def test_messages_that_are_joined_are_merged_unless_they_differ_in_kind(self):
        one, more, other = (tr.encode_feature(v) for v in ([1, 2], [3], .5))
        assert tr.decode_feature(memoryview(one + more)) == [1, 2, 3]
        assert tr.decode_feature(memoryview(one + other)) == [.5]


def test_import_is_light():
    code = "import sys, lesion_seg.tfrecord; print([m for m in ('torch', 'fastai', 'tensorflow', 'google.protobuf', 'pandas', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'
