"""What carries a job: files, locks, records, GPUs, plug-ins.

This folder does not decide what a job computes, so its code enters no job's identity. It imports nothing else of the
package, and it imports torch only inside functions.
"""
