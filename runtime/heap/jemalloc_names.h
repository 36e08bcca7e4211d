// jemalloc as embed_jemalloc.sh leaves it: its public functions with the prefix je_.
#pragma once

#define JEMALLOC_NO_RENAME
#include <jemalloc/jemalloc.h>
