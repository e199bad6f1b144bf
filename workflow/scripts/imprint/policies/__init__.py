"""Everything that puts words to a model."""
