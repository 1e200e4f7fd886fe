"""GPT-2 as published (Radford et al. 2019), in plain torch.

Learned positions, norm before each sub-layer and once at the end, tanh-GELU, biases everywhere but
in the head, the head's matrix tied to the embedding. Names of weights are those of the published
checkpoint. No dropout: a step then draws no random number, and resuming needs no random state.

Shapes: B windows, T tokens, C width, H heads, D = C / H, V vocabulary.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import ModelConfig

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


class GPT2(nn.Module):
    """The whole model; `build` makes one with its first weights."""

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.wte = nn.Embedding(sizes.vocabulary, sizes.width)
        self.wpe = nn.Embedding(sizes.context, sizes.width)
        self.h = nn.ModuleList(Block(sizes, block) for block in range(sizes.layers))
        self.ln_f = nn.LayerNorm(sizes.width, eps=_EPSILON)
        self.lm_head = nn.Linear(sizes.width, sizes.vocabulary, bias=False)
        self.tie()

    def tie(self) -> None:
        """Make the head's matrix the embedding's; anew after the weights were replaced."""
        self.lm_head.weight = self.wte.weight

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross entropy of the targets, in nats."""
        logits_BTV = self.logits(ids_BT)
        return F.cross_entropy(logits_BTV.float().flatten(0, 1), targets_BT.flatten())

    def logits(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        """What follows each token, V numbers each. With a cache, `ids_BT` are the tokens after
        those it holds: any number of them first, then one at a time."""
        seen = len(cache) if cache is not None else 0
        positions_T = torch.arange(seen, seen + ids_BT.size(1), device=ids_BT.device)
        x_BTC = self.wte(ids_BT) + self.wpe(positions_T)
        for block in self.h:
            x_BTC = block(x_BTC, cache)
        return self.lm_head(self.ln_f(x_BTC))  # type: ignore[no-any-return]


def build(sizes: ModelConfig, seed: int) -> GPT2:
    """A GPT-2 with its first weights, on the CPU; the same on every machine for the same seed."""
    with torch.device("meta"):
        model = GPT2(sizes)
    model = model.to_empty(device="cpu")
    model.tie()
    _initialise(model, torch.Generator().manual_seed(seed))
    return model


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
