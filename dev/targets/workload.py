"""Work for demonstrations and measurements: JSON and regular expressions below 30 nested calls.

usage: workload.py SECONDS           works so long, and prints the seconds of CPU time that it took
       workload.py units N CPU       waits for a line (or the end) of its input, warms up, does N equal
                                     pieces of work, and prints the nanoseconds that each took"""

import json
import os
import re
import sys
import time


def work():
    document = {"numbers": list(range(50)), "text": "hello world " * 20}
    text = json.dumps(document, indent=1)
    json.loads(text)
    return len(re.findall(r"\w+o", document["text"])) + sum(i * i for i in range(200))


def nested(depth):
    return work() if depth == 0 else nested(depth - 1)


def for_seconds(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        nested(30)


def units(count):
    took = []
    for _ in range(count):
        begin = time.monotonic_ns()
        for _ in range(30):
            nested(30)
        took.append(time.monotonic_ns() - begin)
    return took


if sys.argv[1] == "units":
    os.sched_setaffinity(0, {int(sys.argv[3])})
    sys.stdin.readline()
    for_seconds(0.5)
    print(*units(int(sys.argv[2])), sep="\n")
else:
    for_seconds(float(sys.argv[1]))
    print(time.process_time())
