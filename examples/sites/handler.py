"""A site's recipe for Python: the handler of SIGUSR2 sets a flag, and the loop saves at a good moment. ROUNDS: number of rounds of 0.1 s."""

import os
import signal
import sys
import time

wanted = False


def note(number, frame):
    global wanted
    wanted = True


signal.signal(signal.SIGUSR2, note)
start = int(open("state.txt").read()) if os.path.exists("state.txt") else 0
for round in range(start + 1, int(os.environ.get("ROUNDS", 36000)) + 1):
    time.sleep(0.1)
    print("round", round, flush=True)
    if wanted:
        with open("state.txt", "w") as file:
            file.write(str(round))
        print("saved at round", round, flush=True)
        sys.exit(85)
