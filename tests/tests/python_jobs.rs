//! Python jobs: numpy with its threads, threading, subprocess, multiprocessing, generators, and files being appended to.
//!
//! Each runs with the system's interpreter; those that bring most code of their own also with the first `python3` of the
//! search path, where that is another one.

use std::path::PathBuf;

use ckpt_tests::{Identity, Job, not_run, survives};

/// The system's interpreter, as its packages install it.
const SYSTEM: &str = "/usr/bin/python3";

const NUMPY: &str = r#"
import numpy as np, hashlib, time
rng = np.random.default_rng(7)
a = rng.integers(-4, 5, (400, 400)).astype(np.float64)
total = np.eye(400)
for step in range(60):
    # Whole numbers below 2**53: exact in any order, so that the threads cannot make a difference.
    total = np.remainder(total @ a, 8191.0)
    if step % 10 == 9:
        print(step, hashlib.sha256(total.tobytes()).hexdigest()[:16], flush=True)
    time.sleep(0.05)
print(int(total.sum()), rng.integers(1 << 30))
"#;

const PSUTIL: &str = r#"
import psutil, subprocess, time
child = subprocess.Popen(["sleep", "1000"])
known, me = psutil.Process(child.pid), psutil.Process()
for i in range(60):
    assert known.is_running() and me.is_running() and psutil.Process(child.pid) == known, i
    time.sleep(0.05)
known.terminate()
print(known.wait(10), child.wait(), known.is_running())
"#;

const THREADING: &str = r#"
import threading, queue, time
work, results, lock, local = queue.Queue(4), {}, threading.Lock(), threading.local()
def worker(me):
    local.me = me
    while (item := work.get()) is not None:
        time.sleep(0.05)
        assert local.me == me
        with lock:
            results[item] = sum(i * i for i in range(item * 100))
        work.task_done()
threads = [threading.Thread(target=worker, args=(i,)) for i in range(4)]
for t in threads: t.start()
timer_fired = threading.Event()
threading.Timer(2.5, timer_fired.set).start()
for item in range(200): work.put(item)
work.join()
for t in threads: work.put(None)
for t in threads: t.join()
assert timer_fired.wait(30)
for item in sorted(results): print(item, results[item])
"#;

