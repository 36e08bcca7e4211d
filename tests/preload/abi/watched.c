/* Writes one byte too far when told to: a sanitizer or valgrind must still see it with heaptier
 * preloaded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char** argv) {
  char* p = malloc(100);
  char* q = strdup(argv[0]);
  if (p == NULL || q == NULL) return 2;
  memset(p, 1, 100);
  char* grown = realloc(p, 1000);
  if (grown == NULL) return 2;
  free(q);
  grown[argc > 1 ? 1000 : 999] = 1;
  free(grown);
  puts("fine");
  return 0;
}
