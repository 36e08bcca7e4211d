/* heaptier: the C interface for programs that know of heaptier.
 *
 * A program needs none of this: preloading is enough. A program that links libheaptier (or finds
 * these symbols with dlsym, or declares them weak) may pin memory, ask where it is, move it by hand
 * and make heaps of its own.
 *
 * Rules: every function may be called from any thread, not from a signal handler. Functions
 * returning int give 0 or a positive count for success and a negative errno constant for failure;
 * errno itself is not changed. Ranges need not be page aligned: they are widened to whole pages
 * (fetch, where, pin) or narrowed (demote, park, discard), so that a neighbour's object never pays.
 * Memory that heaptier does not manage is -EINVAL.
 */
#ifndef HEAPTIER_HEAPTIER_H_
#define HEAPTIER_HEAPTIER_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HEAPTIER_API __attribute__((visibility("default")))

/* 1: this process' heap is managed and the engine is awake; 0: managed but dormant; -ENOTSUP:
 * tiering is off. */
HEAPTIER_API int heaptier_state(void);

/* Wakes the engine now instead of at the wake-up size. 0, or -ENOTSUP with the reason on stderr
 * once. */
HEAPTIER_API int heaptier_wake(void);

/* Where a page is. One byte a page, in address order. */
enum heaptier_place {
  HEAPTIER_RESIDENT = 0, /* mapped (or never touched) */
  HEAPTIER_CLEAN = 1,    /* mapped, and a stored copy is kept */
  HEAPTIER_PARKED = 2,   /* unmapped, its frame kept: the next touch is a hint fault */
  HEAPTIER_STORED = 3,   /* compressed */
  HEAPTIER_FILLED = 4,   /* same-filled: costs nothing */
  HEAPTIER_LOST = 5,     /* its copy failed the checksum: touching it raises SIGBUS */
  HEAPTIER_UNMANAGED = 6 /* not movable memory of heaptier's heap */
};
/* `places` has room for (pages spanned) bytes. Returns the number of pages written. */
HEAPTIER_API int heaptier_where(const void* p, size_t bytes, unsigned char* places);

/* Demotes the whole pages inside the range to the store now. Returns how many pages are stored
 * afterwards. */
HEAPTIER_API int heaptier_demote(void* p, size_t bytes);
/* Parks the whole pages inside the range (a huge page only in one piece). Returns pages parked
 * afterwards. */
HEAPTIER_API int heaptier_park(void* p, size_t bytes);
/* Brings every page that the range touches back. Returns how many had been away. */
HEAPTIER_API int heaptier_fetch(void* p, size_t bytes);

enum heaptier_advice {
  HEAPTIER_PIN =
      1, /* bring back and never demote until unpinned (but see heaptier_drain); pins count */
  HEAPTIER_UNPIN = 2,
  HEAPTIER_COLD = 3, /* like heaptier_demote, as a hint */
  HEAPTIER_HOT = 4   /* like heaptier_fetch, as a hint */
};
HEAPTIER_API int heaptier_advise(void* p, size_t bytes, int advice);

/* Heaps of one's own. */
typedef struct heaptier_heap heaptier_heap;
enum heaptier_heap_flags {
  HEAPTIER_HEAP_MOVABLE = 0,
  HEAPTIER_HEAP_UNMOVABLE = 1, /* never hinted, moved or stored: DMA and registered buffers (but see
                                  heaptier_drain) */
  HEAPTIER_HEAP_RECLAIMABLE = 2, /* may be discarded under pressure and then reads as zero */
  HEAPTIER_HEAP_USER_ONLY = 4 /* never passed to a system call: faults are resolved in the faulting
                                 thread (SIGBUS), which is faster; a system call on it may fail with
                                 EFAULT. Create such heaps before the engine wakes: later ones are
                                 served like any other memory */
};
/* NULL when memory or the number of heaps (64) is used up. */
HEAPTIER_API heaptier_heap* heaptier_heap_create(unsigned flags);
/* Memory of the heap, aligned to `align` (0: 16). Freed with free() or heaptier_free(). NULL: out
 * of memory. */
HEAPTIER_API void* heaptier_heap_alloc(heaptier_heap* heap, size_t bytes, size_t align);
HEAPTIER_API void heaptier_free(void* p);

/* Vacates a memory node: what of the heap lies there goes to the other nodes of the chain (of the
 * same tier, else of the next ones down, else of those above), and new memory stays off it while
 * the others have room, until heaptier_undrain. Everything in the heap goes, unmovable heaps and
 * pinned memory too, but not what the kernel holds in its place (buffers registered for DMA) or the
 * application has bound by mbind. Waits until all that can go has gone, which may be seconds; other
 * threads run meanwhile. Returns how many pages are left there, 0: none. What appears there
 * later goes, too, in the background; a forked child inherits all this.
 * -EINVAL: no node's number (0 to 63). -ENODEV: no node of the chain. -EBUSY: the chain has no
 * other node that it could go to. -ENOTSUP: tiering is off, or this host does not say where pages
 * are. -ECANCELED: another thread has ended it. */
HEAPTIER_API int heaptier_drain(int node);
/* Memory may come from the node again. 0; -ENODEV: it was not being vacated; others as above. */
HEAPTIER_API int heaptier_undrain(int node);

/* The statistics as one JSON object (the same numbers as the exit report). Returns the length it
 * has, like snprintf; writes at most n bytes with a closing NUL. */
HEAPTIER_API size_t heaptier_stats_json(char* out, size_t n);

#ifdef __cplusplus
}
#endif

#endif /* HEAPTIER_HEAPTIER_H_ */
