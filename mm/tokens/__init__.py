"""Messages to token ids, images and training mask: one builder for inference and training."""

from .builder import TokenBuilder
