"""What is to be trained, on what and how; the one place that says which keys there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .recipe_keys import MethodName, check_values, key, keys_of

Loss = Literal["grpo", "dapo", "dr_grpo", "gspo", "gppo"]
Looks = Literal["tool", "inline", "replay"]

SEEDS = 2**32 - 1
"""The largest seed that all libraries take."""

ONLY_GRPO = ("grpo",)


@dataclass(frozen=True)
class Recipe:
    """A training. None leaves a choice to the toolkit, which prints it.

    Raises:
        BadData: a value that its key does not take.
    """

    method: MethodName = "sft"
    data: str = key("", "Rows to learn from.")
    eval_data: str | None = key(
        None, "Rows held out; where none are named, a share of many `data` is."
    )
    model: str = key("tiny", "`tiny`, a hub id, or a local folder.")
    output: str = key("", "Folder for the trained model, and for its checkpoints meanwhile.")
    max_minutes: float | None = key(
        None, "Be done by then, at the end of the learning rate's fall.", above=0
    )
    max_steps: int | None = key(None, "Be done by then.", at_least=1)
    epochs: float | None = key(
        None, "How often to see each row; 3, or what minutes or steps allow.", above=0
    )
    learning_rate: float | None = key(None, "At its highest.", above=0)
    batch_tokens: int | None = key(
        None, "Padded tokens in a batch, visual ones included.", at_least=1
    )
    optimizer: Literal["adamw", "muon"] | None = key(
        None, "adamw or muon; by default muon for small models, all of whose weights train in sft."
    )
    quantize: Literal["4bit", "8bit"] | None = key(
        None, "4bit or 8bit weights under an adapter (QLoRA), through bitsandbytes."
    )
    lora: bool | None = key(None, "An adapter, or all weights.", flag="--lora/--full")
    lora_rank: int = key(16, "Of the adapter.", at_least=1)
    vision: bool | None = key(
        None, "Train the vision tower too, or freeze it.", flag="--vision/--no-vision"
    )
    compile: bool | None = key(
        None, "Compile the decoder; by default where that pays.", flag="--compile/--no-compile"
    )
    blind: bool = key(False, "Show grey images: a control.", flag="--blind")
    looks: Looks | None = key(
        None,
        "How completions look again, in rows and in answers: tool calls, VLM-R3's crops inline, "
        "or replay of what VGR's signals point at.",
    )
    max_pixels: int | None = key(
        None, "The largest area, in pixels, an image is seen in.", at_least=1
    )
    min_pixels: int | None = key(None, "The smallest; smaller images are enlarged.", at_least=1)
    visual_tokens: int | None = key(
        None,
        "About so many for each image but looks; ask the trained model under as many.",
        at_least=1,
    )
    look_visual_tokens: int | None = key(None, "About so many for each look.", at_least=1)
    seed: int = key(0, "Of the order of rows, and of answers.", at_least=0, at_most=SEEDS)
    report_to: Literal["tensorboard", "trackio"] | None = key(
        None, "Log to tensorboard or trackio too."
    )
    device: str | None = key(None, "cpu, cuda or mps; cuda where there is one by default.")
    format: str = key("auto", "How rows are written; auto finds out from their columns.")
    ignore: str | None = key(None, "Columns to leave unread, names between commas.")
    allow_absolute_paths: bool = key(
        False, "Rows may name images outside their folder.", flag="--allow-absolute-paths"
    )
    allow_urls: bool = key(
        False, "Rows may name images on the web: downloaded.", flag="--allow-urls"
    )
    accumulate: int = key(
        1, "Batches whose gradients a step sums.", at_least=1, methods=("sft", "dpo")
    )
    box_loss: float = key(
        0.0, "With --looks replay: the weight of VGR's box loss.", at_least=0, methods=("sft",)
    )
    beta: float | None = key(
        None,
        "How close to stay to the start; 0.1 in dpo, 0 in grpo by default.",
        at_least=0,
        methods=("dpo", "grpo"),
    )
    sft_weight: float = key(
        0.0,
        "Of the chosen side's likelihood, added to the loss: keeps it from falling.",
        at_least=0,
        methods=("dpo",),
    )
    strategy: str = key("zoom", "How answers are sampled; zoom by default.", methods=ONLY_GRPO)
    depth_scale: str | None = key(
        None, "Of rows' depth maps, units a metre: a number, nyu, tum or kitti.", methods=ONLY_GRPO
    )
    depth_kind: Literal["metric", "relative", "inverse"] | None = key(
        None,
        "What their numbers mean: metres; larger is farther; is nearer.",
        methods=ONLY_GRPO,
    )
    depth_model: str | None = key(
        None, "A depth-estimation checkpoint, for images without a map.", methods=ONLY_GRPO
    )
    rewards: str | dict | None = key(
        "accuracy",
        "Such as r-grpo, or accuracy + 0.5*looked@accuracy.",
        flag="--reward",
        methods=ONLY_GRPO,
    )
    siglip: str | None = key(
        None, "A SigLIP checkpoint, for the rewards video-rft.", methods=ONLY_GRPO
    )
    verifier: str | None = key(
        None, "A trained verifier's folder, for the reward verifier.", methods=ONLY_GRPO
    )
    rewards_by_source: dict | None = key(
        None, "Other rewards for the rows of some sources.", flag="", methods=ONLY_GRPO
    )
    prompts: int = key(8, "Questions in a step.", at_least=1, methods=ONLY_GRPO)
    group: int = key(8, "Answers to each.", at_least=2, methods=ONLY_GRPO)
    iterations: int = key(1, "How often each answer is learnt from.", at_least=1, methods=ONLY_GRPO)
    temperature: float = key(1.0, "How freely tokens are drawn.", above=0, methods=ONLY_GRPO)
    top_p: float = key(
        1.0,
        "Draw from the likeliest tokens that hold this probability.",
        above=0,
        at_most=1,
        methods=ONLY_GRPO,
    )
    top_k: int = key(
        0, "Draw from the so many likeliest tokens; 0 for all.", at_least=0, methods=ONLY_GRPO
    )
    min_p: float = key(
        0.0,
        "Draw from tokens of at least so much of the likeliest one's probability.",
        at_least=0,
        at_most=1,
        methods=ONLY_GRPO,
    )
    repetition_penalty: float = key(
        1.0,
        "Of tokens that the prompt or the reply has; 1 changes nothing.",
        above=0,
        methods=ONLY_GRPO,
    )
    presence_penalty: float = key(
        0.0,
        "Of tokens that the reply has; 0 changes nothing.",
        at_least=-2,
        at_most=2,
        methods=ONLY_GRPO,
    )
    frequency_penalty: float = key(
        0.0,
        "Of tokens, for each time the reply has them; 0 changes nothing.",
        at_least=-2,
        at_most=2,
        methods=ONLY_GRPO,
    )
    system: str | None = key(
        None, "A system message before each question that is sampled.", methods=ONLY_GRPO
    )
    max_looks: int = key(6, "In an answer.", at_least=0, methods=ONLY_GRPO)
    max_tokens: int = key(512, "In a turn of an answer.", at_least=1, methods=ONLY_GRPO)
    max_thought_tokens: int | None = key(
        None, "A longer thought is closed, the answer opened.", at_least=1, methods=ONLY_GRPO
    )
    loss: Loss = key("grpo", "grpo, dapo, dr_grpo, gspo or gppo.", methods=ONLY_GRPO)
    clip_low: float = key(
        0.2, "How far a probability may fall; 0.2 by default.", at_least=0, methods=ONLY_GRPO
    )
    clip_high: float = key(
        0.2, "How far it may rise; 0.2 by default.", at_least=0, methods=ONLY_GRPO
    )

    def __post_init__(self) -> None:
        check_values(Recipe, vars(self))


KEYS = keys_of(Recipe)
"""What each key means and takes: flags, checks and tables are made from these."""

Recipe.__doc__ = f"{Recipe.__doc__}\n    Attributes:\n" + "\n".join(
    f"        {name}: {known.help}" for name, known in KEYS.items()
)
