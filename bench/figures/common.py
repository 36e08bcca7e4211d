"""What every figure needs: the programs and libraries, sessions, pairs of measurements, rows of the final table."""

import math
import os
import signal
import statistics
import subprocess
import sys
import time

ALLOCATORS = {"jemalloc": "libjemalloc.so.2", "mimalloc": "libmimalloc.so.2"}
LIBRARY_DIRS = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"]


class Skip(Exception):
    """The host cannot measure this; the text says why."""


class Failed(Exception):
    """A program that should have run did not."""


class Killed(Failed):
    """A measuring program was killed by the kernel (SIGKILL): the out-of-memory killer of its cgroup."""


class Context:
    """What run_all was asked for. self_check: the plain allocator on both sides, so that every ratio should be 1."""

    def __init__(self, arguments):
        self.build = arguments.build
        self.quick = arguments.quick
        self.self_check = arguments.self_check
        self.kv_points = [(p, t) for p in arguments.kv_percent for t in arguments.kv_threads]
        self.kv_layout = arguments.kv_layout
        self.kv_options = {f"HEAPTIER_{name}": value for name, _, value in (o.partition("=") for o in arguments.set)}

    def program(self, name):
        path = self.build / "bin" / name
        if not path.exists():
            raise Skip(f"{name} is not built (./run build)")
        return str(path)

    def heaptier(self, heap="jemalloc"):
        """The library under test."""
        if self.self_check:
            return self.allocator(heap)
        path = self.build / "lib" / "libheaptier.so"
        if not path.exists():
            raise Skip("libheaptier.so is not built (./run build)")
        return str(path)

    def allocator(self, name):
        for directory in LIBRARY_DIRS:
            path = os.path.join(directory, ALLOCATORS[name])
            if os.path.exists(path):
                return path
        raise Skip(f"{ALLOCATORS[name]} is not installed")

    def say(self, text):
        """Progress, on standard error: the table on standard output stays clean."""
        print(f"  {text}", file=sys.stderr, flush=True)


class Environment:
    """The variables of one side of a comparison. Nothing of the caller's HEAPTIER_* or LD_PRELOAD leaks in."""

    def __init__(self, **variables):
        self.variables = variables

    def full(self):
        kept = {k: v for k, v in os.environ.items()
                if not k.startswith(("HEAPTIER_", "LD_", "MALLOC_", "MIMALLOC_"))}
        return {**kept, **self.variables}


class Session:
    """A measuring program that answers one line per command (bench/harness/session.h)."""

    def __init__(self, arguments, environment, cgroup=None):
        self.arguments = arguments
        if cgroup:
            # The shell enters the group first, so that every page of the program is charged to it. It must not be
            # preloaded itself, hence env.
            variables = [f"{k}={v}" for k, v in environment.variables.items()]
            arguments = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(cgroup.procs), "/usr/bin/env",
                         *variables, *arguments]
            environment = Environment()
        self.process = subprocess.Popen(arguments, env=environment.full(), text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        self.pid = self.process.pid

    def ready(self):
        self._line()
        return self

    def ask(self, command):
        """The answer's key=value words as a dictionary of numbers (text where it is none)."""
        answer = {}
        for word in self.text(command).split():
            key, _, value = word.partition("=")
            try:
                answer[key] = float(value)
            except ValueError:
                answer[key] = value
        if "error" in answer:
            raise Failed(f"{self.arguments[0]}: {command}: {answer['error']}")
        return answer

    def text(self, command):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self._line()

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            kind = Killed if status == -signal.SIGKILL else Failed
            raise kind(f"{os.path.basename(self.arguments[0])} ended early with status {status}")
        return line

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self.ready()

    def __exit__(self, *_):
        self.close()


class Pairs:
    """Measurements taken in pairs. A ratio of each pair; the median and the quartiles of these ratios."""

    def __init__(self):
        self.a, self.b = [], []

    def add(self, a, b):
        self.a.append(a)
        self.b.append(b)

    def ratios(self, inverse=False):
        return [(a / b if inverse else b / a) for a, b in zip(self.a, self.b)]

    def ratio(self, inverse=False):
        return statistics.median(self.ratios(inverse))

    def spread(self, inverse=False):
        """The middle half of the ratios."""
        return quartiles(self.ratios(inverse))

    def medians(self):
        return statistics.median(self.a), statistics.median(self.b)


def quartiles(values):
    if len(values) < 3:
        return min(values), max(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(v) for v in values))


class Row:
    """One line of the final table. `measured` is a number, wanted is (">=" or "<=", number)."""

    def __init__(self, what, against, measured, wanted, spread=None, unit="", note=""):
        self.what, self.against, self.note = what, against, note
        self.wanted_text = f"{wanted[0]} {wanted[1]:g}{unit}" if wanted else ""
        self.measured_text = f"{measured:.3f}{unit}" if unit == "" else f"{measured:+.2f}{unit}"
        self.spread_text = f"{spread[0]:.3f} .. {spread[1]:.3f}" if spread else ""
        if wanted is None:
            self.verdict = "info"
        elif (measured >= wanted[1]) if wanted[0] == ">=" else (measured <= wanted[1]):
            self.verdict = "met"
        else:
            self.verdict = "MISSED"

    @classmethod
    def skipped(cls, what, against, reason):
        row = cls.__new__(cls)
        row.what, row.against, row.note = what, against, reason
        row.wanted_text = row.measured_text = row.spread_text = ""
        row.verdict = "skipped"
        return row

    def as_dict(self):
        return dict(self.__dict__)


def in_turn(rounds, first, second):
    """Calls the two in the order A B, B A, A B, ...; yields (round, a, b) of what they returned."""
    for i in range(rounds):
        if i % 2 == 0:
            a = first()
            b = second()
        else:
            b = second()
            a = first()
        yield i, a, b


def cpu_nanos(pid):
    """CPU time used by all threads of a process, in nanoseconds."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


def wait_for_socket(path, process, seconds=20):
    end = time.monotonic() + seconds
    while not os.path.exists(path):
        if process.poll() is not None:
            raise Failed(f"{process.args[0]} ended with status {process.returncode} before it listened")
        if time.monotonic() > end:
            raise Failed(f"{process.args[0]} did not listen within {seconds} s")
        time.sleep(0.02)


def vm_rss(pid):
    """Resident bytes of a process, as the kernel counts them exactly (smaps_rollup), else VmRSS."""
    for path, key in ((f"/proc/{pid}/smaps_rollup", "Rss:"), (f"/proc/{pid}/status", "VmRSS:")):
        try:
            with open(path) as f:
                for line in f:
                    if line.startswith(key):
                        return int(line.split()[1]) * 1024
        except OSError:
            continue
    raise Failed(f"no resident size of process {pid}")


def mapped_memory(pid):
    """Anonymous and shared bytes that a process has mapped: its resident size without files' pages."""
    with open(f"/proc/{pid}/status") as f:
        return sum(int(line.split()[1]) * 1024 for line in f if line.startswith(("RssAnon:", "RssShmem:")))
