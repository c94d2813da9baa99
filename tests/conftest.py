"""For all tests: property tests are neither timed (the machine may be busy) nor random between two runs."""

from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
