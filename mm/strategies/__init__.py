"""Strategies that need no tool."""

from .best_of import best_of
from .drawing import length, likelihood
from .single import direct, insist, think
from .voting import vote
