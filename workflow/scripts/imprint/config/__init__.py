"""What one YAML file says, and how its parts name each other.

Nothing in this folder imports torch, and its code enters no job's identity.
"""
