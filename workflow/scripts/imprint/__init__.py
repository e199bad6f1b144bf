"""Imprint: move behaviours between prompt, activations and weights, and measure what each move gains."""
