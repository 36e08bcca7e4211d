"""What heaptier writes where it cannot be written: standard error is a pipe that nobody reads, files may not be longer than
RLIMIT_FSIZE. The program runs on, its output is whole, its exit status is its own.

    test_output.py HEAPTIER LIBRARY
Programs linked in special ways come by environment (cli_static=PATH, cli_dynamic=PATH; empty: not to be had here).
"""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile

HEAPTIER, LIBRARY = sys.argv[1:3]
STATIC = os.environ.get("cli_static")
DYNAMIC = os.environ.get("cli_dynamic")
failures = []


def run(command, variables=(), deaf=True, limit=None):
    """(status, standard output, standard error) of a program whose signals are as a shell gives them."""
    def prepare():
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEAPTIER_") and k != "LD_PRELOAD"}
    errors = subprocess.PIPE
    if deaf:
        reader, errors = os.pipe()
        os.close(reader)
    done = subprocess.run(command, env=environment | dict(variables), stdout=subprocess.PIPE, stderr=errors,
                          preexec_fn=prepare, timeout=60, check=False)
    if deaf:
        os.close(errors)
    return done.returncode, done.stdout.decode(), (done.stderr or b"").decode()


def expect(what, got, wanted):
    if got != wanted:
        failures.append(f"{what}: {got}, not {wanted}")


# One whose output stands in a buffer until it exits, one with a status of its own.
PROGRAMS = [(["/bin/echo", "-n", "hi"], (0, "hi", ""))]
if DYNAMIC:
    PROGRAMS.append(([DYNAMIC, "7"], (7, "", "")))

# --- nobody reads standard error
for program, wanted in PROGRAMS:
    preload = {"LD_PRELOAD": LIBRARY}
    name = pathlib.Path(program[0]).name
    expect(f"{name}, plain", run(program), wanted)
    expect(f"{name}, bad value", run(program, preload | {"HEAPTIER_FAST": "banana"}), wanted)
    expect(f"{name}, unknown variable", run(program, preload | {"HEAPTIER_NO_SUCH": "1"}), wanted)
    for heap in ("jemalloc", "mimalloc", "none"):
        for option in ("--stats", "--verbose"):
            expect(f"{name}, {heap}, {option}", run([HEAPTIER, "run", "--heap", heap, option, "--", *program]), wanted)
    expect(f"{name}, awake", run([HEAPTIER, "run", "--wake", "0", "--stats", "--", *program]), wanted)
    expect(f"{name}, no statistics file",
           run(program, preload | {"HEAPTIER_STATS": "json:/no/such/folder/x"}), wanted)
    no_report = "heaptier: HEAPTIER_STATS: there will be no report: HEAPTIER_HEAP=none leaves malloc to the C library\n"
    for option in ("--stats", "--stats=json:/dev/null"):
        expect(f"{name}, no heap", run([HEAPTIER, "run", "--heap", "none", option, "--", *program], deaf=False),
               (*wanted[:2], no_report))
    expect(f"{name}, disabled", run([HEAPTIER, "run", "--disable", "--stats", "--", *program], deaf=False), wanted)
    expect(f"{name}, another process", run(program, preload | {"HEAPTIER_HEAP": "none", "HEAPTIER_STATS": "1",
                                                               "HEAPTIER_STATS_PID": "1"}, deaf=False), wanted)
if STATIC:
    # heaptier run warns of it.
    expect("static", run([HEAPTIER, "run", "--", STATIC, "7"]), (7, "", ""))
expect("no such program", run([HEAPTIER, "run", "--", "no-such-program"])[0], 127)
expect("no such command", run([HEAPTIER, "no-such-command"])[0], 2)

# --- files may not be so long
with tempfile.TemporaryDirectory() as folder:
    report = f"{folder}/x.json"
    for program, (status, output, _) in PROGRAMS:
        command = [HEAPTIER, "run", f"--stats=json:{report}", "--", *program]
        line = f"heaptier: the statistics file could not be written: {report}: File too large\n"
        # echo closes its standard error before.
        said = line if program[0] == DYNAMIC else ""
        for limit in (0, 100):
            expect(f"limit {limit}", run(command, deaf=False, limit=limit), (status, output, said))
            expect(f"limit {limit}, length", os.stat(report).st_size, limit)
            expect(f"limit {limit}, nobody reads", run(command, limit=limit), (status, output, ""))
        expect("no limit reached", run(command, deaf=False, limit=1 << 20), (status, output, ""))
        expect("the report", "schema" in json.loads(pathlib.Path(report).read_text()), True)

print("\n".join(failures) or "all as expected")
sys.exit(1 if failures else 0)
