"""Rows: their identity, their readers, and the database over all tables."""
