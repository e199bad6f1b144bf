"""Weights on disk and in memory, their tokenizers and their chat templates."""
