"""Let a vision-language model look again. `import mm` loads neither torch nor transformers."""

from .answers.extraction import extract_answer
from .answers.matching import same_answer
from .errors import BadImage, ModelError, ModelUnavailable
from .geometry import BoxFormat, Region, Size, iou
from .images import open_image
from .local.load import load
from .remote.connect import connect
from .samples import question
from .scripted import ScriptedVLM
from .session import Event, Session, Strategy, Verifier, run, run_many, stream
from .strategies.best_of import best_of
from .strategies.single import direct, insist, think
from .strategies.voting import vote
from .trace import Branch, Sample, Step, Trace
from .trace_store import load_traces, save_traces
from .types import (
    Clip,
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
from .vlm import VLM, Traits
