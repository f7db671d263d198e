"""Measuring whether looking again helps."""
