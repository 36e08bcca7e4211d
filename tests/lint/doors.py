"""Law 2: the kernel is reached through few doors. The files below preload/cli that make system calls or include the
headers for them are exactly the ones listed here; a listed file that no longer does is a mistake, too."""

import fnmatch
import re

from project import ROOMS, code_only, includes

_KERNEL_HEADER = re.compile(r"^(sys/(mman|ioctl|syscall|uio|socket|un|epoll|eventfd|prctl|resource)\.h"
                            r"|unistd\.h|fcntl\.h|syscall\.h|linux/.+|asm/.+)$")
_RAW_CALL = re.compile(r"(?<![\w.>])syscall\s*\(|\basm\b[^;]*\bsyscall\b")

# Pattern: why it is a door.
DOORS = {
    "runtime/os/*": "the room for system calls",
    "uffd/kernel_abi.h": "the constants of userfaultfd that Debian 12's headers lack",
    "uffd/api.cc": "userfaultfd's own system calls",
    "uffd/thread_door.cc": "the handler's scheduling class, CPU and poll",
    "preload/syscall_abi.cc": "stands in for libc's syscall(): it knows the numbers of those that it leads elsewhere",
}
# An ordinary program, no part of the library.
_EXEMPT = "preload/cli/*"


def uses_kernel(text):
    """(line, what) of every use."""
    for line, name, _ in includes(text):
        if _KERNEL_HEADER.match(name):
            yield line, f"<{name}>"
    for number, line in enumerate(code_only(text).splitlines(), start=1):
        if _RAW_CALL.search(line):
            yield number, "syscall()"


def check(tree):
    problems = []
    used = set()
    for path in tree.cxx_files(*ROOMS):
        if fnmatch.fnmatch(path, _EXEMPT):
            continue
        door = next((pattern for pattern in DOORS if fnmatch.fnmatch(path, pattern)), None)
        for line, what in uses_kernel(tree.read(path)):
            if door:
                used.add(door)
            else:
                problems.append(f"{path}:{line}: {what} outside the doors to the kernel (tests/lint/doors.py)")
    for pattern in DOORS:
        if pattern not in used:
            problems.append(f"tests/lint/doors.py:1: {pattern} is listed as a door and makes no system call")
    return problems
