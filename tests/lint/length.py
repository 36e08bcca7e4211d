"""One file, one concept: 80 to 300 lines. Over 600 it is said; over 900 the file must be divided."""

_SAID, _REFUSED = 600, 900


def check(tree):
    problems = []
    for path in tree.files("runtime", "preload", "uffd", "policies", "tests", "bench"):
        if not path.endswith((".cc", ".h", ".hpp", ".c", ".py", ".sh")):
            continue
        lines = len(tree.read(path).splitlines())
        if lines > _REFUSED:
            problems.append(f"{path}:1: {lines} lines: divide it")
        elif lines > _SAID:
            print(f"{path}: warning: {lines} lines; is it still one concept?")
    return problems
