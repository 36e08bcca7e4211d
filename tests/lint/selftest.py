#!/usr/bin/env python3
"""Every lint finds what it is there for: each is shown a small clean tree, and then the same tree with one thing
planted in it. A lint that could not fail would be worse than none."""

import os
import shutil
import stat
import sys
import tempfile
import unittest
from pathlib import Path

import arrows
import doors
import formatting
import headers
import heapless
import length
import project
import readme
import shell
import toplevel
import words
from project import Skip, Tree

_PACKAGES = "# comment\nbuild: g++ ninja-build\ndemo: redis-server?\n"
_RUN = "#!/bin/bash\nset -euo pipefail\nprintf '  demo  shows\\n  build\\n'\n"
_HEAPTIER = ("#!/bin/bash\nset -euo pipefail\n"
             'case "$*" in\n  "help options --markdown") echo "| option |" ;;\n'
             '  help) echo "  heaptier run" ;;\n  *) exit 2 ;;\nesac\n')
_README = ("# it\n[room](uffd/README.md) [down](#more-words)\n```sh\n./run demo\nheaptier run -- true\n```\n## More words\n"
           + readme._BLOCK.format("packages") + readme._BLOCK_END.format("packages")
           + readme._BLOCK.format("options") + readme._BLOCK_END.format("options"))

CLEAN = {
    "CMakeLists.txt": "", "CMakePresets.json": "{}", "LICENSE": "", "README.md": _README, "run": _RUN,
    ".packages": _PACKAGES, ".clang-format": "BasedOnStyle: Google\n", "build/heaptier": _HEAPTIER,
    "runtime/README.md": "", "preload/README.md": "", "uffd/README.md": "", "policies/README.md": "",
    "tests/README.md": "", "bench/README.md": "",
    "runtime/base/units.h": "#pragma once\n\n#include <cstdint>\n",
    "runtime/include/heaptier/heaptier.h": "#ifndef H_\n#define H_\nint f(void);\n#endif\n",
    "runtime/os/memory.cc": '#include <sys/mman.h>\n\n#include "runtime/base/units.h"\n',
    "runtime/core.h": '#pragma once\n\n#include "policies/policy.h"\n#include "runtime/base/units.h"\n',
    "uffd/api.cc": "#include <unistd.h>\nlong f() { return syscall(323); }\n",
    "uffd/kernel_abi.h": "#pragma once\n#include <linux/userfaultfd.h>\n",
    "uffd/thread_door.cc": "#include <sys/syscall.h>\n",
    "policies/policy.h": '#pragma once\n\n#include "runtime/base/units.h"\n',
    "preload/boot.cc": '#include "heaptier/heaptier.h"\n#include "runtime/core.h"\n',
    "preload/syscall_abi.cc": "#include <sys/syscall.h>\n",
    "preload/cli/main.cc": "#include <unistd.h>\n\n#include <vector>\nint* p = new int;\n",
}


