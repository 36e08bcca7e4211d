"""Kernel swap to compressed memory inside a memory cgroup: the room in which the baseline of bench_kv runs.

Root only. Makes a zram device and a cgroup of its own (version 1 or 2) and always takes both away again.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time

from .common import Skip

ZRAM_CONTROL = pathlib.Path("/sys/class/zram-control")


def must_write(path, text):
    with open(path, "w") as f:
        f.write(str(text))


class Cgroup:
    """A memory cgroup below the one this process is in; `limit` bounds its memory, its swap is not bounded."""

    def __init__(self, name):
        base, self.v2 = self._find()
        self.path = base / name
        try:
            self.path.mkdir()
        except OSError as error:
            raise Skip(f"cannot make a memory cgroup below {base}: {error.strerror}") from None

    @staticmethod
    def _find():
        mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
        own = dict((line.split(":")[1], line.strip().split(":", 2)[2])
                   for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines())
        for _, where, kind, options, *_ in mounts:
            if kind == "cgroup" and "memory" in options.split(","):
                base = pathlib.Path(where)
                return base, False
        for _, where, kind, *_ in mounts:
            if kind == "cgroup2" and "memory" in (pathlib.Path(where) / "cgroup.controllers").read_text().split():
                base = pathlib.Path(where)
                control = base / "cgroup.subtree_control"
                with contextlib.suppress(OSError):
                    must_write(control, "+memory")
                if "memory" not in control.read_text().split():
                    raise Skip(f"the memory controller of {base} (now in {own.get('', '/')}) cannot be delegated")
                return base, True
        raise Skip("no memory cgroup controller")

    @property
    def procs(self):
        return self.path / "cgroup.procs"

    def limit(self, size):
        must_write(self.path / ("memory.max" if self.v2 else "memory.limit_in_bytes"), size)
        if not self.v2:
            # What the kernel's documentation advises for swap that is as fast as this one.
            with contextlib.suppress(OSError):
                must_write(self.path / "memory.swappiness", 100)

    def usage(self):
        return int((self.path / ("memory.current" if self.v2 else "memory.usage_in_bytes")).read_text())

    def remove(self):
        for _ in range(50):
            try:
                self.path.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.1)  # its last process is still being torn down


class Zram:
    """A zram device with lz4, used as swap with the highest priority."""

    def __init__(self, size):
        for tool in ("mkswap", "swapon", "swapoff"):
            if not shutil.which(tool):
                raise Skip(f"{tool} is not installed")
        self.number = None
        self.swapping = False
        try:
            self.number = int((ZRAM_CONTROL / "hot_add").read_text())
        except OSError as error:
            raise Skip(f"cannot add a zram device: {error.strerror}") from None
        self.device = f"/dev/zram{self.number}"
        self.sysfs = pathlib.Path(f"/sys/block/zram{self.number}")
        try:
            must_write(self.sysfs / "comp_algorithm", "lz4")
            must_write(self.sysfs / "disksize", size)
            for _ in range(50):
                if os.path.exists(self.device):
                    break
                time.sleep(0.05)
            subprocess.run(["mkswap", self.device], check=True, capture_output=True)
            subprocess.run(["swapon", "-p", "32767", self.device], check=True, capture_output=True, text=True)
            self.swapping = True
        except (OSError, subprocess.CalledProcessError) as error:
            self.remove()
            raise Skip(f"cannot swap to zram with lz4: {getattr(error, 'stderr', None) or error}") from None

    def memory_used(self):
        """mem_used_total: all memory the device holds for data, allocator slack included."""
        return int((self.sysfs / "mm_stat").read_text().split()[2])

    def remove(self):
        if self.swapping:
            subprocess.run(["swapoff", self.device], capture_output=True)
        for path, text in ((self.sysfs / "reset", 1), (ZRAM_CONTROL / "hot_remove", self.number)):
            for _ in range(20):
                try:
                    must_write(path, text)
                    break
                except OSError:
                    time.sleep(0.1)


@contextlib.contextmanager
def room(disk_bytes):
    """Zram, swapped on; two cgroups: one to limit, one that only counts."""
    if os.geteuid() != 0:
        raise Skip("needs root (a cgroup and a swap device)")
    if not ZRAM_CONTROL.exists():
        raise Skip("no zram in this kernel (modprobe zram)")
    with contextlib.ExitStack() as stack:
        limited = Cgroup(f"heaptier-bench-{os.getpid()}-swap")
        stack.callback(limited.remove)
        counted = Cgroup(f"heaptier-bench-{os.getpid()}-count")
        stack.callback(counted.remove)
        zram = Zram(disk_bytes)
        stack.callback(zram.remove)
        yield zram, limited, counted
