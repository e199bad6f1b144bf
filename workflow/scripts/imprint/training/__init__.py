"""Fits that follow a gradient of a language model's weights."""
