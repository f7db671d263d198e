"""Looking again at an image."""

from .act import act
from .actions import ACTIONS, actions_with
from .attend import attend
from .beam import beam
from .controls import random_region, shown, true_region
from .crop import crop, square_view, square_window
from .depth_strategies import depth_latent, depth_text, depth_zoom
from .draw import draw, sheet
from .grounding import format_box, parse_boxes, parse_grounding
from .look_loop import Limits, look
from .look_stats import calls, found, looks, valid_calls
from .regions import regions_of
from .replay import replay
from .scaling import scale
from .verifier import asked, verdict_prompt
from .zoom import zoom
from .zoom_tool import ZOOM_TOOL, zoom_tool
