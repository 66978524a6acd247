/* The backends, the environment, and the choice between them. */
#ifndef DRAFTMETA_REGISTRY_H
#define DRAFTMETA_REGISTRY_H

#include "backend.h"

/* What dm_open works with. The caller sets args.device and args.threads. */
typedef struct dm_choice {
    const dm_backend *backend;
    dm_open_args args;
    dm_backend_info info; /* what the backend's probe found */
    bool check;           /* DRAFTMETA_CHECK */
} dm_choice;

/* The backend named, or else the first that works. */
dm_status dm_registry_choose(const char *name, dm_choice *choice);

/* One warning line on stderr, unless DRAFTMETA_LOG=0. */
__attribute__((format(printf, 1, 2))) void dm_warn(const char *format, ...);

#endif
