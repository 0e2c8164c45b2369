"""asyncio: TCP and UNIX servers with their clients, subprocesses, timers, queues, executors, signals."""
import asyncio
import os
import signal
import sys


async def answer(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper() * 50)
        await writer.drain()
    writer.close()


async def ask(reader, writer, text):
    writer.write(text.encode() + b"\n")
    await writer.drain()
    lines = [await reader.readline() for _ in range(50)]
    assert set(lines) == {text.upper().encode() + b"\n"}, lines
    return len(lines)


async def produce(queue, rounds):
    for i in range(rounds * 2):
        await queue.put(i)
        await asyncio.sleep(0.01)
    await queue.put(None)


async def main(rounds):
    loop, ticks, hups = asyncio.get_running_loop(), [], []
    tcp = await asyncio.start_server(answer, "127.0.0.1", 0)
    unix = await asyncio.start_unix_server(answer, "socket")
    port = tcp.sockets[0].getsockname()[1]
    loop.add_signal_handler(signal.SIGHUP, lambda: hups.append(1))
    tcp_client, unix_client = await asyncio.open_connection("127.0.0.1", port), await asyncio.open_unix_connection("socket")
    filter_ = await asyncio.create_subprocess_exec("sed", "-u", "s/a/o/g", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    queue = asyncio.Queue(3)
    producer = asyncio.create_task(produce(queue, rounds))
    for step in range(rounds):
        loop.call_later(0.05, ticks.append, step)
        counts = await asyncio.gather(ask(*tcp_client, f"step {step}"), ask(*unix_client, f"other {step}"))
        filter_.stdin.write(b"banana %d\n" % step)
        filtered = (await filter_.stdout.readline()).decode().strip()
        child = await asyncio.create_subprocess_shell(f"sleep 0.1; echo {step}; exit {step % 5}", stdout=asyncio.subprocess.PIPE)
        said, _ = await child.communicate()
        os.kill(os.getpid(), signal.SIGHUP)
        in_thread = await asyncio.to_thread(sum, range(100_000))
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0.05)
        except asyncio.TimeoutError:
            pass
        items = [await queue.get(), await queue.get()]
        # A client that comes and goes.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ask(reader, writer, "brief")
        writer.close()
        await writer.wait_closed()
        print(step, counts, filtered, said.decode().strip(), child.returncode, in_thread, items, len(hups), flush=True)
    await producer
    filter_.stdin.close()
    await asyncio.sleep(0.2)
    print(await filter_.wait(), ticks == list(range(rounds)), len(hups))
    tcp.close()
    unix.close()


asyncio.run(main(int(sys.argv[1])))
