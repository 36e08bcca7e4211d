/* heaptier: the C interface for programs that know of heaptier.
 *
 * A program needs none of this: preloading is enough. A program that links libheaptier (or finds
 * these symbols with dlsym, or declares them weak) may pin memory, ask where it is, move it by hand
 * and make heaps of its own.
 *
 * Rules: every function may be called from any thread, not from a signal handler. Functions
 * returning int give 0 or a positive count for success and a negative errno constant for failure;
 * errno itself is not changed. Ranges need not be page aligned: they are widened to whole pages
 * (fetch, where, nodes, pin, hot, interleave) or narrowed (demote, park, cold, move_lazy), so that
 * a neighbour's object never pays. Memory that heaptier does not manage is -EINVAL.
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
  HEAPTIER_PARKED = 2,   /* unmapped, or hidden, its frame kept: the next touch is a hint fault */
  HEAPTIER_STORED = 3,   /* compressed */
  HEAPTIER_FILLED = 4,   /* same-filled: costs nothing */
  HEAPTIER_LOST = 5,     /* its copy failed the checksum: touching it raises SIGBUS */
  HEAPTIER_UNMANAGED = 6 /* not movable memory of heaptier's heap */
};
/* `places` has room for (pages spanned) bytes. Returns the number of pages written. */
HEAPTIER_API int heaptier_where(const void* p, size_t bytes, unsigned char* places);

/* Demotes the whole pages inside the range to the store now. Returns how many pages are stored
 * afterwards: none where the chain has no store. */
HEAPTIER_API int heaptier_demote(void* p, size_t bytes);
/* Parks the whole pages inside the range (a huge page only in one piece). Returns pages parked
 * afterwards. */
HEAPTIER_API int heaptier_park(void* p, size_t bytes);
/* Brings every page that the range touches back. Returns how many had been away. */
HEAPTIER_API int heaptier_fetch(void* p, size_t bytes);

enum heaptier_advice {
  /* Bring back, up to the first tier if that has room, and never demote or move until unpinned (but
   * see heaptier_drain). Pins count, and are kept for whole pageblocks of 2 MiB. */
  HEAPTIER_PIN = 1,
  HEAPTIER_UNPIN = 2,
  /* Each page one tier down: to the next nodes of the chain, from the last of them to the store.
   * Returns how many are below the first tier afterwards. Huge pages move whole or stay. */
  HEAPTIER_COLD = 3,
  /* Like heaptier_fetch, and up to the first tier as far as that has room. Returns how many had
   * been away or came up. */
  HEAPTIER_HOT = 4,
  /* Like heaptier_fetch, and spread over the memory nodes of the chain (where that names none: over
   * all that the process may use), by weights: those of policy interleave if they are given, else
   * by the nodes' bandwidths, else equal ones (`heaptier doctor` shows them). The pattern is the
   * kernel's own and goes by addresses: page number address / 4096, of a huge page address / 2 MiB,
   * modulo the sum of the weights; the first of them are the lowest node's. Each page is moved to
   * exactly its node, huge pages whole. Kept for whole pageblocks of 2 MiB: from then on nothing of
   * them is promoted, demoted or stored by itself, and pages that come later are moved to their
   * place soon after. Pinned memory is left where it is. Ends with HEAPTIER_UNINTERLEAVE,
   * HEAPTIER_HOT or HEAPTIER_COLD, or when a pageblock is freed or emptied as a whole; what
   * heaptier_move has moved returns to its place. Returns how many pages are not in their place
   * (pinned by a device, shared with a child, no room there); they are tried again. 0 also where
   * there is but one node. -ENOTSUP: the process has a memory policy of its own (numactl), or the
   * host does not say where pages are. */
  HEAPTIER_INTERLEAVE = 5,
  /* The pages stay where they are, and are watched and moved like any others. */
  HEAPTIER_UNINTERLEAVE = 6
};
/* Hints: what heaptier sees of the memory's use from then on counts more (but not for
 * HEAPTIER_PIN and HEAPTIER_INTERLEAVE). */
HEAPTIER_API int heaptier_advise(void* p, size_t bytes, int advice);

/* Moving by hand. Tiers are numbered by their place in this process' chain (the option TIERS), the
 * fastest is 0; by default 0 is "dram" and 1 is "zpool", the compressed store. Pages moved by hand
 * are from then on watched and moved like any others. */

/* How many tiers the chain has. */
HEAPTIER_API int heaptier_tiers(void);
/* The name of a tier: "dram", "cxl", "pmem" or "zpool". snprintf's rules for out, n and the result;
 * -EINVAL: there is no such tier. */
HEAPTIER_API int heaptier_tier_name(int tier, char* out, size_t n);

