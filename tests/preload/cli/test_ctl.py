"""heaptier ctl and the control socket, against real processes: who is reached, who is not and why, what clients that
stall, talk nonsense or go away can do (nothing), and what becomes of the names.

    test_ctl.py HEAPTIER LIBRARY
"""

import contextlib
import json
import os
import pathlib
import platform
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time

HEAPTIER, LIBRARY = sys.argv[1:3]
SKIPPED = 77

# Grows past its wake-up size, then does as it is told, line by line, and looks whether its memory still holds.
APPLICATION = r"""
import os, signal, sys, time
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
blocks = [bytearray(b"%08d" % i * 1024) for i in range(4000)]
def holds():
    return all(b[:8] == b"%08d" % i and b[-8:] == b[:8] for i, b in enumerate(blocks))
def enter_sandbox():
    # All threads, whatever accept4(2) and socket(2) are asked for: killed.
    import ctypes, struct
    code = [(0x20, 0, 0, 0), (0x15, 2, 0, 288), (0x15, 1, 0, 41), (0x06, 0, 0, 0x7fff0000), (0x06, 0, 0, 0x80000000)]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    program = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(filters))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.syscall(317, 1, 1, program) == 0, ctypes.get_errno()
print("ready", flush=True)
for line in sys.stdin:
    word, _, number = line.strip().partition(" ")
    if word in ("fork", "brief"):
        for _ in range(int(number)):
            child = os.fork()
            if child == 0:
                os._exit(0 if word == "brief" or holds() else 1)
            if os.waitpid(child, 0)[1] != 0:
                print("child lost its memory", flush=True)
                sys.exit(1)
    elif word == "child":
        child = os.fork()
        if child == 0:
            while not told:
                time.sleep(0.05)
            os._exit(0 if holds() else 1)
        print(child, flush=True)
        continue
    elif word == "sandbox":
        enter_sandbox()
    elif word == "wait":
        os.kill(int(number), signal.SIGUSR1)
        assert os.waitpid(int(number), 0)[1] == 0
    elif word == "end":
        sys.exit(0 if holds() else 1)
    print("good" if holds() else "bad", flush=True)
"""


def environment(folder, **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith("HEAPTIER_")}
    env.update({"XDG_RUNTIME_DIR": str(folder), "LD_PRELOAD": LIBRARY, "HEAPTIER_WAKE": "8M", "HEAPTIER_FAST": "50%",
                "PYTHONMALLOC": "malloc"})
    env.update(more)
    return {k: v for k, v in env.items() if v is not None}


class Application:
    def __init__(self, folder, **more):
        self.folder = pathlib.Path(folder) / "heaptier"
        self.process = subprocess.Popen([sys.executable, "-c", APPLICATION], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=environment(folder, **more))
        self.pid = self.process.pid
        assert self.hear() == "ready"

    def hear(self):
        return self.process.stdout.readline().strip()

    def tell(self, words):
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def asked(self, words):
        self.tell(words)
        return self.hear()

    def name(self, pid=None):
        return self.folder / str(pid or self.pid)

    def end(self):
        self.tell("end")
        return self.process.wait(30)

    def connect(self):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.connect(str(self.name()))  # waits while others wait to be let in
        client.settimeout(20)
        return client

    def ring(self):
        with open(f"{self.name()}.bell", "wb", buffering=0) as bell:
            bell.write(b"!")

    def ask(self, request):
        with contextlib.closing(self.connect()) as client:
            client.send(request)
            self.ring()
            return client.recv(65536)


def ctl(folder, *words, **more):
    env = environment(folder, LD_PRELOAD=None)
    return subprocess.run([HEAPTIER, "ctl", *map(str, words)], env=env, capture_output=True, text=True, timeout=60,
                          **more)


def wait_until(what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.02)
    return False


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


@contextlib.contextmanager
def application(folder, **more):
    app = Application(folder, **more)
    try:
        yield app
    finally:
        if app.process.poll() is None:
            app.process.kill()
        app.process.wait()


# Other tests may run beside this one, and they are listed, too.
def listed_of(folder, *applications):
    pids = [app.pid for app in applications]
    return [line for line in json.loads(ctl(folder, "--json").stdout) if line["pid"] in pids]


