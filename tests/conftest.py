"""What holds for all tests."""

from hypothesis import settings

settings.register_profile("balkit", deadline=None)  # a test does not fail because the machine is busy
settings.load_profile("balkit")
