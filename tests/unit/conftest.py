"""Hypothesis without its time limit: the machine is shared, and a slow moment is no bug."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