const SUBPROCESS: &str = r#"
import subprocess, sys, time
for i in range(15):
    p = subprocess.Popen(["sh", "-c", "cat; sleep 0.1; exit $1", "sh", str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    out, _ = p.communicate("text %d\n" % i * 1000)
    print(i, len(out), p.returncode)
pipe = subprocess.Popen(["sh", "-c", "for i in $(seq 1 30); do echo $i; sleep 0.05; done"], stdout=subprocess.PIPE, text=True)
for line in pipe.stdout: print("line", line.strip(), flush=True)
print(pipe.wait())
try:
    subprocess.run(["sleep", "100"], timeout=0.5)
except subprocess.TimeoutExpired:
    print("timed out")
"#;

const MULTIPROCESSING: &str = r#"
import multiprocessing as mp, time
def square(x):
    time.sleep(0.05)
    return x * x
if __name__ == "__main__":
    context = mp.get_context("fork")
    receive, give = context.Pipe(duplex=False)
    back, answer = context.Pipe(duplex=False)
    def turn(inward, outward):
        while (item := inward.recv()) is not None:
            outward.send((item[0], item[1][::-1]))
    p = context.Process(target=turn, args=(receive, answer))
    p.start()
    for i in range(40):
        give.send((i, "text %d " % i * 2000))
        number, text = back.recv()
        assert number == i and len(text) == len("text %d " % i * 2000)
        time.sleep(0.03)
        print(number, text[:10])
    give.send(None)
    p.join()
    print("ended with", p.exitcode)
    counter = context.Value("i", 0)
    def count():
        for _ in range(50):
            with counter.get_lock(): counter.value += 1
            time.sleep(0.01)
    counters = [context.Process(target=count) for _ in range(3)]
    for c in counters: c.start()
    for c in counters: c.join()
    print("counted", counter.value)
    with context.Pool(3) as pool:
        print(pool.map(square, range(60)))
"#;

const GENERATORS: &str = r#"
import itertools, time
def primes():
    known = []
    for n in itertools.count(2):
        if all(n % p for p in known):
            known.append(n)
            yield n
def pairs():
    a, b = primes(), map(lambda n: n * n, itertools.count())
    while True:
        yield next(a), next(b)
source = pairs()
for prime, square in itertools.islice(source, 100):
    print(prime, square)
    time.sleep(0.02)
print(next(source), list(itertools.islice((x for x in source if x[0] % 10 == 7), 5)))
"#;

const APPENDING: &str = r#"
import time, os
log = open("log", "a", buffering=1)
new = open("new", "w", buffering=1)
both = open("both", "w+b", buffering=0)
for i in range(150):
    print("entry", i, file=log)
    print("entry", i, file=new)
    both.write(b"%04d" % i)
    both.seek(-4, os.SEEK_CUR)
    assert both.read(4) == b"%04d" % i
    time.sleep(0.02)
print(os.path.getsize("log"), os.path.getsize("new"), both.tell())
"#;

/// Two processes that share memory by its name, named semaphores, and a value.
const SHARED_MEMORY: &str = r"
import os, time
from multiprocessing import Process, shared_memory, Semaphore, Value

def double(name, turn, done, rounds):
    memory = shared_memory.SharedMemory(name)
    for _ in range(rounds):
        turn.acquire()
        memory.buf[0] = (memory.buf[0] * 2 + 1) % 251
        done.release()
    memory.close()

if __name__ == '__main__':
    memory = shared_memory.SharedMemory(create=True, size=100000)
    memory.buf[99999] = 7
    turn, done, count = Semaphore(0), Semaphore(0), Value('i', 0)
    child = Process(target=double, args=(memory.name, turn, done, 150))
    child.start()
    wanted = 0
    for _ in range(150):
        turn.release()
        done.acquire()
        wanted = (wanted * 2 + 1) % 251
        assert memory.buf[0] == wanted and memory.buf[99999] == 7 and memory.size >= 100000
        with count.get_lock():
            count.value += 1
        time.sleep(0.02)
    child.join()
    print(wanted, count.value, child.exitcode)
    memory.close()
    memory.unlink()
";

survives!(psutil_knows_its_processes_again, Job::script(SYSTEM, PSUTIL));
survives!(numpy_with_blas_threads, Job::script(SYSTEM, NUMPY).env("OPENBLAS_NUM_THREADS", "2"));
survives!(threading, Job::script(SYSTEM, THREADING));
survives!(subprocess, Job::script(SYSTEM, SUBPROCESS));
survives!(multiprocessing_with_pipes, Job::script(SYSTEM, MULTIPROCESSING));
// Python's tracker of such objects outlives the rest for a moment.
survives!(multiprocessing_with_shared_memory, Job::script(SYSTEM, SHARED_MEMORY).option("--wait-all"));
survives!(generators_in_flight, Job::script(SYSTEM, GENERATORS));
survives!(
    a_file_being_appended,
    Job::script(SYSTEM, APPENDING).file("log", "there before\n").leaves("log").leaves("new").leaves("both")
);

/// Another interpreter than the system's: of pyenv, of a virtual environment, of conda.
mod first_on_the_path {
    use super::*;

    /// Runs a script with the first `python3` of the search path, if it is another one that this identity can run.
    fn survives(identity: Identity, script: &str) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let Some(python) = std::env::split_paths(&path).map(|dir| dir.join("python3")).find(|path| path.exists()) else {
            return not_run("no python3 on the search path");
        };
        let real = |path: &str| std::fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
        if python.canonicalize().is_ok_and(|python| python == real(SYSTEM)) {
            return not_run("the first python3 of the search path is the system's");
        }
        let sandbox = ckpt_tests::Sandbox::new(identity);
        let mut probe = sandbox.command(&python);
        probe.args(["-c", "import numpy"]).env("PATH", &path);
        if !identity.can_run(&python) || sandbox.finish(probe).0 != 0 {
            return not_run(&format!("{} cannot be run by {identity:?}, or has no numpy", python.display()));
        }
        let python = python.to_str().expect("a path that is text");
        Job::script(python, script).env("PATH", &path).env("OPENBLAS_NUM_THREADS", "2").survives(identity, 2);
    }

    #[test]
    fn numpy_as_root() {
        Identity::Root.run(|identity| survives(identity, NUMPY));
    }

    #[test]
    fn numpy_as_user() {
        Identity::User.run(|identity| survives(identity, NUMPY));
    }

    #[test]
    fn multiprocessing_as_root() {
        Identity::Root.run(|identity| survives(identity, MULTIPROCESSING));
    }

    #[test]
    fn multiprocessing_as_user() {
        Identity::User.run(|identity| survives(identity, MULTIPROCESSING));
    }
}
