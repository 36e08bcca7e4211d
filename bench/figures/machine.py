"""The machine a table was measured on, in a few lines."""

import os
import platform
import time


def read(path, otherwise="unknown"):
    try:
        with open(path) as f:
            return f.read().strip()
    except OSError:
        return otherwise


def cpu_model():
    for line in read("/proc/cpuinfo").splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()


def memory_gib():
    for line in read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) / (1 << 20)
    return 0.0


def chosen(path):
    """The word in brackets of a sysfs choice such as "always [madvise] never"."""
    text = read(path)
    return text.partition("[")[2].partition("]")[0] or text


def nodes():
    try:
        return sum(name.startswith("node") for name in os.listdir("/sys/devices/system/node")) or 1
    except OSError:
        return 1


def busy_share(seconds=1.0):
    """Of all CPUs' time, how much is used at this moment: the load average would remember our own build."""
    def times():
        fields = [int(x) for x in read("/proc/stat", "cpu 0 0 0 0 0 0 0 0").splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]  # idle, iowait

    total, idle = times()
    time.sleep(seconds)
    total_after, idle_after = times()
    return 1 - (idle_after - idle) / (total_after - total) if total_after > total else 0.0


def disturbed(busy):
    """Figures of a busy machine are no figures."""
    return busy > 0.25


def lines():
    virtual = "hypervisor" in read("/proc/cpuinfo")
    governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "none (not exposed)")
    busy = busy_share()
    cpus = len(os.sched_getaffinity(0))
    yield f"CPU       {cpu_model()}{' (virtual machine)' if virtual else ''}, {cpus} CPUs"
    yield f"memory    {memory_gib():.1f} GiB, {nodes()} node(s)"
    yield f"kernel    {platform.system()} {platform.release()}"
    yield (f"THP       {chosen('/sys/kernel/mm/transparent_hugepage/enabled')}, "
           f"defrag {chosen('/sys/kernel/mm/transparent_hugepage/defrag')}")
    yield f"governor  {governor}"
    yield (f"load      {busy:.0%} of the CPUs were busy before the start"
           + (": NOT A QUIET MACHINE, trust the ratios less" if disturbed(busy) else ""))
