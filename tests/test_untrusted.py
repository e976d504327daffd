"""lesion_seg.untrusted: headers that lie, and networks that would read other files, run for ever or fill the memory."""
import json
import math
import struct
import time
from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save

from lesion_seg.bundle import SHIPPED
from lesion_seg.core import InputError, refuses
from lesion_seg.untrusted import OPERATORS, check_onnx, protobuf_fields, read_header, take_inventory

GOOD = save({"a": np.zeros((2, 3), np.float16), "b": np.ones(5), "c": np.array(1), "d": np.zeros((0, 4))}, {"note": "hello"})


def header(entries, data=b"", length=None):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape, begin, end, dtype="F32"): return dict(dtype=dtype, shape=shape, data_offsets=[begin, end])


def test_the_shapes_of_a_true_header(tmp_path):
    (tmp_path / "w").write_bytes(GOOD)
    assert read_header(tmp_path / "w") == {"a": (2, 3), "b": (5,), "c": (), "d": (0, 4)}
    assert read_header(SHIPPED / "model.safetensors") == {k: v.shape for k, v in load_file(SHIPPED / "model.safetensors").items()}


@pytest.mark.parametrize("content, says", [
    (b"", "is cut"), (b"\x01", "is cut"), (GOOD[:-1], "is cut, or holds more"), (GOOD + b"x", "holds more than"), (header({}, length=1 << 60), "is cut"),
    (b"\xff" * 9, "is cut"), (header(b"{" * 100_000), "not JSON"),
    (header(b"[" * 100_000), "not JSON"), (header([]), "not an object"), (header(b'"x"'), "not an object"),
    (header({"w": tensor([1000, 1000], 0, 8)}, bytes(8)), "does not fit its bytes"), (header({"w": tensor([2], 0, 8, "F31")}, bytes(8)), "without the type"),
    (header({"w": tensor([-2], 0, -8)}), "does not fit"), (header({"w": tensor([2.0], 0, 8)}, bytes(8)), "does not fit"),
    (header({"w": 1}), "without the type"),
    (header({"w": tensor([True], 0, 4)}, bytes(4)), "does not fit"), (header({"w": tensor([1] * 9, 0, 4)}, bytes(4)), "does not fit"),
    (header({"w": tensor([1], 4, 8)}, bytes(8)), "does not fit"), (header({"a": tensor([2], 0, 8), "b": tensor([2], 0, 8)}, bytes(8)), "does not fit"),
    (header({"w": dict(dtype="F32", shape=[1], data_offsets=[0])}, bytes(4)), "without the type"), (header({"w": tensor("ab", 0, 4)}, bytes(4)), "fit|without"),
    (header({str(i): tensor([0], 0, 0) for i in range(30_000)}), "30000 tensors|header of"),
    (header({str(i): tensor([0], 0, 0) for i in range(100_000)}), "header of 6488890 bytes, more than 4000000")])
def test_headers_that_lie(content, says, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(content)
    start = time.process_time()
    with pytest.raises(InputError, match=says) as e: read_header(tmp_path / "w.safetensors")
    assert "w.safetensors: " in str(e.value) and time.process_time() - start < 2


@settings(max_examples=200)
@given(st.binary(max_size=60), st.integers(0, len(GOOD) - 1))
def test_no_header_raises_anything_else(tmp_path_factory, noise, at):
    path = tmp_path_factory.getbasetemp() / "noise"
    for content in (noise, GOOD[:at] + noise + GOOD[at + len(noise):]):
        path.write_bytes(content)
        try: read_header(path)
        except InputError: pass


# ------------------------------------------------------------------------------------------------------------------ networks
def network(nodes, tensors=(), inputs=(("image", ["n", "h", "w", 3]),), opset=18, **settings):
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs]
    graph = helper.make_graph(nodes, "g", given, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **settings)


def node(op, *inputs, out="y", **settings): return helper.make_node(op, inputs, [out], **settings)


def array(name, values): return numpy_helper.from_array(np.asarray(values), name)


def outside(name="s", data=None):
    t = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    t.external_data.add(key="location", value="/etc/passwd")
    return t


def only_a_location():
    t = array("s", np.zeros(4, np.float32))
    t.external_data.add(key="location", value="x")
    return t


