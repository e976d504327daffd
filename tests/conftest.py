"""What holds for every test."""

import signal

from hypothesis import HealthCheck, settings

# A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C; the tests of Ctrl-C need it back.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine and its other work than about the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
