"""`concurrent.futures`: a pool of processes and a pool of threads, with callbacks, timeouts and exceptions."""
import concurrent.futures as cf
import hashlib
import sys
import time


def work(n):
    if n % 13 == 12:
        raise ValueError(f"not {n}")
    time.sleep(0.02)
    digest = b"%d" % n
    for _ in range(20_000):
        digest = hashlib.sha256(digest).digest()
    return n, digest.hex()[:12]


if __name__ == "__main__":
    called = []
    with cf.ProcessPoolExecutor(2) as processes, cf.ThreadPoolExecutor(4) as threads:
        for step in range(int(sys.argv[1])):
            pending = [processes.submit(work, step * 8 + i) for i in range(8)]
            waiting = [threads.submit(work, step * 4 + i) for i in range(4)]
            pending[0].add_done_callback(lambda future: called.append(future.exception() is None))
            slow = threads.submit(time.sleep, 0.2)
            try:
                slow.result(timeout=0.05)
                late = "in time"
            except cf.TimeoutError:
                late = "late"
            done, _ = cf.wait(pending + waiting)
            said = [str(future.exception() or future.result()) for future in pending + waiting]
            print(step, late, len(done), said, list(threads.map(abs, range(-3, 0))), flush=True)
    print(sum(called), len(called))
