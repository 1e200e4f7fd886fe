"""Text from a run's newest whole checkpoint: temperature, top-k, top-p, a cache of keys and values.

The same prompt, seed and weights give the same text. Past the model's context only the last
`context` tokens are seen, and the cache is of no use: their positions move with every token.
"""

import torch
from torch import Tensor

from training import tokenizer
from training.config import BadInput, SampleConfig, TrainingConfig
from training.evaluate import open_model
from training.model import GPT2, Cache


def generate(folder: str, prompt: str, config: TrainingConfig, seed: int) -> str:
    """`prompt` and what the model writes after it, up to its end-of-text.

    BadInput where the run has no whole checkpoint or the prompt is not in its vocabulary.
    """
    model, _ = open_model(folder, config)
    # An empty prompt stands for the begin of a document: what follows an end-of-text.
    ids = _prompt_ids(prompt) or [tokenizer.END_OF_TEXT]
    vocabulary = config.sizes().vocabulary
    if max(ids) >= vocabulary:
        raise BadInput(
            f"training.model.vocabulary: is {vocabulary}, but the prompt has id {max(ids)}"
        )
    return prompt + tokenizer.decode(continuation(model, ids, config.sample, seed))


def continuation(
    model: GPT2, prompt: list[int], sample: SampleConfig, seed: int, cached: bool = True
) -> list[int]:
    """The ids that follow `prompt`'s, end-of-text left out; `cached` changes the speed only."""
    random = torch.Generator().manual_seed(seed)
    ids, cache = list(prompt), Cache()
    for _ in range(sample.max_new_tokens):
        logits = _next_logits(model, ids, cache if cached else None)
        drawn = draw(logits[: tokenizer.VOCABULARY].float().cpu(), sample, random)
        if drawn == tokenizer.END_OF_TEXT:
            break
        ids.append(drawn)
    return ids[len(prompt) :]


def draw(logits: Tensor, sample: SampleConfig, random: torch.Generator) -> int:
    """One id by the settings; ties of the greedy choice go to the lower id."""
    if sample.temperature == 0.0:
        return int(logits.argmax())
    # As distances from the likeliest, in doubles: a temperature near 0 then gives the others a
    # share of 0, where it would make every logit infinite.
    distances = logits.double() - logits.max()
    shares, ids = torch.softmax(distances / sample.temperature, 0).sort(
        descending=True, stable=True
    )
    if sample.top_k:
        shares = shares[: sample.top_k]
        shares = shares / shares.sum()
    # Holtzman et al. 2020: an id is in while those before it have not yet reached the share.
    shares = shares[shares.cumsum(0) - shares < sample.top_p]
    return int(ids[torch.multinomial(shares, 1, generator=random)])


def _prompt_ids(prompt: str) -> list[int]:
    try:
        return tokenizer.encode(prompt)
    except UnicodeEncodeError as error:
        raise BadInput(f"the prompt is not UTF-8 at character {error.start}") from error


@torch.no_grad()
def _next_logits(model: GPT2, ids: list[int], cache: Cache | None) -> Tensor:
    context = model.sizes.context
    if cache is None or len(ids) > context:
        return model.logits(_table(model, ids[-context:]))[0, -1]
    return model.logits(_table(model, ids[len(cache) :]), cache)[0, -1]


def _table(model: GPT2, ids: list[int]) -> Tensor:
    return torch.tensor([ids], device=model.wte.weight.device)
