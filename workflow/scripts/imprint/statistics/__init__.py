"""Intervals, tests, and verdicts on comparisons of arms."""
