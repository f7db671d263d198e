"""Let a vision-language model look again. `import mm` loads neither torch nor transformers."""

from .answers import extract_answer, same_answer
from .geometry import BoxFormat, Region, Size, iou
from .images import BadImage, open_image
from .load import load
from .question import question
from .scripted import ScriptedVLM
from .served import connect
from .session import Event, Session, Strategy, Verifier, run, run_many, stream
from .store import load_traces, save_traces
from .strategies import direct, insist, think
from .trace import Branch, Sample, Step, Trace
from .types import (
    Cost,
    Features,
    Generation,
    Image,
    Message,
    Sampling,
    Text,
    Thinking,
    ToolCall,
    ToolSpec,
    assistant,
    message,
    user,
)
from .vlm import VLM, ModelError, ModelUnavailable, Traits
