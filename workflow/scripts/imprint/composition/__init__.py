"""Task vectors: reading, adding, merging and learning their coefficients."""
