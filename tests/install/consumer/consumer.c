/* A program that links heaptier: it uses a heap of its own, the statistics, and everything else
 * that there is to call. Whether heaptier is on, off or not wanted in this process, it must hold.
 */
#include <heaptier/heaptier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char everything[1 << 16];

static int call_everything(void* p, size_t bytes) {
  unsigned char places[4];
  int nodes[4];
  const int tier = 0;
  int advice;
  heaptier_state();
  heaptier_where(p, bytes, places);
  heaptier_fetch(p, bytes);
  heaptier_demote(p, bytes);
  heaptier_park(p, bytes);
  heaptier_tiers();
  heaptier_tier_name(0, (char*)places, sizeof places);
  heaptier_nodes(p, bytes, nodes);
  heaptier_move(&p, NULL, nodes, 1, 0);
  heaptier_move(&p, &tier, nodes, 1, HEAPTIER_MOVE_SPLIT);
  heaptier_move_lazy(p, bytes, tier);
  for (advice = 0; advice < 6; ++advice) heaptier_advise(p, bytes, advice);
  heaptier_advise(p, bytes, HEAPTIER_UNPIN);
  /* Where no memory is, nothing happens. */
  if (heaptier_fetch(p, (size_t)1 << 60) > 0 || heaptier_advise(p, (size_t)-1, HEAPTIER_PIN) >= 0) {
    fputs("half of the address space is somebody's memory\n", stderr);
    return 1;
  }
  if (heaptier_stats_json(everything, sizeof everything) < 100 ||
      strstr(everything, "\"schema\"") == NULL) {
    fputs("the statistics are not there\n", stderr);
    return 1;
  }
  return 0;
}

int main(void) {
  heaptier_heap* heap = heaptier_heap_create(HEAPTIER_HEAP_UNMOVABLE);
  char* text = heap == NULL ? NULL : heaptier_heap_alloc(heap, 100, 64);
  char* own = malloc(5000);
  char json[64];
  if (own == NULL || call_everything(own, 5000) != 0 || call_everything(json, 10) != 0) return 1;
  free(own);
  if (getenv("WITHOUT_HEAPTIER") == NULL) {
    if (text == NULL || ((size_t)text & 63) != 0) {
      fputs("no memory from a heap of its own\n", stderr);
      return 1;
    }
    memset(text, 'x', 100);
    heaptier_free(text);
    heaptier_heap_destroy(heap);
  }
  if (heaptier_stats_json(json, sizeof json) < 2 || json[0] != '{') {
    fputs("the statistics are no JSON object\n", stderr);
    return 1;
  }
  return 0;
}
