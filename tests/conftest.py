"""Settings of all tests: a slow machine is no reason to fail, and CI draws the same examples each
time."""

import os

from hypothesis import settings

settings.register_profile("webtext", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("webtext")
