"""Law 3: policies are arithmetic. What libheaptier_policies.a needs from elsewhere is memory moving and what the
compiler itself calls; a clock, an allocation, a lock or a system call would show up as an undefined symbol."""

import re
import subprocess

from project import Skip

_ALLOWED = re.compile(r"^(memcpy|memset|memmove|memcmp|bcmp|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_|__cxa_pure_virtual"
                      r"|exp2?f?|log2?f?|powf?|sqrtf?|fmaf?|floorf?|ceilf?|lroundf?|llroundf?"
                      r"|heaptier::.*|(vtable|typeinfo|typeinfo name) for (heaptier|__cxxabiv1)::.*"
                      r"|operator delete\(void\*, unsigned long\))$")


def check(tree):
    if tree.policies_library is None:
        raise Skip("no libheaptier_policies.a given")
    symbols = subprocess.run(["nm", "--undefined-only", "--demangle", tree.policies_library], capture_output=True,
                             text=True, check=True).stdout
    return [f"policies/:1: uses {line.split(' U ', 1)[1].strip()}" for line in symbols.splitlines()
            if " U " in line and not _ALLOWED.match(line.split(" U ", 1)[1].strip())]
