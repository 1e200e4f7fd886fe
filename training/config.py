"""TrainingConfig: the branch `[training]` of the settings tree.

Rule: a field marked `changes training` is part of what is trained, and its value is in the run's
fingerprint. Every other field says where, how often or how widely the same training is run; it
may move the last bits of a loss, never its course.
"""

from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

_CHANGES = {"changes": ["training"]}
_FINITE = 1e9
"""An infinite number has no place in JSON, where settings are kept, nor among timers."""

Preset = Literal["gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl"]


class BadInput(ValueError):
    """The user's settings or files are at fault; one line that names the key or the file."""


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A GPT-2's sizes."""

    layers: Annotated[int, Meta(ge=1, extra=_CHANGES)]
    """Transformer blocks."""

    heads: Annotated[int, Meta(ge=1, extra=_CHANGES)]
    """Attention heads a block; must divide `width`."""

    width: Annotated[int, Meta(ge=1, extra=_CHANGES)]
    """Numbers that stand for one token between two blocks; time grows with its square."""

    context: Annotated[int, Meta(ge=1, extra=_CHANGES)] = 1024
    """Tokens the model sees at once; attention's time grows with its square."""

    vocabulary: Annotated[int, Meta(ge=2, le=65536, extra=_CHANGES)] = 50257
    """Distinct token ids; a smaller one than the tokenizer's is refused when a larger id is met."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} do not divide width {self.width}")

    def padded_vocabulary(self) -> int:
        """Rows of the embedding: matrix products are faster where a multiple of 64 is given."""
        return -(-self.vocabulary // 64) * 64

    def parameters(self) -> int:
        """Weights that are learnt, the tied head's once, those of padding ids left out."""
        block = 12 * self.width**2 + 13 * self.width
        return (self.vocabulary + self.context + 2) * self.width + self.layers * block


# Radford et al. 2019, table 2, with the parameter counts of the published checkpoints
# (124,439,808; 354,823,168; 774,030,080; 1,557,611,200), which differ from the paper's text.
PRESETS: dict[Preset, ModelConfig] = {
    "gpt2-small": ModelConfig(layers=12, heads=12, width=768),
    "gpt2-medium": ModelConfig(layers=24, heads=16, width=1024),
    "gpt2-large": ModelConfig(layers=36, heads=20, width=1280),
    "gpt2-xl": ModelConfig(layers=48, heads=25, width=1600),
}

_AUTO_TOKENS = {"cuda": 65_536, "cpu": 16_384}
"""What `micro_batch = 0` begins with: tokens of one forward pass. Too many for a GPU's memory is no
harm, they are halved until they fit; a CPU's memory ends differently, and is hardly faster there.
"""


CPU_RANK_ENVIRONMENT = {
    "DS_ACCELERATOR": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}
"""What a rank without a GPU should find in its environment when it starts. One thread a rank makes
sums the same everywhere; the rest lets glibc keep the logits' memory instead of giving it back to
the system after each pass: 130 small steps on two ranks took 112 s of CPU without, 85 s with.
"""


class GuardConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is watched while training, and what is done about it."""

    z_score: Annotated[float, Meta(ge=0.0, le=_FINITE, extra=_CHANGES)] = 6.0
    """A loss or gradient norm this many deviations above the mean of those before is a spike: the
    sources of its batch are written to spikes.jsonl. 0 never looks."""

    window: Annotated[int, Meta(ge=8, extra=_CHANGES)] = 128
    """Steps whose mean and deviation that is; there is no spike before so many are done."""

    rollback: Annotated[bool, Meta(extra=_CHANGES)] = False
    """Whether a spike takes the run back to its newest checkpoint, and on without that batch."""

    rollbacks: Annotated[int, Meta(ge=0)] = 10
    """Times that a run goes back to the same checkpoint; one more ends it."""

    skips: Annotated[int, Meta(ge=0)] = 3
    """Steps in a row whose gradient is not finite, which change nothing and are counted; one more
    ends the run. A loss that is not a number ends it at once."""

    hang_s: Annotated[float, Meta(ge=0.0, le=_FINITE)] = 1800.0
    """Seconds without a finished step after which a rank writes its stacks to hung-*.txt and ends;
    longer than the first step takes to compile. 0 waits for ever."""

    def course(self) -> dict[str, float]:
        """What of it moves the losses: nothing, unless spikes are rolled back."""
        return {"z_score": self.z_score, "window": self.window} if self.rollback else {}


class SampleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `generate` draws the next token."""

    temperature: Annotated[float, Meta(ge=0.0, le=100.0)] = 0.8
    """Logits are divided by it: below 1 bolder, above 1 wilder; 0 takes the likeliest token."""

    top_k: Annotated[int, Meta(ge=0)] = 50
    """Only the k likeliest tokens may be drawn; 0 allows all."""

    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    """Only the smallest set of tokens whose probability reaches this share may be drawn."""

    max_new_tokens: Annotated[int, Meta(ge=1)] = 100
    """Tokens after the prompt, at most; an end-of-text ends the sample earlier."""


