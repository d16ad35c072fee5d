"""Work for demonstrations and measurements: JSON and regular expressions below 30 nested calls.

usage: workload.py SECONDS           works so long, and prints the seconds of CPU time that it took
       workload.py rounds N CPU      waits for a line (or the end) of its input, warms up, works N rounds,
                                     and prints the nanoseconds that they took on its processor"""

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


def on_processor():
    """Nanoseconds, without those in which others had the processor."""
    with open("/proc/thread-self/schedstat") as file:
        waited = int(file.read().split()[1])
    return time.monotonic_ns() - waited


if sys.argv[1] == "rounds":
    os.sched_setaffinity(0, {int(sys.argv[3])})
    sys.stdin.readline()
    for_seconds(0.5)
    begin = on_processor()
    for _ in range(int(sys.argv[2])):
        nested(30)
    print(on_processor() - begin)
else:
    for_seconds(float(sys.argv[1]))
    print(time.process_time())
