"""A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C; the tests of Ctrl-C need it back."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)
