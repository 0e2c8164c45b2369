"""`multiprocessing`: Pool, Queue, JoinableQueue, Manager, Lock, Event, Barrier; started by fork or by spawn."""
import multiprocessing as mp
import sys
import time


def square(x):
    time.sleep(0.02)
    return x * x + sum(range(20_000)) % 7


def consume(tasks, results, lock, count):
    while (item := tasks.get()) is not None:
        with lock:
            count.value += 1
        results.put((item, str(item)[::-1] * 3000))
        tasks.task_done()
    tasks.task_done()


def write(shared, names, barrier, done, me):
    for i in range(5):
        shared[f"{me}-{i}"] = i * me
        names.append(me)
        barrier.wait()
    done.wait()


if __name__ == "__main__":
    rounds, context = int(sys.argv[1]), mp.get_context(sys.argv[2])
    tasks, results, lock, count = context.JoinableQueue(), context.Queue(), context.Lock(), context.Value("i", 0)
    workers = [context.Process(target=consume, args=(tasks, results, lock, count)) for _ in range(2)]
    for worker in workers:
        worker.start()
    with context.Pool(3) as pool, context.Manager() as manager:
        for step in range(rounds):
            for i in range(10):
                tasks.put(step * 10 + i)
            squares = pool.map(square, range(step, step + 12))
            lazily = sorted(pool.imap_unordered(square, range(8)))
            tasks.join()
            texts = sorted(results.get() for _ in range(10))
            assert all(text == str(item)[::-1] * 3000 for item, text in texts)
            print(step, squares, lazily, [item for item, _ in texts], count.value, flush=True)
            if step % 10 == 0:
                shared, names, barrier, done = manager.dict(), manager.list(), context.Barrier(2), context.Event()
                writers = [context.Process(target=write, args=(shared, names, barrier, done, me)) for me in (1, 2)]
                for writer in writers:
                    writer.start()
                time.sleep(0.1)
                done.set()
                for writer in writers:
                    writer.join()
                print(sorted(shared.items()), sorted(names), [writer.exitcode for writer in writers], flush=True)
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        worker.join()
    print(count.value, [worker.exitcode for worker in workers])
