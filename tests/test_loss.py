"""lesion_seg.loss against values by hand, finite differences and other libraries."""
import math

import numpy as np
import pytest
import torch
from fastai.vision.core import TensorImage, TensorMask
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lesion_seg.core import InputError
from lesion_seg.loss import (
    LOSSES, BCELoss, BoundaryLoss, DiceBCELoss, DiceLoss, FocalTverskyLoss, ImageLoss, SumLoss, TverskyLoss, make_loss, signed_distance)

each = pytest.mark.parametrize("loss", [make_loss(name) for name in LOSSES], ids=list(LOSSES))


def batch(n=3, h=12, w=10, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, h, w, generator=g), torch.rand(n, h, w, generator=g) > .6


def sure(mask): return (mask.float() * 2 - 1) * 50


@each
class TestEveryLoss:
    def test_shapes_and_types_agree(self, loss):
        x, t = batch()
        expected = loss(x, t)
        assert expected.shape == () and expected.dtype == torch.float32
        for logits in (x, x[:, 0]):
            for target in (t, t[:, None], t.long(), t.to(torch.uint8), t.float(), t.double(), t.half()): assert loss(logits, target) == expected

    def test_fastai_tensors(self, loss):
        x, t = batch()
        tx = TensorImage(x.clone()).requires_grad_()
        value = loss(tx, TensorMask(t.to(torch.uint8)))
        assert torch.allclose(torch.as_tensor(value), loss(x, t)) and type(value) is torch.Tensor
        value.backward()
        assert tx.grad.isfinite().all() and tx.grad.abs().sum() > 0

    def test_mean_of_images(self, loss):
        x, t = batch(5)
        singles = torch.stack([loss(x[i:i + 1], t[i:i + 1]) for i in range(5)])
        assert torch.allclose(loss(x, t), singles.mean(), atol=1e-6)
        try:
            loss.reduction = "none"  # fastai's get_preds(with_loss=True) does this
            assert torch.allclose(loss(x, t), singles, atol=1e-6)
            loss.reduction = "sum"
            assert torch.allclose(loss(x, t), singles.sum(), atol=1e-5)
        finally: loss.reduction = "mean"

    @pytest.mark.parametrize("truth", ["random", "empty", "full"])
    def test_gradient(self, loss, truth):
        x, t = batch(2, 4, 5)
        t = dict(random=t, empty=torch.zeros_like(t), full=torch.ones_like(t))[truth]
        assert gradcheck(lambda z: loss(z, t), x.double().requires_grad_())

    @pytest.mark.parametrize("truth", ["random", "empty", "full"])
    def test_finite_at_the_extremes(self, loss, truth):
        t = dict(random=batch()[1], empty=torch.zeros(3, 12, 10), full=torch.ones(3, 12, 10))[truth]
        for logits in (sure(t), -sure(t), torch.full((3, 12, 10), 1e4), torch.full((3, 12, 10), -1e4)):
            z = logits.clone().requires_grad_()
            value = loss(z, t)
            value.backward()
            assert value.isfinite() and z.grad.isfinite().all()

    def test_perfect_is_zero_and_best(self, loss):
        t = batch()[1]
        assert 0 <= loss(sure(t), t) < 1e-6
        assert loss(-sure(t), t) > loss(torch.zeros(3, 12, 10), t) > loss(sure(t), t)

    def test_full_precision_in_autocast(self, loss):
        x, t = torch.randn(2, 1, 300, 300).bfloat16(), torch.rand(2, 300, 300) > .3
        plain = loss(x.float(), t)
        with torch.autocast("cpu", dtype=torch.bfloat16): inside = loss(x, t)
        assert inside.dtype == torch.float32 and torch.equal(inside, plain)

    def test_nan_is_not_hidden(self, loss):
        x, t = batch()
        x[1, 0, 2, 3] = math.nan
        assert loss(x, t).isnan()

    def test_soft_target(self, loss):
        x, t = batch()
        assert loss(x, t.float() * .8 + .1).isfinite()

    @pytest.mark.parametrize("target, says", [(torch.full((3, 12, 10), 255), "0/255"), (torch.full((3, 12, 10), -1), "in \\[0, 1\\]"),
                                              (torch.zeros(3, 12, 11), "do not match"), (torch.zeros(2, 12, 10), "do not match")])
    def test_wrong_targets(self, loss, target, says):
        with pytest.raises(InputError, match=says): loss(batch()[0], target)

    def test_wrong_logits(self, loss):
        with pytest.raises(InputError, match="do not match"): loss(torch.zeros(3, 2, 12, 10), torch.zeros(3, 12, 10))
        with pytest.raises(InputError, match="not empty"): loss(torch.zeros(0, 1, 4, 4), torch.zeros(0, 4, 4))

    def test_fastai_names(self, loss):
        x, _ = batch()
        p = loss.activation(x)
        assert p.min() > 0 and p.max() < 1
        assert torch.equal(loss.decodes(p), (x[:, 0] >= 0).long())
        assert loss.decodes(torch.full((1, 1, 2, 2), .5)).tolist() == [[[1, 1], [1, 1]]]

    def test_learns(self, loss):
        "Gradient descent on the logits themselves ends at the truth."
        t = torch.zeros(1, 12, 12)
        t[:, 3:8, 4:9] = 1
        z = torch.zeros(1, 12, 12, requires_grad=True)
        opt = torch.optim.Adam([z], lr=.3)
        for _ in range(60):
            opt.zero_grad()
            loss(z, t).backward()
            opt.step()
        assert torch.equal(z > 0, t > 0)


