"""`python -m lesion_seg` is the command line."""

import sys

from lesion_seg.cli import main

if __name__ == '__main__':
    sys.exit(main())
