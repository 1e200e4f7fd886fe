"""Settings of all tests: a slow machine is no reason to fail, CI draws the same examples each time,
and what is started hears Ctrl-C even where the tests themselves run in a shell's background."""

import os
import signal

from hypothesis import settings

settings.register_profile("webtext", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("webtext")

# A shell starts `make check &` with the signal ignored, and children inherit that, not a handler.
signal.signal(signal.SIGINT, signal.default_int_handler)
