"""What every lint needs: the project's files, and C++ text without its comments and strings."""

import re
from pathlib import Path

# Never the project's own: what .gitignore names, and other tools' directories.
_SKIPPED = {"build", ".git", ".cache", "compile_commands.json", "__pycache__"}
ROOMS = ("runtime", "preload", "uffd", "policies")
CXX_SUFFIXES = {".cc", ".h", ".hpp", ".c"}


class Skip(Exception):
    """The check cannot be made here; ctest shows the reason and counts the test as skipped."""


class Tree:
    """The project below a root; paths are relative, with slashes."""

    def __init__(self, root):
        self.root = Path(root)
        self.heaptier = None  # the built command, where there is a build

    def files(self, *folders):
        """Sorted, below the given folders (default: everywhere)."""
        found = []
        for folder in folders or (".",):
            for path in (self.root / folder).rglob("*"):
                relative = path.relative_to(self.root)
                if path.is_file() and not _SKIPPED.intersection(relative.parts):
                    found.append(relative.as_posix())
        return sorted(found)

    def cxx_files(self, *folders):
        return [f for f in self.files(*folders) if Path(f).suffix in CXX_SUFFIXES]

    def read(self, path):
        return (self.root / path).read_text(encoding="utf-8")

    def exists(self, path):
        return (self.root / path).exists()


def numbered(text):
    return enumerate(text.splitlines(), start=1)


_COMMENT_OR_STRING = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)


def code_only(text):
    """The text with comments and literals blanked, line numbers kept. Digit separators (1'000) are left alone."""
    def blank(match):
        start = match.start()
        if match.group().startswith("'") and start > 0 and text[start - 1].isalnum():
            return match.group()
        return "\n" * match.group().count("\n") or " "
    # #include "..." is not a literal to blank: the lints that look at includes read the raw text.
    return _COMMENT_OR_STRING.sub(blank, text)


_INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


def includes(text):
    """(line, name, quoted) of every #include."""
    for number, line in numbered(text):
        match = _INCLUDE.match(line)
        if match:
            yield number, match[1] or match[2], match[1] is not None