def refusals(folder):
    for words, code, line in (
            (["x"], 2, "x is not a process id; `heaptier ctl` lists those there are"),
            (["0", "stats"], 2, "0 is not a process id; `heaptier ctl` lists those there are"),
            (["-5", "stats"], 2, None),
            (["12"], 2, "no command for process 12; there are stats, tiers, drain node:N and undrain node:N"),
            (["12", "compact"], 2,
             "there is no command compact; there are stats, tiers, drain node:N and undrain node:N"),
            (["12", "stats", "more"], 2, "more is one too many"),
            (["12", "drain"], 2, "drain is not accepted; accepted: drain node:N with N from 0 to 63"),
            (["12", "drain", "node:64"], 2,
             "drain node:64 is not accepted; accepted: drain node:N with N from 0 to 63"),
            (["12", "undrain", "2"], 2, "undrain 2 is not accepted; accepted: undrain node:N with N from 0 to 63"),
            (["--no-wait"], 2, "--no-wait is for drain"),
            (["999999999", "stats"], 1, "process 999999999 does not exist"),
            ([os.getpid(), "stats"], 1, f"process {os.getpid()} is not under heaptier")):
        done = ctl(folder, *words)
        expect(done.returncode == code and done.stdout == "", f"{words}: {done}")
        expect(line is None or done.stderr == f"heaptier: ctl: {line}\n", f"{words}: {done.stderr}")
    before = json.loads(ctl(folder, "--json").stdout)
    done = ctl(folder)
    expect(done.returncode == 0 and done.stdout, done)
    if not before and not json.loads(ctl(folder, "--json").stdout):
        expect("no process under heaptier" in done.stdout, done)
    with application(folder, HEAPTIER_WAKE="1G") as app:
        done = ctl(folder, app.pid, "stats")
        expect("is not awake: its heap has not passed its wake-up size" in done.stderr, done)
        expect(done.returncode == 1, done)
        expect(not app.folder.exists() or not any(app.folder.iterdir()), "a dormant process has a name")
    with application(folder, HEAPTIER_CONTROL="off") as app:
        expect(wait_until(lambda: "has its control socket off" in ctl(folder, app.pid, "stats").stderr), "off")
        expect(app.end() == 0, "end")
    with application(folder, HEAPTIER_FAULT="inline", HEAPTIER_FAST="100%", HEAPTIER_HINT_BUDGET="0%") as app:
        expect(wait_until(lambda: "no control socket: inline" in ctl(folder, app.pid, "tiers").stderr), "inline")
        expect(app.end() == 0, "end")
    with application(folder, HEAPTIER_DISABLE="1") as app:
        expect(ctl(folder, app.pid, "tiers").returncode == 1, "disabled")


def answers(folder):
    with application(folder) as app:
        expect(wait_until(app.name().exists), "no socket")
        expect(stat.S_IMODE(app.folder.stat().st_mode) == 0o700, "the folder's mode")
        expect(stat.S_IMODE(app.name().stat().st_mode) == 0o600, "the socket's mode")
        expect(stat.S_IMODE(pathlib.Path(f"{app.name()}.bell").stat().st_mode) == 0o600, "the bell's mode")
        listed = listed_of(folder, app)
        expect(len(listed) == 1, listed)
        expect(listed[0]["heap_bytes"] > 30 << 20 and listed[0]["name"].startswith("python3"), listed)
        table = ctl(folder).stdout.splitlines()
        expect(table[0].split()[:2] == ["PID", "NAME"], table)
        expect([line.split()[0] for line in table[1:]].count(str(app.pid)) == 1, table)
        numbers = json.loads(ctl(folder, app.pid, "stats", "--json").stdout)
        expect(numbers["pid"] == app.pid and numbers["control_answers"] >= 2 and numbers["wakeups"] == 1, numbers)
        text = ctl(folder, app.pid, "stats").stdout
        expect(text.startswith(f"heaptier: process {app.pid}, ") and "but the ledger" not in text, text)
        tiers = json.loads(ctl(folder, app.pid, "tiers", "--json").stdout)["tiers"]
        expect([t["tier"] for t in tiers] == ["dram", "zpool"], tiers)
        expect("zpool" in ctl(folder, app.pid, "tiers").stdout, "tiers")
        done = ctl(folder, app.pid, "drain", "node:63")
        expect(done.returncode == 2 and "is of no tier; the chain has nodes" in done.stderr, done)
        done = ctl(folder, app.pid, "undrain", "node:0")
        expect(done.returncode == 2 and "node 0 is not being vacated" in done.stderr, done)
        expect(app.end() == 0, "end")
    expect(ends_clean(folder, folder / "heaptier"), "names stay behind after a normal end")
    expect(ctl(folder).returncode == 0 and not any((folder / "heaptier").iterdir()), "other names stay behind")


