"""`subprocess`: pipelines of several programs, bytes by the megabyte, time limits, groups of processes."""
import hashlib
import os
import signal
import subprocess
import sys
import time

PIPE = subprocess.PIPE
for step in range(int(sys.argv[1])):
    numbers = subprocess.Popen(["seq", str(step), str(step + 200_000)], stdout=PIPE)
    sort = subprocess.Popen(["sort", "-r"], stdin=numbers.stdout, stdout=PIPE)
    packed = subprocess.Popen(["gzip", "-nc"], stdin=sort.stdout, stdout=PIPE)
    numbers.stdout.close()
    sort.stdout.close()
    digest = hashlib.sha256(packed.communicate()[0]).hexdigest()[:16]
    codes = [process.wait() for process in (numbers, sort, packed)]
    text = subprocess.run(["tr", "a-z", "A-Z"], input="some text\n" * 100_000, capture_output=True, text=True).stdout
    slow = subprocess.Popen(["sh", "-c", "trap 'exit 7' TERM; sleep 60 & wait"], start_new_session=True)
    try:
        slow.wait(0.2)
    except subprocess.TimeoutExpired:
        os.killpg(slow.pid, signal.SIGTERM)
    lines = subprocess.Popen("for i in 1 2 3; do echo $i; sleep 0.05; done >&2", shell=True, stderr=PIPE, text=True)
    print(step, digest, codes, len(text), text[:9], slow.wait(), [line.strip() for line in lines.stderr], lines.wait(), flush=True)
    time.sleep(0.02)
