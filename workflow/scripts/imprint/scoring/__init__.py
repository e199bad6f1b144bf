"""Verdicts on responses, and the processes and jails in which they are reached."""
