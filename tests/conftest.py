"""What holds for all tests."""

import os
import signal

from hypothesis import settings

settings.register_profile("balkit", deadline=None)  # a test does not fail because the machine is busy
settings.load_profile("balkit")

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and tables would wrap in tests of what they say
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it runs in the background ignore Ctrl-C
