"""GPT-2 as published (Radford et al. 2019), in plain torch.

Learned positions, norm before each sub-layer and once at the end, tanh-GELU, biases everywhere but
in the head, the head's matrix tied to the embedding. Names of weights are those of the published
checkpoint. No dropout: a step then draws no random number. The embedding has rows of padding, for
speed: they are zero, are given no probability and no gradient, and so stay zero.

Shapes: B windows, T tokens, C width, H heads, D = C / H, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from training.config import ModelConfig
from training.cross_entropy import summed_cross_entropy

_EPSILON = 1e-5


@dataclass
class Cache:
    """Keys and values of the tokens read so far, a pair a block, each B H T D."""

    past: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __len__(self) -> int:
        return self.past[0][0].size(2) if self.past else 0

    def extend(self, block: int, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Add a block's new keys and values; all of them."""
        if block == len(self.past):
            self.past.append((k_BHTD, v_BHTD))
        else:
            k_old, v_old = self.past[block]
            both = torch.cat((k_old, k_BHTD), dim=2), torch.cat((v_old, v_BHTD), dim=2)
            self.past[block] = both
        return self.past[block]


class Attention(nn.Module):
    """Each token looks at itself and those before it."""

    def __init__(self, sizes: ModelConfig, block: int) -> None:
        super().__init__()
        self.block, self.heads = block, sizes.heads
        self.c_attn = nn.Linear(sizes.width, 3 * sizes.width)
        self.c_proj = nn.Linear(sizes.width, sizes.width)

    def forward(self, x_BTC: Tensor, cache: Cache | None = None) -> Tensor:
        B, T, C = x_BTC.shape
        qkv = self.c_attn(x_BTC).view(B, T, 3, self.heads, C // self.heads)
        q_BHTD, k_BHTD, v_BHTD = qkv.permute(2, 0, 3, 1, 4)
        if cache is not None:
            k_BHTD, v_BHTD = cache.extend(self.block, k_BHTD, v_BHTD)
        # A single new token may see all that is cached; more than one only come without a past.
        y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=T > 1)
        return self.c_proj(y_BHTD.transpose(1, 2).reshape(B, T, C))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Four times as wide inside."""

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(sizes.width, 4 * sizes.width)
        self.c_proj = nn.Linear(4 * sizes.width, sizes.width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x_BTC), approximate="tanh"))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and MLP, each added to what came in."""

    def __init__(self, sizes: ModelConfig, block: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(sizes.width, eps=_EPSILON)
        self.attn = Attention(sizes, block)
        self.ln_2 = nn.LayerNorm(sizes.width, eps=_EPSILON)
        self.mlp = MLP(sizes)

    def forward(self, x_BTC: Tensor, cache: Cache | None = None) -> Tensor:
        x_BTC = x_BTC + self.attn(self.ln_1(x_BTC), cache)
        return x_BTC + self.mlp(self.ln_2(x_BTC))  # type: ignore[no-any-return]


class Head(nn.Linear):
    """What follows each token: its matrix is the embedding's."""

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__(sizes.width, sizes.padded_vocabulary(), bias=False)
        self.vocabulary, self.fused = sizes.vocabulary, False

    def forward(self, x_BTC: Tensor, targets_BT: Tensor | None = None) -> Tensor:
        """The logits, or the summed cross entropy of targets."""
        if targets_BT is None:
            return super().forward(x_BTC)[..., : self.vocabulary]
        x_NC, targets_N = x_BTC.flatten(0, 1), targets_BT.flatten()
        return summed_cross_entropy(
            x_NC, self.weight, targets_N, self.vocabulary, compiled=self.fused
        )


class GPT2(nn.Module):
    """The whole model; `build` makes one with its first weights."""

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__()
        self.sizes, self.recompute = sizes, False
        self.wte = nn.Embedding(sizes.padded_vocabulary(), sizes.width)
        self.wpe = nn.Embedding(sizes.context, sizes.width)
        self.h = nn.ModuleList(Block(sizes, block) for block in range(sizes.layers))
        self.ln_f = nn.LayerNorm(sizes.width, eps=_EPSILON)
        self.lm_head = Head(sizes)
        self.tie()

    def tie(self) -> None:
        """Make the head's matrix the embedding's; anew after the weights were replaced."""
        self.lm_head.weight = self.wte.weight

    def fuse(self) -> None:
        """Compile each block and the loss; the names of the weights stay as they are."""
        for block in self.h:
            block.compile(dynamic=False)
        self.lm_head.fused = True

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Summed cross entropy of the targets that are not cross_entropy.IGNORED, in nats, fp32."""
        return self.lm_head(self._hidden(ids_BT), targets_BT)  # type: ignore[no-any-return]

    def logits(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        """What follows each token, V numbers each. With a cache, `ids_BT` are the tokens after
        those it holds: any number of them first, then one at a time."""
        return self.lm_head(self._hidden(ids_BT, cache))  # type: ignore[no-any-return]

    def _hidden(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        seen = len(cache) if cache is not None else 0
        positions_T = torch.arange(seen, seen + ids_BT.size(1), device=ids_BT.device)
        x_BTC = self.wte(ids_BT) + self.wpe(positions_T)
        recompute = self.recompute and torch.is_grad_enabled() and cache is None
        for block in self.h:
            if recompute:
                x_BTC = checkpoint(block, x_BTC, use_reentrant=False, preserve_rng_state=False)
            else:
                x_BTC = block(x_BTC, cache)
        return self.ln_f(x_BTC)  # type: ignore[no-any-return]


def build(sizes: ModelConfig, seed: int) -> GPT2:
    """A GPT-2 with its first weights, on the CPU; the same on every machine for the same seed."""
    model = empty(sizes)
    _initialise(model, torch.Generator().manual_seed(seed))
    return model


def empty(sizes: ModelConfig) -> GPT2:
    """A GPT-2 on the CPU whose weights are whatever the memory holds, for `load_weights`."""
    with torch.device("meta"):
        model = GPT2(sizes)
    model = model.to_empty(device="cpu")
    model.tie()
    return model


def own_weights(model: GPT2) -> dict[str, Tensor]:
    """A model's weights by name, without padding and without the head's, which is the embedding:
    views of its own memory."""
    return {name: trimmed(name, w.detach(), model.sizes) for name, w in model.named_parameters()}


def load_weights(model: GPT2, weights: Mapping[str, Tensor]) -> None:
    """Put `weights`, as `own_weights` names them, into a model; ValueError where a name or a shape
    differs."""
    mine = dict(model.named_parameters())
    if wrong := sorted(mine.keys() ^ weights.keys()):
        raise ValueError(f"{wrong[0]}: is not in both of model and weights")
    with torch.no_grad():
        for name, weight in mine.items():
            found = trimmed(name, weight, model.sizes)
            if found.shape != weights[name].shape:
                has, wants = tuple(weights[name].shape), tuple(found.shape)
                raise ValueError(f"{name}: has shape {has}, the model's is {wants}")
            weight.zero_()
            found.copy_(weights[name])


def trimmed(name: str, tensor: Tensor, sizes: ModelConfig) -> Tensor:
    """A weight, or what the optimizer keeps of it, without the rows of padding."""
    return tensor[: sizes.vocabulary] if name == "wte.weight" else tensor


def _initialise(model: GPT2, generator: torch.Generator) -> None:
    """As in OpenAI's code: normal with 0.02, positions 0.01, biases 0, norms 1; what is added to
    the residual stream smaller by sqrt(2 layers), so that its variance does not grow with depth."""
    residual = 0.02 / (2 * model.sizes.layers) ** 0.5
    for name, weight in model.named_parameters():  # a tied weight comes once
        if name.endswith("bias"):
            nn.init.zeros_(weight)
        elif weight.dim() == 1:
            nn.init.ones_(weight)
        else:
            deviation = residual if name.endswith("c_proj.weight") else 0.02
            deviation = 0.01 if name == "wpe.weight" else deviation
            nn.init.normal_(weight, std=deviation, generator=generator)
    nn.init.zeros_(model.wte.weight[model.sizes.vocabulary :])
