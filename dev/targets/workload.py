"""Work for demonstrations and measurements: JSON and regular expressions below 30 nested calls.

usage: workload.py SECONDS [cpu]
Works so long; with `cpu`, prints the seconds of CPU time that it took."""

import json
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


end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    nested(30)
if sys.argv[2:] == ["cpu"]:
    print(time.process_time())