def ends_clean(runtime_dir, names):
    """A normal end takes the names away. It does not wait long for the thread that does it, which may have no CPU: once of
    three, then, and what is left is swept by whoever lists."""
    for _ in range(3):
        with application(runtime_dir) as app:
            name = names / str(app.pid)
            bell = pathlib.Path(f"{name}.bell")
            expect(wait_until(name.exists), f"no socket {name}")
            expect(app.end() == 0, "end")
            if not name.exists() and not bell.exists():
                return True
            expect(ctl(runtime_dir).returncode == 0, "what was left is swept")
            expect(not name.exists() and not bell.exists(), "and stays away")
    return False


def killed(folder):
    with application(folder) as first, application(folder) as second:
        expect(wait_until(lambda: first.name().exists() and second.name().exists()), "no sockets")
        first.process.kill()
        first.process.wait()
        expect(first.name().exists(), "nobody could have removed it")
        expect([line["pid"] for line in listed_of(folder, first, second)] == [second.pid], "the list")
        expect(sorted(p.name for p in first.folder.iterdir()) == [str(second.pid), f"{second.pid}.bell"],
               "the killed one's names")
        done = ctl(folder, first.pid, "stats")
        expect(done.returncode == 1 and "does not exist" in done.stderr, done)
        second.process.send_signal(signal.SIGSTOP)
        done = ctl(folder, second.pid, "stats")
        expect(done.returncode == 1 and "did not answer: it is stopped" in done.stderr, done)
        second.process.send_signal(signal.SIGCONT)
        expect(ctl(folder, second.pid, "stats").returncode == 0, "goes on")
        expect(second.asked("look") == "good", "its memory")


def nonsense(folder):
    with application(folder) as app:
        expect(wait_until(app.name().exists), "no socket")
        for request in (b"x", b"drain 99", b"stats\0", b"\xff" * 128, b"drain", b" "):
            expect("error" in json.loads(app.ask(request)), request)
        for length in (129, 4096, 100000):
            expect("longer" in json.loads(app.ask(b"a" * length))["error"], length)
        for _ in range(50):
            app.connect().close()
            app.ring()
        gone = app.connect()
        gone.send(b"stats")
        app.ring()
        gone.close()
        with open(f"{app.name()}.bell", "wb", buffering=0) as bell:
            bell.write(b"!" * 60000)
        expect(json.loads(app.ask(b"stats"))["control_dropped"] >= 50, "dropped")
        expect(app.asked("look") == "good" and app.end() == 0, "the application")


def stalled(folder):
    with application(folder) as app:
        expect(wait_until(app.name().exists), "no socket")
        stop = threading.Event()
        clients = []

        def forks_take():
            began = time.monotonic()
            expect(app.asked("brief 100") == "good", "forks")
            return time.monotonic() - began

        alone = forks_take()

        def hang():
            while not stop.is_set() and len(clients) < 400:
                try:
                    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                    client.setblocking(False)
                    client.connect(str(app.name()))
                    clients.append(client)
                    app.ring()
                except OSError:
                    time.sleep(0.01)

        threads = [threading.Thread(target=hang) for _ in range(4)]
        for thread in threads:
            thread.start()
        together = forks_take()
        expect(app.asked("fork 2") == "good", "what children have")
        expect(app.end() == 0, "end")
        stop.set()
        for thread in threads:
            thread.join()
        expect(len(clients) > 10, "nobody hung on")
        expect(together < 10 * alone + 10, f"100 forks took {alone:.1f} s, then {together:.1f} s")
        print(f"100 forks: {alone:.2f} s alone, {together:.2f} s with {len(clients)} clients that hang")