_Place = Annotated[str, Meta(min_length=1)]
"""A folder or a URI: empty, it would be the folder one stands in."""


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which GPT-2 is trained, on how much, how fast, and where it is saved."""

    model: Annotated[Preset | ModelConfig, Meta(extra=_CHANGES)] = "gpt2-small"
    """A published size, or a table of sizes: layers, heads, width, context, vocabulary."""

    zero_stage: Annotated[int, Meta(ge=0, le=3)] = 1
    """What DeepSpeed shards over the ranks: 0 nothing, 1 Adam's moments, 2 also gradients, 3 also
    weights. More saves memory and costs communication; the losses stay the same. On a single rank
    0 takes least: from 1 on Adam works on a copy of the weights."""

    offload_optimizer: bool = False
    """Keep Adam's moments, and the copy of the weights it works on, in the host's memory: slower,
    12 bytes a parameter less, shared out over the ranks."""

    batch_tokens: Annotated[int, Meta(ge=1, extra=_CHANGES)] = 524_288
    """Tokens of one optimizer step over all ranks; a multiple of the model's context."""

    micro_batch: Annotated[int, Meta(ge=0)] = 0
    """Windows a rank passes through the model at once, at most; the rest of its share is
    accumulated. Memory grows with it. 0 begins with 65,536 tokens on a GPU, 16,384 on a CPU. Where
    the memory does not suffice, it is halved by itself."""

    steps: Annotated[int, Meta(ge=1, extra=_CHANGES)] = 19_073
    """Optimizer steps of the whole run; the learning rate falls until the last."""

    schedule: Annotated[Literal["cosine", "trapezoid"], Meta(extra=_CHANGES)] = "cosine"
    """How the rate falls after the warm-up: at once, along half a cosine; or not until the last
    `decay_steps`, then in a straight line (Hägele et al. 2024), so that a run can be prolonged."""

    decay_steps: Annotated[int, Meta(ge=0, extra=_CHANGES)] = 0
    """Steps at the end over which a trapezoid falls; a fifth of the run is usual."""

    learning_rate: Annotated[float, Meta(gt=0.0, le=10.0, extra=_CHANGES)] = 6e-4
    """Highest learning rate, reached after the warm-up (GPT-3, table 2.1: 6e-4 for 124 M)."""

    warmup_steps: Annotated[int, Meta(ge=0, extra=_CHANGES)] = 715
    """Steps over which the learning rate rises from 0 in a straight line."""

    final_learning_rate_share: Annotated[float, Meta(ge=0.0, le=1.0, extra=_CHANGES)] = 0.1
    """Share of `learning_rate` that is left at the last step."""

    weight_decay: Annotated[float, Meta(ge=0.0, le=_FINITE, extra=_CHANGES)] = 0.1
    """AdamW's decoupled decay of matrices and embeddings; biases and norms have none."""

    beta1: Annotated[float, Meta(ge=0.0, lt=1.0, extra=_CHANGES)] = 0.9
    """Adam's memory of the gradient."""

    beta2: Annotated[float, Meta(ge=0.0, lt=1.0, extra=_CHANGES)] = 0.95
    """Adam's memory of the gradient's square."""

    clip: Annotated[float, Meta(ge=0.0, le=_FINITE, extra=_CHANGES)] = 1.0
    """A longer gradient is cut to this norm; 0 never cuts."""

    seed: Annotated[int, Meta(ge=0, le=2**63 - 1, extra=_CHANGES)] = 1
    """Of the first weights and of the order of windows."""

    precision: Annotated[Literal["fp32", "bf16"], Meta(extra=_CHANGES)] = "bf16"
    """Of the matrix products. bf16 keeps weights, gradients and optimizer in fp32 and is faster on
    a GPU. fp32 is exact there too: TF32 stays off."""

    compile: bool = False
    """Fuse each block with torch.compile: faster on a GPU after a minute or two of compiling; needs
    a C++ compiler. Not at ZeRO stage 3, whose hooks would cut every graph."""

    deterministic: bool = False
    """Only kernels that give the same bits each time, so that a repeated run on the same GPUs is
    equal to the last bit; a few percent slower. On a CPU it is so anyway."""

    recompute: bool = False
    """Keep only what enters each block and compute the rest again in the backward pass (activation
    checkpointing): a third more work, a fraction of the memory."""

    tokens: _Place | None = None
    """Folder or URI of token shards, instead of those of this recipe's corpus: all that a machine
    that only trains must have. A URI's are copied to `staging` first."""

    staging: _Place | None = None
    """Where copies of token shards from a URI lie, best on each machine's own disk; without it in
    the run's folder."""

    fork: Annotated[_Place | None, Meta(extra=_CHANGES)] = None
    """A checkpoint's folder, RUN/step-NNNNNN, whose weights, optimizer and step this run begins
    with; all other settings but the model's sizes and `batch_tokens` may differ from its."""

    ranks: Annotated[int, Meta(ge=0)] = 0
    """Processes that train together; 0 is one per GPU, or one on a machine that has none."""

    device: Literal["auto", "cpu"] = "auto"
    """Where ranks compute: `auto` takes GPUs where there are any, `cpu` leaves them alone."""

    checkpoint_every: Annotated[int, Meta(ge=1)] = 1000
    """Steps between two checkpoints; a crash loses at most that much. The last step saves too."""

    keep_checkpoints: Annotated[int, Meta(ge=1)] = 3
    """Newest checkpoints kept; each takes 12 bytes a parameter on disk."""

    keep_every: Annotated[int, Meta(ge=0)] = 0
    """Checkpoints of steps that this divides are kept for good; 0 keeps none so."""

    evaluate_every: Annotated[int, Meta(ge=0)] = 250
    """Steps between two looks at the validation split; 0 never looks."""

    evaluate_windows: Annotated[int, Meta(ge=1)] = 64
    """Validation windows such a look reads, always the first; more is slower and less noisy."""

    stop_after: Annotated[int, Meta(ge=1)] | None = None
    """Halt with a checkpoint after this step; schedule and fingerprint stay those of `steps`."""

    tensorboard: bool = False
    """Write the metrics for TensorBoard too, into the run's folder."""

    guard: Annotated[GuardConfig, Meta(extra=_CHANGES)] = GuardConfig()
    """What is watched while training."""

    sample: SampleConfig = SampleConfig()
    """How `generate` draws the next token."""

    def __post_init__(self) -> None:
        if self.batch_tokens % self.sizes().context:
            raise ValueError(
                f"batch_tokens {self.batch_tokens} is not a multiple of the model's context "
                f"{self.sizes().context}"
            )
        falling = self.decay_steps if self.schedule == "trapezoid" else 0
        if self.warmup_steps + falling > self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and decay_steps {falling} exceed steps "
                f"{self.steps}"
            )
        if self.decay_steps and self.schedule == "cosine":
            raise ValueError('decay_steps: only schedule = "trapezoid" has them')
        if self.compile and self.zero_stage == 3:
            raise ValueError("compile: not at zero_stage 3; take stage 2, or leave it out")
        if self.offload_optimizer and not self.zero_stage:
            raise ValueError("offload_optimizer: needs zero_stage 1, 2 or 3")

    def sizes(self) -> ModelConfig:
        """The model's sizes, whichever way `model` gives them."""
        return self.model if isinstance(self.model, ModelConfig) else PRESETS[self.model]

    def batch_windows(self) -> int:
        """Windows of one optimizer step over all ranks."""
        return self.batch_tokens // self.sizes().context

    def world(self, gpus: int) -> int:
        """Processes to start on machines that have `gpus` GPUs in all; BadInput where some would
        get one and others none."""
        if 0 < gpus < self.ranks:
            raise BadInput(
                f"training.ranks: is {self.ranks}, but there are {gpus} GPUs; take fewer ranks, or "
                'set training.device = "cpu"'
            )
        return self.ranks or max(1, gpus)

    def collective_timeout_s(self) -> float:
        """Seconds after which a rank no longer waits for others: more than `guard.hang_s`, so that
        one that hangs can say where first."""
        return self.guard.hang_s + 300.0 if self.guard.hang_s else 1e6

    def last_step(self) -> int:
        """The step after which this run halts."""
        return min(self.steps, self.stop_after or self.steps)

    def rank_windows(self, world: int) -> int:
        """Windows of one step on the rank that has most of `world`; others may have one less."""
        return -(-self.batch_windows() // world)

    def micro_windows(self, world: int, device: str = "cpu", fits: int | None = None) -> int:
        """Windows of one forward pass on each of `world` ranks. At most what the settings say and
        what `fits`, where that is known; the last pass is filled up as little as can be."""
        most = self.micro_batch or max(1, _AUTO_TOKENS[device] // self.sizes().context)
        share = self.rank_windows(world)
        return -(-share // -(-share // min(most, fits or most)))

    def trained(self) -> dict[str, Any]:
        """What is trained: the marked fields, as plain values; a preset counts by its sizes."""
        hints = get_type_hints(TrainingConfig, include_extras=True)
        marked = {name: getattr(self, name) for name in hints if _is_marked(hints[name])}
        plain: dict[str, Any] = msgspec.to_builtins(
            marked | {"model": self.sizes(), "guard": self.guard.course()}
        )
        return plain


def _is_marked(hint: Any) -> bool:
    return any(
        isinstance(meta, Meta) and "training" in (meta.extra or {}).get("changes", ())
        for meta in getattr(hint, "__metadata__", ())
    )
