"""Interpreters and a compiler: python's own test suites, perl, gcc."""

import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))
from run_under import Missing, Wrong, main  # noqa: E402


# They give another process a tenth of a second to have put something into a queue. On a loaded machine that is too short.
_BY_THE_CLOCK = {"test_get", "test_put"}


def _suite(name, limit, classes=()):
    """Python's own tests of one module, or of some of its classes. What fails under the library must fail plain, too, to be
    forgiven; what goes by the clock is tried once more before."""
    def scenario(bench):
        # PYTHONMALLOC: small objects come from malloc too, not from arenas that python maps by itself.
        env = {"PYTHONMALLOC": "malloc", "PYTHONDONTWRITEBYTECODE": "1"}
        python = bench.program("python3")
        if bench.run([python, "-c", f"import test.{name}"], False).status != 0:
            raise Missing(f"python's own tests are not installed (test.{name}: libpython3.11-testsuite)")
        argv = [python, "-m", "test", "-v", *(f"--match={one}" for one in classes), name]
        tiered = bench.run(argv, True, limit, env=env)
        if tiered.status == 0:
            return
        bad = _failures(tiered)
        late = {one.split()[0] for one in bad}
        if late and late <= _BY_THE_CLOCK:
            print(f"came too late, tried once more: {sorted(bad)}")
            again = [python, "-m", "test", "-v", *(f"--match={one}" for one in late), name]
            tiered = bench.run(again, True, limit, env=env)
            if tiered.status == 0:
                return
            bad = _failures(tiered)
        plain = _failures(bench.run(argv, False, limit, env=env))
        if not bad or bad - plain:
            raise Wrong(f"fails under heaptier and not plain: {sorted(bad - plain)}\n{tiered.describe()}")
        print(f"fails plain, too: {sorted(plain)}")
    return scenario


def _failures(done):
    text = (done.out + done.err).decode(errors="replace")
    return set(re.findall(r"^(?:FAIL|ERROR): (\S+ \(\S+\))", text, re.MULTILINE))


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