BODY = helper.make_graph([node("Identity", "i", out="j")], "body", [], [])
ONES = np.ones(1_000_000, np.float32)
HARM = {
    "loop": (network([node("Loop", "n", "c", body=BODY)]), "has graphs inside a node.*uses Loop"),
    "if": (network([node("If", "c", then_branch=BODY, else_branch=BODY)]), "has graphs inside a node"),
    "scan": (network([node("Scan", "image", body=BODY, num_scan_inputs=1)]), "uses Scan"),
    "external": (network([node("Add", "image", "s")], [outside()]), "numbers that lie in another file"),
    "external by its place alone": (network([node("Add", "image", "s")], [only_a_location()]), "numbers that lie in another file"),
    "external in a constant": (network([node("Constant", value=outside())]), "numbers that lie in another file"),
    "external in a list": (network([node("Identity", "image", tensors=[outside()])]), "numbers that lie in another file"),
    "foreign domain": (network([node("Evil", "image", domain="com.microsoft")]), "operators from elsewhere; uses Evil"),
    "function": (network([node("Identity", "image")], functions=[
        helper.make_function("", "f", ["a"], ["b"], [node("Identity", "a", out="b")], [helper.make_opsetid("", 18)])]), "has functions"),
    "sparse": (network([node("Constant", sparse_value=helper.make_sparse_tensor(array("v", [1.0]), array("i", [1]), [9]))]), "sparse tensors"),
    "unknown": (network([node("NonMaxSuppression", "image")]), "uses NonMaxSuppression, which no network here needs"),
    "hostile name": (network([node("\x1b[31mX", "image")]), r"uses \?\[31mX"),
    "many nodes": (network([node("Identity", "image")] * 20_001), "has 20001 nodes, more than 20000"),
    "outer product": (network([node("Add", "r", "c")], [array("r", ONES), array("c", ONES[:, None])]), "a tensor of 1000000000000 numbers"),
    "product of matrices": (network([node("MatMul", "c", "r")], [array("r", ONES[None]), array("c", ONES[:, None])]), "a tensor of 1000000000000"),
    "constant of a shape": (network([node("ConstantOfShape", "s")], [array("s", [100_000, 100_000])]), "a tensor of 10000000000 numbers"),
    "tile": (network([node("Tile", "image", "s")], [array("s", [1, 1000, 1000, 1])]), r"a tensor of \d+ numbers"),
    "tile of an unknown size": (network([node("Tile", "image", "k")], inputs=[("image", ["n", "h", "w", 3]), ("k", [4])]),
                                "Tile for a tensor of unknown size|contradict"),
    "chain": (network([node("Concat", "image", "image", axis=0, out="x0"), *(node("Concat", f"x{i}", f"x{i}", axis=0, out=f"x{i + 1}") for i in range(20)),
                       node("Identity", "x20")]), "a tensor of"),
    "resize": (network([node("Resize", "image", "", "", "s")], [array("s", [1, 100_000, 100_000, 3])]), "a tensor of 30000000000"),
    "a tensor that says it is large": (network([node("Identity", "s")], [TensorProto(name="s", data_type=1, dims=[1 << 40])]), "stores 1099511627776 numbers"),
    "axes": (network([node("Identity", "s")], [TensorProto(name="s", data_type=1, dims=[2] * 100_000)]), "more than 8 axes"),
}


@pytest.mark.parametrize("kind", HARM)
def test_networks_that_mean_harm(kind, tmp_path):
    model, says = HARM[kind]
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    start = time.process_time()
    with pytest.raises(InputError, match=says) as e: check_onnx(tmp_path / "net.onnx", 64)
    assert str(e.value).startswith(f"{tmp_path / 'net.onnx'}: ") and "\x1b" not in str(e.value) and time.process_time() - start < 10


@pytest.mark.parametrize("content, says", [(b"", "holds no network"), (b"graph", "is not an ONNX file"), (b"\x3a\xff\xff\xff\xff\x7f", "is not an ONNX file"),
                                           (b"\x0b" * 40, "is not an ONNX file"), (b"\xff" * 40, "is not an ONNX file"), (b"\x38\x01", "is not an ONNX file"),
                                           (b"\x3a\x02\x08\x01", "is not an ONNX file"), (b"\x08\x01" * 1_000_001, "more than 1000000 fields")])
def test_what_is_no_network(content, says, tmp_path):
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(InputError, match=says): take_inventory(tmp_path / "net.onnx")


@pytest.mark.parametrize("name", ["model.onnx", "decoder.onnx", "model.int8.onnx"])
def test_the_shipped_networks_pass_and_are_counted_rightly(name):
    check_onnx(SHIPPED / name, 224)
    theirs, found = onnx.load(SHIPPED / name).graph, take_inventory(SHIPPED / name)
    constants = [a.t for n in theirs.node for a in n.attribute if a.HasField("t")]
    assert found.operators == Counter(n.op_type for n in theirs.node) and found.operators.keys() <= OPERATORS and not found.unwanted
    stored = [*theirs.initializer, *constants]
    assert (found.tensors, found.elements) == (len(stored), sum(math.prod(t.dims) for t in stored))


def test_a_graph_that_is_sent_in_two_parts_is_seen_whole(tmp_path):
    "Protocol buffers join two fields of the same message; what is in the second one counts as well."
    good, bad = network([node("Identity", "image")]), HARM["external"][0]
    (tmp_path / "net.onnx").write_bytes(good.SerializeToString() + bad.SerializeToString())
    assert "another file" in refuses(check_onnx, tmp_path / "net.onnx")


@settings(max_examples=200)
@given(st.integers(0, 1 << 62), st.binary(max_size=20), st.integers(1, 1000))
def test_fields_of_every_kind(number, text, key):
    def varint(n):
        out = b""
        while n > 127: out, n = out + bytes([n & 127 | 128]), n >> 7
        return out + bytes([n])
    numbers, texts = varint(key << 3) + varint(number), varint(key << 3 | 2) + varint(len(text)) + text
    data = numbers + texts + varint(key << 3 | 1) + bytes(8) + varint(key << 3 | 5) + b"abcd"
    assert list(protobuf_fields(memoryview(data))) == [(key, number), (key, text), (key, bytes(8)), (key, b"abcd")]


@settings(max_examples=300)
@given(st.binary(max_size=30), st.integers(0, 200))
def test_no_noise_raises_anything_else(tmp_path_factory, noise, at):
    path, good = tmp_path_factory.getbasetemp() / "noise.onnx", network([node("Identity", "image")]).SerializeToString()
    path.write_bytes(good[:at] + noise + good[at + len(noise):])
    try: check_onnx(path, 32)
    except InputError: pass