class TestByHand:
    zeros, one = torch.zeros(1, 2, 2), torch.tensor([[[1, 0], [0, 0]]])

    @pytest.mark.parametrize("loss, value", [
        (DiceLoss(), 1 - 2 / 4), (DiceLoss(smooth=0), 2 / 3), (DiceLoss(smooth=5), 1 - 6 / 8), (BCELoss(), math.log(2)),
        (DiceBCELoss(), .25 + .5 * math.log(2)), (DiceBCELoss(1, 0), .5), (DiceBCELoss(0, 3), 3 * math.log(2)),
        (TverskyLoss(), 1 - 1.5 / 2.3), (TverskyLoss(1, 0), 1 - 1.5 / 3), (TverskyLoss(0, 1), 1 - 1.5 / 2),
        (FocalTverskyLoss(), (1 - 1.5 / 2.3) ** (4 / 3)), (FocalTverskyLoss(gamma=2), (1 - 1.5 / 2.3) ** 2)])
    def test_one_of_four(self, loss, value): assert loss(self.zeros, self.one).item() == pytest.approx(value, abs=1e-6)

    def test_empty_truth(self):
        empty = torch.zeros(1, 8, 8)
        pixel = empty.clone()
        pixel[0, 1, 1] = 1
        for loss in (DiceLoss(), TverskyLoss(alpha=1)):
            assert loss(sure(empty), empty) < 1e-6
            assert loss(sure(pixel), empty).item() == pytest.approx(.5, abs=1e-6)
            assert loss(sure(1 - empty), empty).item() == pytest.approx(64 / 65, abs=1e-6)
        assert BoundaryLoss()(sure(pixel), empty) == 0

    def test_last_batch_of_one_is_not_special(self):
        "The mistake to avoid: Dice flattened over the batch lets the large lesion decide."
        t = torch.zeros(2, 1, 10, 10)
        t[0], t[1, :, 0, 0] = 1, 1
        logits = sure(t)
        logits[1] = -50  # the small lesion is missed
        assert DiceLoss(smooth=0)(logits, t).item() == pytest.approx(.5, abs=1e-6)  # flattened it would be 1 - 200/201

    def test_small_lesions_are_heard_by_dice(self):
        def pull(loss, side):
            t = torch.zeros(1, 64, 64)
            t[:, :side, :side] = 1
            z = torch.full_like(t, -3).requires_grad_()
            loss(z, t).backward()
            return z.grad[t > 0].abs().mean()
        assert torch.allclose(pull(BCELoss(), 3), pull(BCELoss(), 30))
        assert pull(DiceLoss(), 3) > 2 * pull(DiceLoss(), 30)

    def test_tversky_is_dice(self):
        x, t = batch()
        assert torch.allclose(TverskyLoss(.5, .5, smooth=1)(x, t), DiceLoss(smooth=2)(x, t), atol=1e-6)

    def test_misses_cost_more(self):
        t = torch.zeros(1, 20, 20)
        t[:, 5:15, 5:15] = 1
        less, more = t.clone(), t.clone()
        less[:, 5] = 0  # 10 pixels missed
        more[:, 4, 5:15] = 1  # 10 pixels too many
        assert TverskyLoss()(sure(less), t) > TverskyLoss()(sure(more), t)
        assert TverskyLoss(.7, .3)(sure(less), t) < TverskyLoss(.7, .3)(sure(more), t)

    def test_gamma_below_one_has_finite_slope(self):
        t = torch.ones(1, 8, 8)
        z = sure(t).requires_grad_()
        FocalTverskyLoss(gamma=.5)(z, t).backward()
        assert z.grad.isfinite().all()

    def test_a_soft_mask_met_exactly_costs_the_tversky_loss_nothing(self):
        assert TverskyLoss()(torch.zeros(2, 1, 4, 4), torch.full((2, 4, 4), .5)) == 0  # sigmoid(0) is the mask


