#!/bin/sh
# Makes a private copy of libjemalloc_pic.a: embed_jemalloc.sh IN.a OUT.a NM OBJCOPY AR
#
# - The public names get the prefix je_, so that `malloc` stays heaptier's and reaches je_malloc by a direct jump.
# - What it asks of the system for memory (mmap ...) and of libc for fork (pthread_atfork) goes to heaptier's shims
#   (jemalloc_shims.cc): all of jemalloc's memory, its metadata too, then lies in the Space.
# - Three calls between its own objects are routed through jemalloc_shims.cc, so that every arena is born with
#   heaptier's extent hooks, arena 0 included, and keeps its metadata on the default ones.
# - Its constructor goes: heaptier decides whether jemalloc serves at all. Its operators new and delete go: they would
#   bring libstdc++ into every C program.
set -eu
in=$1 out=$2 nm=$3 objcopy=$4 ar=$5
case $in in /*) ;; *) in=$PWD/$in ;; esac
work=$out.d
rm -rf "$work" "$out"
mkdir -p "$work"
(
  cd "$work"
  "$ar" x "$in"
  rm -f jemalloc_cpp.pic.o

  "$nm" --defined-only -g ./*.o 2>/dev/null | awk 'NF == 3 && $2 ~ /^[TDBVW]$/ && $3 !~ /^(je_|DW\.ref)/ {
    print $3, "je_" $3 }' | sort -u >names
  for name in mmap munmap madvise mprotect sbrk pthread_atfork _Unwind_Backtrace _Unwind_GetIP exp log round; do
    echo "$name heaptier_je_$name"
  done >>names
  for o in ./*.o; do
    "$objcopy" --redefine-syms=names "$o"
  done

  reroute() { # object symbol: calls of `symbol` from `object` go to heaptier_`symbol`
    "$nm" -u "$1" | grep -qw "$2" || { echo "embed_jemalloc: $1 does not call $2" >&2; exit 1; }
    "$objcopy" --redefine-sym "$2=heaptier_$2" "$1"
  }
  reroute arena.pic.o je_base_new
  reroute jemalloc.pic.o je_base_boot
  reroute pa.pic.o je_pac_init
  "$objcopy" --remove-section=.init_array --remove-section=.rela.init_array jemalloc.pic.o
  "$ar" rcs "$out" ./*.o
)
rm -rf "$work"
