"""Settings of all tests: a slow machine is no reason to fail, CI draws the same examples each time,
and nothing of how the tests themselves were started reaches what they start."""

import os
import signal

from hypothesis import settings

settings.register_profile("webtext", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("webtext")

# A shell's background and nohup ignore them, and children inherit that; they inherit no handler.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

for _name in list(os.environ):
    if _name.lower().endswith("_proxy") or _name.startswith(("RAY_", "WEBTEXT_")):
        del os.environ[_name]
os.environ["RAY_ADDRESS"] = "local"  # not the Ray that this machine may be at work for