class TestBoundary:
    def test_distance_by_hand(self):
        assert signed_distance(np.array([[0, 0, 1, 1, 1]], bool)).tolist() == [[1.5, .5, -.5, -1.5, -2.5]]

    def test_no_border(self):
        assert not signed_distance(np.zeros((3, 4), bool)).any() and not signed_distance(np.ones((3, 4), bool)).any()

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10_000))
    def test_distance_by_brute_force(self, seed):
        mask = np.random.default_rng(seed).random((7, 6)) > .6
        phi, points = signed_distance(mask), np.argwhere(np.ones_like(mask))
        for y, x in points:
            others = np.argwhere(mask != mask[y, x])
            d = np.hypot(*(others - [y, x]).T).min() - .5 if len(others) else 0
            assert phi[y, x] == pytest.approx(-d if mask[y, x] else d, abs=1e-5)

    def test_is_weighted_absolute_error(self):
        x, t = batch()
        p = x[:, 0].sigmoid()
        phi = torch.stack([torch.from_numpy(signed_distance(m.numpy())) for m in t]).abs() / math.hypot(12, 10)
        assert torch.allclose(BoundaryLoss()(x, t), (phi * (p - t.float()).abs()).mean(), atol=1e-6)

    def test_knows_how_far(self):
        truth, near, far = (torch.zeros(1, 64, 64) for _ in range(3))
        truth[:, 4:12, 4:12], near[:, 4:12, 20:28], far[:, 4:12, 50:58] = 1, 1, 1
        assert torch.allclose(DiceLoss()(sure(near), truth), DiceLoss()(sure(far), truth))
        assert BoundaryLoss()(sure(far), truth) > 1.5 * BoundaryLoss()(sure(near), truth)

    def test_same_at_every_scale(self):
        t = torch.zeros(1, 32, 32)
        t[:, 8:24, 8:24] = 1
        big = t.repeat_interleave(2, 1).repeat_interleave(2, 2)
        small_value, big_value = BoundaryLoss()(-sure(t), t), BoundaryLoss()(-sure(big), big)
        assert small_value.item() == pytest.approx(big_value.item(), rel=.05)


class TestChoices:
    def test_reduction(self):
        with pytest.raises(InputError, match="'mean', 'sum' or 'none'"): DiceLoss(reduction="batch")

    def test_sum_needs_a_weight_each(self):
        with pytest.raises(InputError, match="1 losses: do not go with 2 weights"): SumLoss([DiceLoss()], [1, 2])
        with pytest.raises(InputError, match="has no parts"): SumLoss([], [])

    def test_base_says_what_is_missing(self):
        with pytest.raises(NotImplementedError, match="per_image"): ImageLoss()(*batch())

    def test_monai_agrees(self):
        monai = pytest.importorskip("monai.losses")
        x, t = batch()
        t4 = t[:, None].float()
        dice = monai.DiceLoss(sigmoid=True, smooth_nr=1, smooth_dr=1)(x, t4)
        tversky = monai.TverskyLoss(sigmoid=True, alpha=.3, beta=.7, smooth_nr=1, smooth_dr=1)(x, t4)
        assert torch.allclose(DiceLoss()(x, t), dice, atol=1e-6) and torch.allclose(TverskyLoss()(x, t), tversky, atol=1e-6)


class TestByName:
    def test_the_shipped_loss(self):
        "model/weights.py trained with half Tversky(1, 1), half cross-entropy."
        x, t = batch()
        assert torch.allclose(make_loss("tversky_bce")(x, t), SumLoss([TverskyLoss(1, 1), BCELoss()], [.5, .5])(x, t))

    def test_options_reach_the_class(self):
        loss = make_loss("tversky", alpha=.1, beta=.9, smooth=2., reduction="sum")
        assert (loss.alpha, loss.beta, loss.smooth, loss.reduction) == (.1, .9, 2., "sum")

    def test_a_sum_of_names(self):
        x, t = batch()
        loss = make_loss("sum", losses=["dice", dict(name="tversky", alpha=.2), BCELoss()], weights=[1, 2, 3])
        assert torch.allclose(loss(x, t), DiceLoss()(x, t) + 2 * TverskyLoss(.2)(x, t) + 3 * BCELoss()(x, t), atol=1e-6)
        assert make_loss("sum", losses=["dice", "bce"]).weights == [.5, .5]

    @pytest.mark.parametrize("name, options, says", [
        ("jaccard", {}, "loss 'jaccard': is not known; choose one of dice_bce, tversky_bce"), ("dice", dict(alpha=1), "loss 'dice': does not take.*alpha"),
        ("sum", dict(losses=[]), "has no parts"), ("sum", dict(losses=["dice"], weights=[1, 2]), "1 losses: do not go with 2 weights"),
        ("sum", dict(losses=["dice", "dise"]), "loss 'dise'"), ("sum", dict(losses=[dict(name="dice", beta=1)]), "loss 'dice': does not take")])
    def test_refusals(self, name, options, says):
        with pytest.raises(InputError, match=says): make_loss(name, **options)
