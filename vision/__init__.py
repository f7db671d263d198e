"""Looking again at a picture."""

from .attend import attend
from .call import ZOOM_TOOL, zoom_tool
from .controls import random_region, shown, true_region
from .crop import crop, square_view, square_window
from .draw import draw, sheet
from .grounding import format_box, parse_boxes, parse_grounding
from .look import Limits, look
from .regions import regions_of
from .replay import replay
from .statistics import calls, found, looks, valid_calls
from .zoom import zoom
