"""The 4 KiB fault on a stored page: the handler thread against the same fault resolved in the faulting thread.

The windows are bench_fault_latency's own; here its two tables are read, and its whole output is shown.
"""

import re
import subprocess

from .common import Environment, Failed, Row, Skip

# "handler (adaptive class)   5.10  4.90  9.80  20.00 |  1.53  2.10": mean, p50, p99, p99.9, then the ratios to inline.
LINE = re.compile(r"^(.+?)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+) \|\s+([\d.]+)\s+([\d.]+)$")

def tables(text):
    """{title: {variant: (mean, p50, p99, p99.9 in us, mean and p99 as ratios to inline)}}"""
    found, title = {}, None
    for line in text.splitlines():
        match = LINE.match(line)
        if match and title:
            found[title][match[1]] = tuple(float(number) for number in match.groups()[1:])
        elif re.match(r"^[a-z].*: \d+ rounds", line, re.IGNORECASE):
            title = line.partition(":")[0]
            found[title] = {}
    return found


def of(table, word):
    """The one variant whose name has this word."""
    found = [numbers for name, numbers in table.items() if word in name]
    if len(found) != 1:
        raise Failed(f"bench_fault_latency printed {len(found)} lines about '{word}'")
    return found[0]


def run(context):
    if context.self_check:
        raise Skip("there is no allocator in it")
    context.say("fault latency")
    command = [context.program("bench_fault_latency")] + (["--rounds", "5"] if context.quick else [])
    result = subprocess.run(command, env=Environment().full(), text=True, capture_output=True, timeout=900)
    if result.returncode == 77:
        raise Skip(result.stdout.strip().splitlines()[-1])
    if result.returncode != 0:
        raise Failed(f"bench_fault_latency: status {result.returncode} {result.stderr.strip()}")
    for line in result.stdout.rstrip().splitlines():
        context.say(line)
    found = tables(result.stdout)
    quiet, busy = found.get("quiet machine", {}), found.get("all CPUs busy", {})
    ours, inline = of(quiet, "adaptive"), of(quiet, "inline")
    ours_busy, normal_busy = of(busy, "adaptive"), of(busy, "always normal")
    note = f"mean {inline[0]:.1f} -> {ours[0]:.1f} us, p99 {inline[2]:.1f} -> {ours[2]:.1f} us"
    return [Row("4 KiB fault by the handler, quiet: mean", "the same inline", ours[4], ("<=", 1.6), note=note),
            Row("4 KiB fault by the handler, quiet: p99", "the same inline", ours[5], ("<=", 3)),
            Row("4 KiB fault, all CPUs busy: p99", "normal-class handler", ours_busy[2] / normal_busy[2],
                ("<=", 10), note=f"{normal_busy[2]:.1f} -> {ours_busy[2]:.1f} us")]
