"""The text around each turn, as chat templates write it."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ChatTemplate:
    """One chat template; (before, after) for each role.

    Attributes:
        begin: before the first turn.
        system: None where there is no such turn; its text then goes before the next user's.
        lead: what the assistant's own text begins with (a space after "Assistant:").
        default_system: what stands as system text in a conversation that brings none.
        gap: after the opening of a turn that does not begin with an image.
        image: around an image's placeholders.
        before_text: before each text of a user's or system's message.
        images_first: whether a message's images stand before its text.
        alternates: whether user and assistant must take turns; messages in a row then share one.
        strips: whether a user's text loses the whitespace around it.
    """

    begin: str = ""
    system: tuple[str, str] | None = ("<|im_start|>system\n", "<|im_end|>\n")
    user: tuple[str, str] = ("<|im_start|>user\n", "<|im_end|>\n")
    assistant: tuple[str, str] = ("<|im_start|>assistant\n", "<|im_end|>\n")
    lead: str = ""
    default_system: str = ""
    gap: str = ""
    image: tuple[str, str] = ("", "")
    before_text: str = ""
    images_first: bool = False
    alternates: bool = False
    strips: bool = False

    @property
    def opens_thought(self) -> bool:
        """Whether the assistant's turn begins inside a thought."""
        return self.assistant[0].endswith("<think>\n")


QWEN3 = ChatTemplate(image=("<|vision_start|>", "<|vision_end|>"))

# the template of thinking checkpoints opens the thought; whole turns stay as they were written,
# although that template forgets the thoughts of earlier ones: a cache must stay good
QWEN3_THINKING = replace(QWEN3, assistant=("<|im_start|>assistant\n<think>\n", "<|im_end|>\n"))

QWEN2 = replace(QWEN3, default_system="You are a helpful assistant.")

MISTRAL = ChatTemplate(
    system=("<<SYS>>\n", "\n<</SYS>>\n\n"),
    user=("[INST] ", " [/INST]"),
    assistant=("", "</s> "),
    lead=" ",
    image=("", "\n"),
    images_first=True,
    alternates=True,
)

VICUNA = ChatTemplate(
    system=("", " "),
    user=("USER: ", " "),
    assistant=("ASSISTANT:", "</s>"),
    lead=" ",
    image=("", "\n"),
    images_first=True,
)

LLAVA_CHATML = ChatTemplate(
    system=("<|im_start|>system\n", "<|im_end|>"),
    user=("<|im_start|>user\n", "<|im_end|>"),
    assistant=("<|im_start|>assistant\n", "<|im_end|>"),
    image=("", "\n"),
    images_first=True,
)

LLAMA3 = ChatTemplate(
    system=("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
    user=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    assistant=("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
    image=("", "\n"),
    images_first=True,
)

# the template writes "assistant \n" in history and "assistant\n" in its prompt; one of them must do
ONEVISION = ChatTemplate(
    system=("<|im_start|>system ", "<|im_end|>"),
    user=("<|im_start|>user ", "<|im_end|>"),
    assistant=("<|im_start|>assistant\n", "<|im_end|>"),
    before_text="\n",
    images_first=True,
)

IDEFICS3 = ChatTemplate(
    begin="<|begin_of_text|>",
    system=("System:", "<end_of_utterance>\n"),
    user=("User:", "<end_of_utterance>\n"),
    assistant=("Assistant:", "<end_of_utterance>\n"),
    lead=" ",
    gap=" ",
)

SMOLVLM = replace(IDEFICS3, begin="<|im_start|>")

INTERNVL = ChatTemplate(image=("", "\n"))

GEMMA3 = ChatTemplate(
    begin="<bos>",
    system=None,
    user=("<start_of_turn>user\n", "<end_of_turn>\n"),
    assistant=("<start_of_turn>model\n", "<end_of_turn>\n"),
    alternates=True,
    strips=True,
)
