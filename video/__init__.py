"""Looking again in time: clips, their frames, and strategies over them."""

from .context import Showing, clip_of
from .decode import open_video
from .search import over_clips, uniform, watch
from .subtitles import read_subtitles, subtitled
