"""What the studies under experiments/ share: prompts that are read once, rows that survive a kill,
figures.
"""
