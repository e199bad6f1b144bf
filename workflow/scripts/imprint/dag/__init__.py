"""Which jobs there are, where their files lie, and what each job reads.

Nothing in this folder imports torch, and its code enters no job's identity.
"""
