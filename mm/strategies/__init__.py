"""Strategies that need no tool."""

from .best_of import best_of
from .drawing import length, likelihood
from .forced_answer import force_answer
from .single import direct, insist, think
from .voting import vote
