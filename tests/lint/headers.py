"""Every header compiles alone, with the project's warnings; the public C header as C, too."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

from project import ROOMS

_WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-D_GNU_SOURCE"]


_CXX = ("CXX", "g++", "-x", "c++", "-std=c++20")
_C = ("CC", "gcc", "-x", "c", "-std=c99")


def compile_alone(tree, path, language):
    variable, compiler, *flags = language
    command = [os.environ.get(variable, compiler), *flags, "-fsyntax-only", *_WARNINGS, "-I", str(tree.root),
               "-I", str(tree.root / "runtime/include"), "-include", str(tree.root / path), "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
    return f"{path}:1: does not compile alone: {first.replace(str(tree.root) + '/', '')}"


def check(tree):
    jobs = [(path, _CXX) for path in tree.cxx_files(*ROOMS, "bench", "tests")
            if path.endswith((".h", ".hpp"))]
    jobs += [(path, _C) for path in tree.cxx_files("runtime/include") if path.endswith(".h")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [problem for problem in pool.map(lambda job: compile_alone(tree, *job), jobs) if problem]
