/* What the test drivers export beside a vendor's entry points. */
#ifndef DRAFTMETA_CONTROL_H
#define DRAFTMETA_CONTROL_H

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/* From now on the nth call (from 1) of the entry point returns error; calls before and after it work. One at a time;
 * nth 0: none. */
void simt_fail(const char *entry_point, int nth, int error);

/* Calls of the entry point so far. */
int simt_calls(const char *entry_point);

/* Kernels that were run, replays included. */
int simt_launches(void);

/* From now on watcher is told the name of each of them; NULL: no more. */
void simt_watch(void (*watcher)(const char *kernel));

/* Allocations, modules, contexts, streams, graphs and events that were not given back. */
int simt_live_objects(void);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
