/* A program that links heaptier: it uses a heap of its own and the statistics. */
#include <heaptier/heaptier.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  heaptier_heap* heap = heaptier_heap_create(HEAPTIER_HEAP_UNMOVABLE);
  char* text = heap == NULL ? NULL : heaptier_heap_alloc(heap, 100, 64);
  char json[64];
  if (text == NULL || ((size_t)text & 63) != 0) {
    fputs("no memory from a heap of its own\n", stderr);
    return 1;
  }
  memset(text, 'x', 100);
  heaptier_free(text);
  if (heaptier_stats_json(json, sizeof json) < 2 || json[0] != '{') {
    fputs("the statistics are no JSON object\n", stderr);
    return 1;
  }
  return 0;
}
