"""Logs of other harnesses, compared by Imprint's statistics, and Imprint's results as such logs."""
