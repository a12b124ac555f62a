"""What this computer has: devices, the CPU's instructions, GPU boards, streams.

May import: errors.
"""