enum heaptier_move_flags {
  /* A huge page for which the target has pages enough but no free block of 2 MiB is taken apart and
   * moved in small pages. Otherwise it stays: -ENOSPC. */
  HEAPTIER_MOVE_SPLIT = 1
};
/* The meaning of move_pages(2): page i (any address within) goes to tiers[i]; status[i] is then the
 * tier where it is, or why it is where it was. tiers NULL: only says where they are. One address of
 * a huge page moves it whole. A page that is in the list twice is moved twice. flags: 0, or
 * HEAPTIER_MOVE_SPLIT. Wakes the engine; returns when all is done.
 * Returns how many have a tier for a status and, if one was asked for, that one; -ENOTSUP, -ENOMEM,
 * or -EINVAL (an array that is missing, flags that are none), and then no status is written.
 *   -EINVAL  not movable memory of heaptier's heap, or there is no such tier
 *   -ENOENT  never touched, or freed: there is nothing to move
 *   -EBUSY   pinned (a device, a pipe), or in use by the kernel; to a store also: shared with a
 *            forked child
 *   -EACCES  shared with a forked child
 *   -EPERM   held by HEAPTIER_PIN; to a store also: locked (mlock), or its protection was changed.
 *            Between nodes locked memory moves
 *   -ENOMEM  the target has no room (or may not be used at this moment: the cpuset, memory that is
 *            offline): nothing was tried that would take a huge page apart
 *   -ENOSPC  it has, but no free block for a huge page
 *   -EFBIG   would not shrink: a store is nothing for it
 *   -EAGAIN  was touched or moved all the while
 *   -ENODEV  it is on a node that is of no tier (tiers NULL)
 *   -ENOTSUP heaptier does not place pages in this process: it has a memory policy of its own
 *            (numactl), or the host does not say where pages are. To a store: this host cannot park
 *            pages, or is not to (the option SAMPLER)
 *   -EIO     its content is lost, or the kernel failed */
HEAPTIER_API int heaptier_move(void* const* pages, const int* tiers, int* status, size_t count,
                               unsigned flags);

/* The meaning of MPOL_MF_LAZY: the whole pages in the range are unmapped now, huge ones in one
 * piece, without a copy; the first touch of each brings it back at once, and soon after it is moved
 * to `tier`: to the toucher's node, if that is of the tier and has room. Then it is as if it had
 * never been asked; what fails is not tried again. Pages that are there already (in a tier of one
 * node), pages in a store, pinned and locked memory, and huge pages that reach beyond the range
 * stay as they are. The wish ends when the page is freed or stored; a forked child has it, too.
 * Returns how many pages are unmapped for this: none where pages cannot be parked and are not
 * hidden (the option SAMPLER); -EINVAL: there is no such tier of memory nodes. */
HEAPTIER_API int heaptier_move_lazy(void* p, size_t bytes, int tier);

/* The memory node of every page that the range touches, one int a page in address order; or -ENOENT
 * (never touched), -EINVAL (not movable memory of heaptier's heap), -EIO (lost), or
 * HEAPTIER_NODE_STORED. A parked page has its node (but on Linux 6.1 one that waits for
 * heaptier_move_lazy has none: -ENOENT). Does not wake the engine. Returns the number of
 * pages written, or -errno where the host does not tell (move_pages). */
enum heaptier_node_code { HEAPTIER_NODE_STORED = -4096 };
HEAPTIER_API int heaptier_nodes(const void* p, size_t bytes, int* nodes);

/* Heaps of one's own. */
typedef struct heaptier_heap heaptier_heap;
enum heaptier_heap_flags {
  HEAPTIER_HEAP_MOVABLE = 0,
  HEAPTIER_HEAP_UNMOVABLE = 1, /* never hinted, moved or stored: DMA and registered buffers (but see
                                  heaptier_drain) */
  HEAPTIER_HEAP_RECLAIMABLE = 2, /* may be discarded under pressure and then reads as zero */
  HEAPTIER_HEAP_USER_ONLY = 4 /* never passed to a system call: faults are resolved in the faulting
                                 thread (SIGBUS; SIGSEGV where pages cannot be parked), which is
                                 faster; a system call on it may fail with EFAULT, and a thread that
                                 blocks the signal is killed by it. Nor may stacks lie in it. Create
                                 such heaps before the engine wakes: later ones are served like any
                                 other memory */
};
/* NULL when memory or the number of heaps (64) is used up. */
HEAPTIER_API heaptier_heap* heaptier_heap_create(unsigned flags);
/* Gives the heap back, to be made again with the same flags. What was allocated from it stays valid
 * until it is freed. NULL is passed over. */
HEAPTIER_API void heaptier_heap_destroy(heaptier_heap* heap);
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
