"""30 nested calls that each go through C, so that the interpreter's own functions nest as deep.

usage: through_c.py SECONDS"""

import sys
import time


def leaf(_):
    return sum(i * i for i in range(3000))


def nested(depth):
    return leaf(0) if depth == 0 else next(map(nested, (depth - 1,)))


end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    nested(30)
