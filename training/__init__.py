"""Tokens become a model: GPT-2 byte pairs, memory-mapped shards, the trainer on DeepSpeed ZeRO.

Knows nothing of Reddit, pages or Ray. `config`, `schema`, `tokenizer`, `tokens`, `batches`,
`schedule`, `checkpoint` and `metrics` run without torch; DeepSpeed is imported by `zero` alone.
"""
