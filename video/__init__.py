"""Frames of a clip, and looking again in time."""
