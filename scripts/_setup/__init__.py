"""What scripts/setup does: look at the machine (facts), decide (plan), and do what is missing.

Standard library only, since it runs before anything is installed.
"""
