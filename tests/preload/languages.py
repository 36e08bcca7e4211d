"""Interpreters and a compiler: python's own test suites, perl, gcc."""

import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))
from run_under import Missing, Wrong, main  # noqa: E402


# Python's own tests that give others, or themselves, from a tenth of a second to three for what is usually quick. On a loaded
# machine that is too short.
_BY_THE_CLOCK = {
    "Queue.test_get", "Queue.test_put", "Queue.test_no_import_lock_contention", "Connection.test_connection",
    "Pool.test_release_task_refs", "Pool.test_async_timeout", "Process.test_active_children",
    "BarrierTests.test_default_timeout", "BarrierTests.test_repr", "EventTests.test_set_and_clear",
    "ConditionTests.test_waitfor_timeout", ".test_timeout", "ReTests.test_search_anchor_at_beginning",
    ".test_check_output_timeout", "RunFuncTestCase.test_run_with_shell_timeout_and_capture_output",
    "POSIXProcessTestCase.test_leak_fast_process_del_killed"}
_TRIES = 3


def _goes_by_the_clock(one):
    """one: module.Class.method"""
    return any(one.endswith(name) for name in _BY_THE_CLOCK)


def _suite(name, limit, classes=()):
    """Python's own tests of one module, or of some of its classes. What fails under the library must fail plain, too, to be
    forgiven; what goes by the clock is tried again before, alone."""
    def scenario(bench):
        # PYTHONMALLOC: small objects come from malloc too, not from arenas that python maps by itself.
        env = {"PYTHONMALLOC": "malloc", "PYTHONDONTWRITEBYTECODE": "1"}
        python = bench.program("python3")
        if bench.run([python, "-c", f"import test.{name}"], False).status != 0:
            raise Missing(f"python's own tests are not installed (test.{name}: libpython3.11-testsuite)")

        def run(tiered, only):
            return bench.run([python, "-m", "test", "-v", *(f"--match={one}" for one in only), name], tiered, limit, env=env)

        done = run(True, classes)
        for _ in range(_TRIES - 1):
            bad = _failures(done)
            if done.status == 0 or not bad or not all(map(_goes_by_the_clock, bad)):
                break
            print(f"came too late, tried again: {sorted(bad)}")
            done = run(True, sorted(bad))
            if _ran(done) < len(bad):
                raise Wrong(f"not run again: {sorted(bad)}\n{done.describe()}")
        if done.status == 0:
            return
        bad = _failures(done)
        plain = _failures(run(False, classes))
        if not bad or bad - plain:
            raise Wrong(f"fails under heaptier and not plain: {sorted(bad - plain)}\n{done.describe()}")
        print(f"fails plain, too: {sorted(plain)}")
    return scenario


def _ran(done):
    found = re.search(r"^Ran (\d+) test", (done.out + done.err).decode(errors="replace"), re.MULTILINE)
    return int(found[1]) if found else 0


def _failures(done):
    """As module.Class.method, which python before 3.11 does not say whole."""
    text = (done.out + done.err).decode(errors="replace")
    found = re.findall(r"^(?:FAIL|ERROR): (\S+) \((\S+)\)", text, re.MULTILINE)
    return {whole if whole.endswith("." + method) else f"{whole}.{method}" for method, whole in found}


# Of the tests of multiprocessing those that hand memory to a child, or share it with one: by fork, or by a fresh interpreter
# that starts under the library and is told by pickles. What is left out does the same again (each test runs with processes,
# with threads alone, and through a manager's process), or waits for most of its time: barriers, conditions, time limits.
_BY_CHILDREN = [f"WithProcessesTest{what}" for what in (
    "Process", "SubclassingProcess", "Queue", "Pool", "Connection", "PicklingConnections", "SharedMemory")]
# And what a forked child has of its parent's: maps, threads, locks, finalizers, signal handlers, descriptors.
_BY_FORK = _BY_CHILDREN + [f"WithProcessesTest{what}" for what in (
    "Value", "Array", "SharedCTypes", "Heap", "Finalize", "PollEintr", "Event", "PoolWorkerErrors", "PoolWorkerLifetime")] + [
        "WithManagerTestContainers", "WithManagerTestMyManager", "WithManagerTestRemoteManager", "TestForkAwareThreadLock",
        "TestIgnoreEINTR", "TestCloseFds", "TestInitializers", "TestSimpleQueue"]

_PERL = r"""
use strict; use warnings;
my (%h, @a); my $x = 12345;
sub r { $x = ($x * 1103515245 + 12345) & 0x7fffffff; return $x }
for my $i (0 .. 150_000) { my $k = r() % 60_000; $h{"key-$k"} .= chr(97 + $i % 26); push @a, r() }
my $sum = 0; $sum = ($sum + length($h{$_}) * ord(substr $h{$_}, 0, 1)) % 1_000_003 for sort keys %h;
print scalar(keys %h), " $sum\n";
my @s = sort { $a <=> $b } @a; print "$s[0] $s[-1] $s[@s / 2]\n";
my $t = join ",", @a[0 .. 20_000]; my $n = () = $t =~ /(\d)\1/g; (my $u = $t) =~ s/(\d+),(\d+)/$2-$1/g; print "$n ", length $u, "\n";
my @deep = map { { id => $_, list => [ 1 .. $_ % 17 ], name => "n" x ($_ % 50) } } 1 .. 20_000;
my $c = 0; $c += @{ $_->{list} } + length $_->{name} for @deep; print "$c\n";
pipe(my $in, my $out); 
for my $child (1 .. 4) { if (!fork) { my $l = 0; $l += length $h{$_} for keys %h; syswrite $out, "$l\n"; exit 0 } }
close $out; my @l = <$in>; wait for 1 .. 4; print @l; print `echo through the shell`;
"""


def perl(bench):
    bench.same([bench.program("perl"), "-e", _PERL], limit=90, env={"PERL_HASH_SEED": "0"})


def gcc(bench):
    """A file of this project becomes the same object, byte for byte."""
    compiler = bench.program("g++")
    objects = []
    for tiered in (False, True):
        objects.append(bench.scratch / f"object-{tiered}.o")
        bench.must([compiler, "-std=c++20", "-O2", "-D_GNU_SOURCE", "-frandom-seed=1", "-I", bench.source, "-c",
                    bench.source / "runtime/arena.cc", "-o", objects[-1]], tiered, limit=150)
    if objects[0].read_bytes() != objects[1].read_bytes():
        raise Wrong("the object file differs from the one of the plain compiler")


if __name__ == "__main__":
    main({"python_json": _suite("test_json", 120), "python_re": _suite("test_re", 400),
          "python_threading": _suite("test_threading", 400), "python_subprocess": _suite("test_subprocess", 400),
          "python_multiprocessing_fork": _suite("test_multiprocessing_fork", 400, _BY_FORK),
          "python_multiprocessing_spawn": _suite("test_multiprocessing_spawn", 400, _BY_CHILDREN),
          "perl": perl, "gcc": gcc})