class PlantedViolations(unittest.TestCase):
    def setUp(self):
        self.root = Path(tempfile.mkdtemp(prefix="heaptier-lint-"))
        self.addCleanup(shutil.rmtree, self.root)
        for path, text in CLEAN.items():
            self.plant(path, text)
        for path in ("run", "build/heaptier"):
            (self.root / path).chmod(stat.S_IRWXU)
        self.tree = Tree(self.root)
        self.tree.heaptier = str(self.root / "build/heaptier")
        readme.write(self.tree)

    def plant(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def problems(self, module):
        try:
            return module.check(self.tree)
        except Skip as reason:
            self.skipTest(str(reason))

    def refused(self, module, path, text, *words_expected):
        """The clean tree passes; with `text` at `path` there is a problem that names the file and says the words."""
        self.assertEqual(self.problems(module), [])
        self.plant(path, text)
        found = "\n".join(self.problems(module))
        for word in (path, *words_expected):
            self.assertIn(word, found)

    def test_arrow_up(self):
        self.refused(arrows, "runtime/base/time.h", '#include "runtime/core.h"\n', ":1:", "arrows point down")

    def test_arrow_from_uffd_to_runtime(self):
        self.refused(arrows, "uffd/event.h", '\n#include "runtime/core.h"\n', ":2:")

    def test_arrow_between_neighbours(self):
        self.refused(arrows, "policies/none.h", '#include "uffd/kernel_abi.h"\n')

    def test_arrow_in_angle_brackets(self):
        self.refused(arrows, "runtime/core.cc", "#include <preload/boot.cc>\n")

    def test_relative_include(self):
        self.refused(arrows, "runtime/core.cc", '#include "core.h"\n', "named from the root")

    def test_door_by_header(self):
        self.refused(doors, "runtime/core.cc", "#include <sys/mman.h>\n", "outside the doors")

    def test_door_by_call(self):
        self.refused(doors, "policies/none.cc", "long f() { return syscall(1); }\n", "syscall()")

    def test_door_in_a_comment_is_none(self):
        self.plant("policies/none.cc", "// not syscall(1)\n")
        self.assertEqual(self.problems(doors), [])

    def test_door_that_is_none_any_more(self):
        self.refused(doors, "uffd/thread_door.cc", "", "makes no system call")

    def test_container(self):
        self.refused(heapless, "runtime/core.cc", "#include <vector>\n", "<vector>")

    def test_exception(self):
        self.refused(heapless, "uffd/event.cc", "void f() { throw 1; }\n", "throw")

    def test_new(self):
        self.refused(heapless, "policies/none.cc", "int* p = new int;\n", "new")

    def test_malloc(self):
        self.refused(heapless, "runtime/core.cc", "void* p = malloc(1);\n", "general heap")

    def test_placement_new_and_deleted_functions_are_fine(self):
        self.plant("runtime/core.cc", "struct A { A(const A&) = delete; };\nvoid f(void* p) { new (p) int; }\n")
        self.assertEqual(self.problems(heapless), [])

    def test_header_that_needs_another(self):
        self.refused(headers, "runtime/size.h", "#pragma once\ninline std::size_t n = 0;\n", "does not compile alone")

    def test_public_header_that_is_no_c(self):
        self.refused(headers, "runtime/include/heaptier/other.h", "struct A {};\nA f(void);\n", "does not compile alone")

    def test_formatting(self):
        self.refused(formatting, "uffd/event.cc", "int   a;\n")

    def test_length(self):
        self.refused(length, "uffd/event.cc", "int a;\n" * 901, "divide")

    def test_top_level(self):
        self.refused(toplevel, "notes.txt", "", "top level")

    def test_room_without_readme(self):
        self.assertEqual(self.problems(toplevel), [])
        (self.root / "uffd/README.md").unlink()
        self.assertIn("uffd/README.md", "\n".join(self.problems(toplevel)))

    def test_machine_path(self):
        self.refused(words, "uffd/event.cc", f"// see {os.sep}home/somebody\n", "one machine")

    def test_private_host(self):
        self.refused(words, "uffd/event.cc", "// http:" + "//mirror.example.invalid/x\n", "mirror.example.invalid")

    def test_shell(self):
        self.refused(shell, "tests/go", "#!/bin/bash\nset -euo pipefail\ncat $1\n", ":3:")

    def test_shell_that_goes_on_after_errors(self):
        self.refused(shell, "tests/go", "#!/bin/bash\ntrue\n", "set -euo pipefail")

    def test_dead_link(self):
        self.refused(readme, "uffd/README.md", "[x](gone.h)\n", "leads nowhere")

    def test_dead_anchor(self):
        self.refused(readme, "uffd/README.md", "[x](../README.md#gone)\n", "no such heading")

    def with_readme(self, old, new, *words_expected):
        text = self.tree.read("README.md")
        self.assertIn(old, text)
        self.refused(readme, "README.md", text.replace(old, new), *words_expected)

    def test_command_of_run(self):
        self.with_readme("./run demo", "./run dmeo", "./run dmeo does not exist")

    def test_command_of_heaptier(self):
        self.with_readme("heaptier run", "heaptier runn", "heaptier runn does not exist")

    def test_options_table(self):
        self.with_readme("| option |", "| optoin |", "options are out of date")

    def test_packages_table(self):
        self.with_readme("ninja-build", "make", "packages are out of date")

    def test_missing_table(self):
        self.with_readme("end of options", "end of", "no block of options")

    def test_comments_are_blanked_and_lines_kept(self):
        text = 'a; // malloc(\n/* new\n */ b; "throw" 1\'000 \'x\'\n'
        blanked = project.code_only(text)
        self.assertEqual(blanked.count("\n"), text.count("\n"))
        for word in ("malloc", "new", "throw"):
            self.assertNotIn(word, blanked)
        self.assertIn("1'000", blanked)


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=1))
