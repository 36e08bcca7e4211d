"""Below preload/cli there are no exceptions, no RTTI and no general heap: it is the code that malloc runs on."""

import re

from project import ROOMS, code_only, includes

_HEADERS = {"vector", "string", "functional", "iostream", "sstream", "fstream", "map", "set", "unordered_map",
            "unordered_set", "deque", "list", "queue", "stack", "memory", "future", "thread", "mutex",
            "condition_variable", "regex", "format", "any", "stdexcept", "exception", "typeinfo", "iomanip",
            "ostream", "istream", "locale", "filesystem"}
_WORDS = [
    (re.compile(r"\b(throw|try|catch|typeid|dynamic_cast)\b"), "exceptions and RTTI are off"),
    (re.compile(r"(?<!operator )(?<!operator)\bnew\b(?!\s*\()"), "only placement new: there is no heap here"),
    (re.compile(r"(?<!operator )(?<!= )\bdelete\b"), "there is no heap here"),
    (re.compile(r"\bstd::(vector|string|function|map|unordered_map|deque|list|shared_ptr|unique_ptr|make_\w+|"
                r"mutex|thread|cout|cerr)\b"), "it allocates or may throw"),
]
_HEAP_CALL = re.compile(r"(?<![\w.>:])(std::|::)?(malloc|calloc|realloc|strdup|asprintf)\s*\(")

# The public C++ header speaks std::pmr to its user; nothing in the library includes it.
_EXEMPT = ("preload/cli/", "runtime/include/")


def check(tree):
    problems = []
    for path in tree.cxx_files(*ROOMS):
        if path.startswith(_EXEMPT):
            continue
        text = tree.read(path)
        for line, name, _ in includes(text):
            if name in _HEADERS:
                problems.append(f"{path}:{line}: <{name}> allocates or may throw")
        for number, line in enumerate(code_only(text).splitlines(), start=1):
            if line.lstrip().startswith("#"):
                continue
            for pattern, why in _WORDS:
                match = pattern.search(line)
                if match:
                    problems.append(f"{path}:{number}: {match.group().strip()}: {why}")
            # preload/ defines malloc and the rest; it is the one place where their names are written.
            if not path.startswith("preload/") and _HEAP_CALL.search(line):
                problems.append(f"{path}:{number}: a call of the general heap")
    return problems
