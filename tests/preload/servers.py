"""Servers under load with next to no memory: redis (BGSAVE, AOF rewrite, its own benchmark) and memcached."""

import contextlib
import os
import pathlib
import random
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))
from run_under import Wrong, main  # noqa: E402


def _connect(path, limit=30):
    end = time.monotonic() + limit
    while True:
        try:
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(60)
            s.connect(str(path))
            return s
        except OSError:
            s.close()
            if time.monotonic() > end:
                raise Wrong(f"nobody answers at {path}") from None
            time.sleep(0.05)


class Redis:
    """As much of the protocol as the test needs; commands may be pipelined."""

    def __init__(self, path):
        self.socket = _connect(path)
        self.file = self.socket.makefile("rb")

    def send(self, *commands):
        self.socket.sendall(b"".join(
            b"*%d\r\n" % len(c) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in map(_bytes, c)) for c in commands))

    def answer(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise Wrong("redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Wrong(f"redis: {rest.decode()}")
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest

    def ask(self, *command):
        self.send(command)
        return self.answer()

    def pipeline(self, commands):
        self.send(*commands)
        return [self.answer() for _ in commands]

    def wait_until_loaded(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(Wrong):
                if self.ask("PING") == b"PONG":
                    return
            time.sleep(0.1)
        raise Wrong("redis does not finish loading")

    def wait_for(self, field, value, limit=90):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if f"{field}:{value}".encode() in self.ask("INFO", "persistence"):
                return
            time.sleep(0.05)
        raise Wrong(f"redis: {field} is not {value} after {limit} s")


def _bytes(word):
    return word if isinstance(word, bytes) else str(word).encode()


def _value(rng):
    """Compressible, as real values are; some large, a few not compressible at all."""
    kind = rng.random()
    if kind < 0.02:
        return rng.randbytes(rng.randint(100, 3000))
    word = b"%d:%s;" % (rng.randint(0, 10**6), rng.choice((b"alpha", b"beta", b"gamma", b"delta")))
    return (word * 400)[:rng.randint(10, 400) if kind < 0.8 else rng.randint(400, 4000)]


_KEYS = 40_000


def _load(client, rng):
    for start in range(0, _KEYS, 500):
        batch = [("SET", f"key:{i}", _value(rng)) for i in range(start, start + 500)]
        batch += [("HSET", f"hash:{start // 500}", f"f{i}", _value(rng)) for i in range(40)]
        batch += [("RPUSH", f"list:{start // 2000}", _value(rng)), ("ZADD", "scores", rng.randint(0, 10**6), f"m{start}"),
                  ("SADD", f"set:{start % 7}", f"member{rng.randint(0, 3000)}"), ("DEL", f"key:{rng.randint(0, _KEYS)}"),
                  ("APPEND", f"key:{rng.randint(0, _KEYS)}", _value(rng))]
        client.pipeline(batch)


def redis(bench):
    server = bench.program("redis-server")
    benchmark = bench.program("redis-benchmark")
    path = bench.scratch / "redis.sock"

    def start(tiered, *more):
        place = bench.scratch / ("tiered" if tiered else "plain")
        place.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with open(bench.scratch / "redis.log", "ab") as log:
            process = bench.start([server, "--port", "0", "--unixsocket", path, "--dir", place, "--save", "", "--loglevel",
                                   "notice", "--daemonize", "no", "--enable-debug-command", "yes", *more],
                                  tiered, stdout=log, stderr=log)
        client = Redis(path)
        client.wait_until_loaded()
        return process, client

    running = []
    try:
        process, client = start(True, "--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0")
        running.append(process)
        rng = random.Random(11)
        _load(client, rng)
        before = client.ask("DEBUG", "DIGEST")
        # The child saves while the parent is written to: it must save what was.
        client.ask("BGSAVE")
        load = bench.start([benchmark, "-s", path, "-n", "20000", "-c", "8", "-r", "10000", "-d", "200", "-t", "set,get",
                            "-q"], False, stdout=-3, stderr=-3)
        client.wait_for("rdb_bgsave_in_progress", 0)
        client.wait_for("rdb_last_bgsave_status", "ok", 1)
        if bench.ended(load, 240, "by itself") != 0:
            raise Wrong("redis-benchmark failed")
        client.ask("BGREWRITEAOF")
        client.pipeline([("SET", f"key:{rng.randint(0, _KEYS)}", _value(rng)) for _ in range(3000)])
        client.wait_for("aof_rewrite_in_progress", 0)
        client.wait_for("aof_last_bgrewrite_status", "ok", 1)
        after = client.ask("DEBUG", "DIGEST")
        client.send(("SHUTDOWN",))
        if bench.ended(process, 120, "on SHUTDOWN") != 0:
            raise Wrong(f"redis-server ends with {process.returncode}")
        running.remove(process)
        # A plain server reads the files. The snapshot is of the moment of BGSAVE, the log of the end.
        tiered = bench.scratch / "tiered"
        for what, want, more in (("snapshot", before, ["--dbfilename", "dump.rdb"]),
                                 ("append-only file", after, ["--appendonly", "yes"])):
            process, client = start(False, "--dir", tiered, *more)
            running.append(process)
            got = client.ask("DEBUG", "DIGEST")
            if got != want:
                raise Wrong(f"the {what} holds other data than the server had: {got.decode()} is not {want.decode()}")
            client.send(("SHUTDOWN", "NOSAVE"))
            bench.ended(process, 120, "on SHUTDOWN")
            running.remove(process)
        # And the same commands on a plain server give the same data.
        process, client = start(False)
        running.append(process)
        _load(client, random.Random(11))
        if client.ask("DEBUG", "DIGEST") != before:
            raise Wrong("the data differs from a plain server's after the same commands")
    except (Wrong, OSError) as reason:
        log = (bench.scratch / "redis.log").read_text(errors="replace")[-3000:]
        raise Wrong(f"{reason}\nthe server's log ends:\n{log}") from None
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


def memcached(bench):
    server = bench.program("memcached")
    path = bench.scratch / "memcached.sock"
    who = ["-u", "root"] if os.geteuid() == 0 else []
    process = bench.start([server, "-s", path, "-m", "512", "-t", "2", "-c", "64", *who], True)
    keys, threads = 6000, 4
    wrong = []

    def client(t):
        try:
            rng = random.Random(t)
            values = {}
            with _connect(path) as s, s.makefile("rb") as answers:
                for turn in range(keys):
                    i = rng.randrange(2000)
                    if turn % 3 != 2:
                        values[i] = _value(rng)
                        s.sendall(b"set k%d-%d %d 0 %d\r\n%s\r\n" % (t, i, i, len(values[i]), values[i]))
                        if (got := answers.readline()) != b"STORED\r\n":
                            raise Wrong(f"set answers {got!r}")
                    elif turn % 41 == 2:
                        s.sendall(b"delete k%d-%d\r\n" % (t, i))
                        if (got := answers.readline()) != (b"DELETED\r\n" if values.pop(i, None) is not None else b"NOT_FOUND\r\n"):
                            raise Wrong(f"delete answers {got!r}")
                    else:
                        _memcached_get(s, answers, t, i, values.get(i))
                for i in range(2000):
                    _memcached_get(s, answers, t, i, values.get(i))
        except (Wrong, OSError) as reason:
            wrong.append(f"client {t}: {reason}")

    try:
        clients = [threading.Thread(target=client, args=(t,)) for t in range(threads)]
        for c in clients:
            c.start()
        for c in clients:
            c.join(150)
            if c.is_alive():
                raise Wrong("a client waits for its answer for ever")
        if wrong:
            raise Wrong("; ".join(wrong[:3]))
        if process.poll() is not None:
            raise Wrong(f"memcached ended by itself with {process.returncode}")
    except Wrong:
        process.kill()
        raise
    bench.stop(process, with_signal=signal.SIGINT)


def _memcached_get(s, answers, t, i, want):
    s.sendall(b"get k%d-%d\r\n" % (t, i))
    line = answers.readline()
    got = None
    if line != b"END\r\n":
        length = int(line.split()[3])
        got = answers.read(length + 2)[:-2]
        answers.readline()
    if got != want:
        raise Wrong(f"get k{t}-{i} answers {got and got[:60]!r}, not {want and want[:60]!r}")


if __name__ == "__main__":
    main({"redis": redis, "memcached": memcached})
