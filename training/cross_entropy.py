"""The loss of a language model's head without its logits in memory: chunk by chunk.

The logits of 65,536 tokens are 13 GB in fp32, and softmax and gradient want as much again. So a
chunk of rows at a time gives its loss and, at once, its share of both gradients; the backward pass
only scales them. No product is computed twice. Ids from `vocabulary` on are padding: they get no
probability and no gradient.

Shapes: N rows, C width, V rows of the (padded) head, n rows of a chunk.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100
"""A target that counts for nothing: what stands in windows that only fill up a batch."""

_CHUNK_BYTES = {"cuda": 2**31, "cpu": 2**26}
"""Logits held at once: large enough to fill the device, on a CPU small enough for its caches."""


def summed_cross_entropy(
    x_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, vocabulary: int, *, compiled: bool = False
) -> Tensor:
    """Sum over the targets that are not IGNORED of -log softmax(x weight^T)[target], in nats, fp32.

    Products are taken in autocast's type where it is on, softmax and sums in fp32. `compiled` fuses
    what lies between the products, which needs a compiler on this machine.
    """
    # Asked here: inside, autograd is off whether or not a gradient is wanted of the result.
    learns = torch.is_grad_enabled() and (x_NC.requires_grad or weight_VC.requires_grad)
    loss: Tensor = _Chunked.apply(x_NC, weight_VC, targets_N, vocabulary, learns, compiled)  # type: ignore[no-untyped-call]
    return loss


class _Chunked(torch.autograd.Function):
    """Makes the gradients in the forward pass: a sum's own gradient is but a factor to them."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NC: Tensor,
        weight_VC: Tensor,
        targets_N: Tensor,
        vocabulary: int,
        learns: bool,
        compiled: bool,
    ) -> Tensor:
        kind = x_NC.device.type
        product = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_NC.dtype
        head_VC = weight_VC.to(product)
        loss = x_NC.new_zeros((), dtype=torch.float32)
        x_grad_NC = torch.empty_like(x_NC) if learns else None
        weight_grad_VC = torch.zeros_like(weight_VC, dtype=torch.float32) if learns else None
        rows = max(1, _CHUNK_BYTES[kind] // (4 * len(weight_VC)))
        for begin in range(0, len(x_NC), rows):
            part = slice(begin, begin + rows)
            x_nC = x_NC[part].to(product)
            softmax = _compiled_softmax() if compiled else _softmax
            found, logits_grad_nV = softmax(x_nC @ head_VC.T, targets_N[part], vocabulary, learns)
            loss += found
            if x_grad_NC is not None and weight_grad_VC is not None:
                x_grad_NC[part] = logits_grad_nV @ head_VC
                if product == torch.float32:
                    weight_grad_VC.addmm_(logits_grad_nV.T, x_nC)
                else:
                    weight_grad_VC += logits_grad_nV.T @ x_nC
        ctx.grads = x_grad_NC, weight_grad_VC
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_grad_NC, weight_grad_VC = ctx.grads
        del ctx.grads
        return x_grad_NC.mul_(grad), weight_grad_VC.mul_(grad), None, None, None, None


def _softmax(
    logits_nV: Tensor, targets_n: Tensor, vocabulary: int, learns: bool
) -> tuple[Tensor, Tensor]:
    """The chunk's loss, and the loss's gradient by the logits in their type (if it `learns`)."""
    counts_n1 = (targets_n != IGNORED).unsqueeze(1)
    targets_n1 = targets_n.clamp(min=0).unsqueeze(1)
    exact_nV = logits_nV.float()
    exact_nV[:, vocabulary:] = float("-inf")
    most_n1 = exact_nV.amax(1, keepdim=True)
    above_n1 = exact_nV.gather(1, targets_n1) - most_n1
    # In place, and one exponential an id: on a CPU this is most of what is not a product.
    shares_nV = exact_nV.sub_(most_n1).exp_()
    total_n1 = shares_nV.sum(1, keepdim=True)
    loss = ((total_n1.log() - above_n1) * counts_n1).sum()
    if not learns:
        return loss, logits_nV
    # No share of an ignored row is left, and so no gradient.
    shares_nV.mul_(counts_n1 / total_n1)
    if torch.compiler.is_compiling():
        # A scatter would be a kernel of its own, before and after which all shares go to memory.
        ids_V = torch.arange(shares_nV.shape[1], device=shares_nV.device)
        shares_nV = torch.where((ids_V == targets_n1) & counts_n1, shares_nV - 1, shares_nV)
    else:
        shares_nV.scatter_add_(1, targets_n1, -counts_n1.float())
    return loss, shares_nV.to(logits_nV.dtype)


@cache
def _compiled_softmax() -> Callable[[Tensor, Tensor, int, bool], tuple[Tensor, Tensor]]:
    # Not on import: the compiler itself takes longer to import than the rest of torch.
    return torch.compile(_softmax, dynamic=False)
