"""redis-server and memcached with a small heap, while heaptier is dormant: throughput against jemalloc plain.

Both servers of a pair run all the time on Unix sockets of their own; the load asks one, then the other. Beside the
throughput stands the server's CPU time per request, which other work on the machine disturbs much less.
"""

import csv
import io
import os
import shutil
import subprocess
import tempfile

from .common import Environment, Failed, Pairs, Row, Session, Skip, cpu_nanos, in_turn, wait_for_socket

# Small enough that the heap stays below the size at which the engine wakes by default (64 MiB).
KEYS = 20000
VALUE_BYTES = 512


class Server:
    """A server process and the socket it listens on; ended when the block ends."""

    def __init__(self, arguments, socket, environment):
        self.socket = socket
        self.process = subprocess.Popen(arguments, env=environment.full(), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL)
        self.pid = self.process.pid

    def __enter__(self):
        try:
            wait_for_socket(self.socket, self.process)
        except Failed:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))


def need(command):
    path = shutil.which(command)
    if not path:
        raise Skip(f"{command} is not installed")
    return path


def sides(context):
    return (Environment(LD_PRELOAD=context.allocator("jemalloc")), Environment(LD_PRELOAD=context.heaptier()))


def rows(what, throughput, cpu, plain, ours):
    note = f"server CPU per request {cpu.ratio():.3f} of plain"
    if ours.threads() != plain.threads():
        note += f"; THREADS {plain.threads()} -> {ours.threads()}: the engine woke up"
    return [Row(f"{what} throughput, dormant", "jemalloc plain", throughput.ratio(), (">=", 0.99), throughput.spread(),
                note=note)]


def redis_round(server, requests):
    """Requests a second and server CPU nanoseconds per request over set, get, mset and hset."""
    command = [need("redis-benchmark"), "-s", server.socket, "-n", str(requests), "-r", str(KEYS), "-d",
               str(VALUE_BYTES), "-c", "16", "-P", "16", "-t", "set,get,mset,hset", "--csv"]
    before = cpu_nanos(server.pid)
    result = subprocess.run(command, text=True, capture_output=True, timeout=300)
    after = cpu_nanos(server.pid)
    if result.returncode != 0:
        raise Failed(f"redis-benchmark: {result.stderr.strip()}")
    lines = [line for line in csv.reader(io.StringIO(result.stdout)) if len(line) > 1 and line[0] != "test"]
    seconds = sum(requests / float(line[1]) for line in lines)
    return requests * len(lines) / seconds, (after - before) / (requests * len(lines))


def redis(context):
    context.say("redis-server, dormant")
    plain, ours = sides(context)
    throughput, cpu = Pairs(), Pairs()
    rounds, requests = (6, 40000) if context.quick else (16, 100000)
    with tempfile.TemporaryDirectory(prefix="heaptier-bench-") as directory:
        def server(name, environment):
            socket = f"{directory}/{name}.sock"
            return Server([need("redis-server"), "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly",
                           "no", "--dir", directory], socket, environment)

        with server("plain", plain) as a, server("ours", ours) as b:
            for s in (a, b):
                redis_round(s, KEYS * 3)
            for _, x, y in in_turn(rounds, lambda: redis_round(a, requests), lambda: redis_round(b, requests)):
                throughput.add(x[0], y[0])
                cpu.add(x[1], y[1])
            return rows("redis", throughput, cpu, a, b)


def memcached(context):
    context.say("memcached, dormant")
    load = context.program("bench_memcached_load")
    plain, ours = sides(context)
    throughput, cpu = Pairs(), Pairs()
    user = ["-u", "root"] if os.geteuid() == 0 else []  # as root it wants to be told
    rounds, millis = (8, 250) if context.quick else (24, 500)
    with tempfile.TemporaryDirectory(prefix="heaptier-bench-") as directory:
        def server(name, environment):
            socket = f"{directory}/{name}.sock"
            return Server([need("memcached"), "-s", socket, *user, "-t", "1", "-m", "40"], socket, environment)

        def window(server, session):
            before = cpu_nanos(server.pid)
            answer = session.ask(f"window {millis}")
            if answer["wrong"]:
                raise Failed(f"memcached gave {answer['wrong']:.0f} wrong answers")
            return answer["ops"] / answer["wall_ns"] * 1e9, (cpu_nanos(server.pid) - before) / answer["ops"]

        with server("plain", plain) as a, server("ours", ours) as b:
            size = [str(KEYS), str(VALUE_BYTES)]
            with Session([load, a.socket, *size], Environment()) as la, \
                    Session([load, b.socket, *size], Environment()) as lb:
                window(a, la), window(b, lb)
                for _, x, y in in_turn(rounds, lambda: window(a, la), lambda: window(b, lb)):
                    throughput.add(x[0], y[0])
                    cpu.add(x[1], y[1])
                return rows("memcached", throughput, cpu, a, b)


def run(context):
    result = []
    for measure in (redis, memcached):
        try:
            result += measure(context)
        except Skip as reason:
            result.append(Row.skipped(f"{measure.__name__} throughput, dormant", "jemalloc plain", str(reason)))
    return result