def crowd(folder):
    with application(folder) as app:
        expect(wait_until(app.name().exists), "no socket")
        results = []
        dropped = []

        def one():
            # Who is let in and says nothing for a fifth of a second is dropped; a thread of ours may lie that long.
            for _ in range(5):
                with contextlib.suppress(OSError):
                    if answer := app.ask(b"stats"):
                        results.append("resident_pages" in json.loads(answer))
                        return
                dropped.append(1)

        threads = [threading.Thread(target=one) for _ in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expect(results == [True] * 200, f"{results.count(True)} of 200 were answered")
        counted = json.loads(app.ask(b"stats"))["control_dropped"]
        expect(len(dropped) <= min(counted, 50), f"{len(dropped)} were not answered, {counted} of them dropped")
        expect(app.asked("look") == "good" and app.end() == 0, "the application")


def sandboxed(folder):
    if platform.machine() != "x86_64":
        return  # the filter is made of its numbers
    with application(folder) as app:
        expect(wait_until(app.name().exists), "no socket")
        expect(ctl(folder, app.pid, "stats").returncode == 0, "before")
        expect(app.asked("sandbox") == "good", "goes into it")
        for _ in range(3):
            expect(ctl(folder, app.pid, "stats").returncode == 1, "nobody is let in")
        expect(app.asked("look") == "good" and app.end() == 0, "and nobody dies of being asked")


def children(folder):
    with application(folder) as app:
        expect(wait_until(app.name().exists), "no socket")
        # A child goes on serving faults only where pages have been demoted by then.
        expect(wait_until(lambda: json.loads(app.ask(b"stats"))["stored_pages"] > 0), "nothing was demoted")
        child = int(app.asked("child"))
        expect(wait_until(app.name(child).exists), "the child has no socket")
        expect(json.loads(ctl(folder, child, "stats", "--json").stdout)["pid"] == child, "the child's answer")
        expect(ctl(folder, app.pid, "stats").returncode == 0, "the parent's survives")
        expect(app.asked(f"wait {child}") == "good", "the child's memory")
        expect(ctl(folder).returncode == 0 and not app.name(child).exists(), "the child's name")
        expect(app.asked("brief 20") == "good", "short-lived ones")
        names = sorted(p.name for p in app.folder.iterdir())
        expect(names == [str(app.pid), f"{app.pid}.bell"], f"and theirs: {names}")
        expect(app.end() == 0, "end")


def folders(folder):
    # Not to be trusted: others may write to it, or it is a link. Then the one in /tmp is taken.
    other = pathlib.Path("/tmp") / f"heaptier-{os.geteuid()}"
    bad = pathlib.Path(folder) / "bad"
    bad.mkdir()
    bad.chmod(0o777)
    aside = pathlib.Path(folder) / "aside"
    (aside / "elsewhere").mkdir(parents=True, mode=0o700)
    (aside / "heaptier").symlink_to("elsewhere")
    aside.chmod(0o700)
    for runtime_dir in (bad, aside, pathlib.Path("/no/such/folder"), pathlib.Path("relative"),
                        pathlib.Path("/" + "x" * 200)):
        with application(runtime_dir) as app:
            expect(wait_until((other / str(app.pid)).exists), f"{runtime_dir}: not in /tmp either")
            expect(ctl(runtime_dir, app.pid, "tiers").returncode == 0, runtime_dir)
            expect(not any((aside / "elsewhere").iterdir()), "through a link")
            expect(app.end() == 0, "end")
        expect(ends_clean(runtime_dir, other), "the name in /tmp")


def main():
    with tempfile.TemporaryDirectory() as scratch:
        scenarios = [refusals, answers, killed, nonsense, stalled, crowd, sandboxed, children, folders]
        for number, scenario in enumerate(scenarios):
            if sys.argv[3:] and scenario.__name__ not in sys.argv[3:]:
                continue
            folder = pathlib.Path(scratch) / str(number)
            folder.mkdir(mode=0o700)
            began = time.monotonic()
            scenario(folder)
            print(f"{scenario.__name__}: {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    if subprocess.run([HEAPTIER, "doctor"], capture_output=True).returncode != 0:
        print("skipped: no tiering on this host (heaptier doctor)")
        sys.exit(SKIPPED)
    main()
