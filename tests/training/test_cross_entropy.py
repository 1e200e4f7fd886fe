import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from training import cross_entropy
from training.cross_entropy import IGNORED, summed_cross_entropy


def inputs(
    rows: int, width: int, vocabulary: int, padded: int, ignored: float = 0.0, seed: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, a head and targets, some of which count for nothing; logits of a deviation about 2."""
    random = torch.Generator().manual_seed(seed)
    x_NC = torch.randn(rows, width, generator=random).requires_grad_()
    weight_VC = torch.randn(padded, width, generator=random).mul_(2 / width**0.5).requires_grad_()
    targets_N = torch.randint(0, vocabulary, (rows,), generator=random)
    targets_N[torch.rand(rows, generator=random) < ignored] = IGNORED
    return x_NC, weight_VC, targets_N


def torchs(x_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, vocabulary: int) -> Tensor:
    """The same by torch, all logits at once, in fp64."""
    logits_NV = x_NC.double() @ weight_VC[:vocabulary].double().T
    return F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="sum")


def with_gradients(
    loss: Callable[..., Tensor], x_NC: Tensor, weight_VC: Tensor, *rest: object
) -> list[Tensor]:
    found = loss(x_NC, weight_VC, *rest)
    return [found.detach(), *torch.autograd.grad(found, (x_NC, weight_VC))]


def close(found: list[Tensor], expected: list[Tensor], share: float) -> bool:
    """Whether no number differs by more than a share of the largest of its tensor, or of 1: shares
    near 1, which become gradients near 0, are exact to that only."""
    return all(
        (one.double() - two.double()).abs().max() <= share * two.abs().max().clamp(min=1)
        for one, two in zip(found, expected, strict=True)
    )


@pytest.fixture
def chunks_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for the fp32 logits of three rows of 64."""
    monkeypatch.setitem(cross_entropy._CHUNK_BYTES, "cpu", 3 * 64 * 4)


@given(
    rows=st.integers(1, 9),
    width=st.integers(1, 8),
    vocabulary=st.integers(2, 40),
    padding=st.integers(0, 10),
    ignored=st.sampled_from([0.0, 0.5, 1.0]),
    chunk_rows=st.integers(0, 10),
    seed=st.integers(0, 99),
)
def test_loss_and_gradients_are_those_of_torch(
    rows: int, width: int, vocabulary: int, padding: int, ignored: float, chunk_rows: int, seed: int
) -> None:
    padded = vocabulary + padding
    given_ = inputs(rows, width, vocabulary, padded, ignored, seed)
    with pytest.MonkeyPatch.context() as patch:  # 0 rows: not even one fits
        patch.setitem(cross_entropy._CHUNK_BYTES, "cpu", chunk_rows * padded * 4)
        found = with_gradients(summed_cross_entropy, *given_, vocabulary)
    expected = with_gradients(torchs, *given_, vocabulary)
    assert found[0].dtype == torch.float32 and found[0].shape == ()
    assert close(found, expected, 1e-5)
    assert not found[2][vocabulary:].any()


@pytest.mark.usefixtures("chunks_of_three")
def test_a_chunk_holds_no_more_rows_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, real = [], cross_entropy._softmax

    def watched(logits_nV: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
        seen.append(tuple(logits_nV.shape))
        return real(logits_nV, *rest)

    monkeypatch.setattr(cross_entropy, "_softmax", watched)
    summed_cross_entropy(*inputs(8, 4, 60, 64), 60)
    assert seen == [(3, 64), (3, 64), (2, 64)]


@pytest.mark.usefixtures("chunks_of_three")
def test_ignored_targets_and_padding_have_no_gradient_at_all() -> None:
    x_NC, weight_VC, targets_N = inputs(8, 4, 60, 64)
    targets_N[[0, 5, 7]] = IGNORED
    with torch.no_grad():
        weight_VC[60:] = 1e4  # would take all probability, if it could have any
    loss, x_grad_NC, weight_grad_VC = with_gradients(
        summed_cross_entropy, x_NC, weight_VC, targets_N, 60
    )
    assert close([loss], [torchs(x_NC, weight_VC, targets_N, 60).detach()], 1e-6)
    assert not x_grad_NC[[0, 5, 7]].any() and x_grad_NC[[1, 2, 3, 4, 6]].any(1).all()
    assert not weight_grad_VC[60:].any() and weight_grad_VC[:60].any(1).all()


@pytest.mark.usefixtures("chunks_of_three")
def test_nothing_but_ignored_targets_is_a_loss_of_zero() -> None:
    x_NC, weight_VC, _ = inputs(8, 4, 60, 64)
    all_ignored = torch.full((8,), IGNORED)
    found = with_gradients(summed_cross_entropy, x_NC, weight_VC, all_ignored, 60)
    assert [float(part.abs().sum()) for part in found] == [0, 0, 0]


@pytest.mark.usefixtures("chunks_of_three")
def test_the_gradient_is_scaled_by_what_becomes_of_the_loss() -> None:
    given_ = inputs(8, 4, 60, 64, 0.3)
    plain = with_gradients(summed_cross_entropy, *given_, 60)
    scaled = with_gradients(lambda *args: summed_cross_entropy(*args) / 5 + 1, *given_, 60)
    assert torch.equal(scaled[0], plain[0] / 5 + 1)
    assert close(scaled[1:], [grad / 5 for grad in plain[1:]], 1e-6)


@pytest.mark.usefixtures("chunks_of_three")
def test_large_logits_stay_finite() -> None:
    x_NC, weight_VC, targets_N = inputs(8, 4, 60, 64)
    large = (x_NC.detach() * 1e4).requires_grad_()
    found = with_gradients(summed_cross_entropy, large, weight_VC, targets_N, 60)
    expected = with_gradients(torchs, large, weight_VC, targets_N, 60)
    assert found[0] > 1e4 and close(found, expected, 1e-4)


@pytest.mark.usefixtures("chunks_of_three")
@pytest.mark.parametrize("wants", ["nothing", "x", "weight", "both"])
def test_gradients_are_made_only_where_one_is_wanted(
    wants: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = [], cross_entropy._softmax

    def watched(*args: object) -> tuple[Tensor, Tensor]:
        made.append(args[3])
        return real(*args)

    monkeypatch.setattr(cross_entropy, "_softmax", watched)
    x_NC, weight_VC, targets_N = inputs(8, 4, 60, 64, 0.3)
    x_NC.requires_grad_(wants in ("x", "both"))
    weight_VC.requires_grad_(wants in ("weight", "both"))
    loss = summed_cross_entropy(x_NC, weight_VC, targets_N, 60)
    assert set(made) == {wants != "nothing"} and loss.requires_grad == (wants != "nothing")
    if wants != "nothing":
        loss.backward()
        assert (x_NC.grad is not None) == (wants in ("x", "both"))
        assert (weight_VC.grad is not None) == (wants in ("weight", "both"))
    made.clear()
    with torch.no_grad():
        looked = summed_cross_entropy(x_NC, weight_VC, targets_N, 60)
    assert set(made) == {False} and torch.equal(looked, loss)


@pytest.mark.usefixtures("chunks_of_three")
def test_bf16_products_come_close_and_leave_fp32_gradients() -> None:
    given_ = inputs(64, 32, 60, 64, 0.3)
    expected = with_gradients(torchs, *given_, 60)
    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradients(summed_cross_entropy, *given_, 60)
    assert [part.dtype for part in found] == [torch.float32] * 3
    assert close(found[:1], expected[:1], 2e-3) and close(found[1:], expected[1:], 2e-2)
    assert not close(found, expected, 1e-5)  # else the products were not bf16


@pytest.mark.slow
@pytest.mark.usefixtures("chunks_of_three")
@pytest.mark.parametrize("bf16", [False, True])
def test_the_compiled_loss_is_the_same(bf16: bool) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    given_ = inputs(8, 32, 60, 64, 0.3)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        eager = with_gradients(summed_cross_entropy, *given_, 60)
        compiled = with_gradients(
            lambda *args: summed_cross_entropy(*args, compiled=True), *given_, 60
        )
        with torch.no_grad():
            looked = summed_cross_entropy(*given_, 60, compiled=True)
    # In bf16 a gradient may fall on the other side of a half.
    assert close(compiled, eager, 1e-2 if bf16 else 1e-6) and close([looked], eager[:1], 1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.mark.slow
def test_the_compiled_loss_holds_nothing_of_the_logits_size_but_their_gradient() -> None:
    """Between the products all is one pass over the logits: what lies in memory is of few bytes."""
    from torch._inductor.utils import run_and_get_code

    logits_nV = torch.randn(8, 64).bfloat16()
    targets_n = torch.randint(0, 60, (8,))
    compiled = torch.compile(cross_entropy._softmax, dynamic=False)
    with torch._inductor.config.patch(fx_graph_cache=False):
        (loss, grad_nV), (code,) = run_and_get_code(compiled, logits_nV, targets_n, 60, True)
    large = re.findall(r"= empty_strided_cpu\(\(8, 64\), .*?, torch\.(\w+)\)", code)
    assert large == ["bfloat16"]
    expected = cross_entropy._softmax(logits_nV, targets_n, 60, True)
    assert close([loss, grad_nV], list(expected), 1e-2)
