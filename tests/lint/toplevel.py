"""The top level is the table of contents and holds nothing else; every room has its README."""

_ALLOWED = {"CMakeLists.txt", "CMakePresets.json", "LICENSE", "README.md", "run",
            "runtime", "preload", "uffd", "policies", "tests", "bench"}
_GENERATED = {"build", "compile_commands.json"}


def check(tree):
    found = {entry.name for entry in tree.root.iterdir() if not entry.name.startswith(".")} - _GENERATED
    problems = [f"{name}:1: does not belong at the top level" for name in sorted(found - _ALLOWED)]
    problems += [f"{name}:1: is missing at the top level" for name in sorted(_ALLOWED - found)]
    for room in ("runtime", "preload", "uffd", "policies", "tests", "bench"):
        if not tree.exists(room + "/README.md"):
            problems.append(f"{room}/README.md:1: is missing: what lives here, what it may use")
    return problems
