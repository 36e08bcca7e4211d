/* Stands in for libheaptier.so: says that it was loaded. */
#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor)) static void loaded(void) {
  if (getenv("PROBE_SAYS") != NULL) fputs("probe loaded\n", stderr);
}
