"""sqlite3 with a write-ahead log and two connections, and mapped files, private and shared, of one and of two processes."""
import mmap
import os
import sqlite3
import sys
import time

rounds = int(sys.argv[1])
writer, reader = sqlite3.connect("base.db"), sqlite3.connect("base.db")
print(writer.execute("pragma journal_mode=wal").fetchone())
writer.execute("create table entries (id integer primary key, step int, value text)")
writer.create_function("double", 1, lambda x: 2 * x)
with open("mapped", "wb") as file:
    file.truncate(1 << 20)
file = open("mapped", "r+b")
shared = mmap.mmap(file.fileno(), 0)
private = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
anonymous = mmap.mmap(-1, 4096)
child = os.fork()
if child == 0:
    seen = 0
    while seen < rounds:
        now = int.from_bytes(shared[:8], "little")
        if now != seen:
            seen = now
            anonymous[:8] = (seen * 3).to_bytes(8, "little")
        time.sleep(0.001)
    os._exit(9)
for step in range(rounds):
    with writer:
        writer.executemany("insert into entries (step, value) values (?, ?)", [(step, f"value {step} {i}" * 5) for i in range(200)])
    private[step % 4096] = step % 251
    shared[4096 + step] = step % 250 + 1
    shared[:8] = (step + 1).to_bytes(8, "little")
    while int.from_bytes(anonymous[:8], "little") != 3 * (step + 1):
        time.sleep(0.001)
    shared.flush()
    count, total = reader.execute("select count(*), sum(step) from entries").fetchone()
    print(step, count, total, writer.execute("select double(?)", (step,)).fetchone()[0], sum(private[:4096]), flush=True)
    time.sleep(0.05)
print(os.waitpid(child, 0)[1], reader.execute("pragma integrity_check").fetchone())
