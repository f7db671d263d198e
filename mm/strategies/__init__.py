"""Strategies that need no tool."""

from .single import direct, insist, think
