#!/bin/sh
# Law 3: policies are arithmetic. Lists what the objects of a policy library call that is defined outside of it,
# and fails if that is more than what compilers emit by themselves. A clock, an allocation, a lock or a system call
# shows up by name.
#   law3.sh LIBRARY             0 if pure, 1 if not
#   law3.sh --impure LIBRARY    the other way round: the check itself is checked
set -eu
expected=0
if [ "$1" = --impure ]; then
  expected=1
  shift
fi
defined=$(mktemp)
trap 'rm -f "$defined"' EXIT
nm --demangle --defined-only "$1" | sed -n 's/^[0-9a-f]* [A-Za-z] //p' | sort -u >"$defined"
[ -s "$defined" ] || { echo "law3: $1 defines nothing"; exit 2; }
foreign=$(nm --demangle --undefined-only "$1" | sed -n 's/^ *[UwvV] //p' | sort -u |
  grep -vxF -f "$defined" |
  grep -vxE 'mem(cpy|set|move)|__stack_chk_fail(_local)?|_GLOBAL_OFFSET_TABLE_|__cxa_pure_virtual|vtable for __cxxabiv1::.*' || true)
[ -z "$foreign" ] || { echo "policies call from outside:"; echo "$foreign"; }
[ "$expected" = "$([ -z "$foreign" ] && echo 0 || echo 1)" ]
