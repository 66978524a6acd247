/* The backends, the environment, and the choice between them. */
#ifndef DRAFTMETA_REGISTRY_H
#define DRAFTMETA_REGISTRY_H

#include "backend.h"

/* The backend named, or the first that works; *args gets the driver library to use. check: DRAFTMETA_CHECK. */
dm_status dm_registry_choose(const char *name, const dm_backend **backend, dm_open_args *args, bool *check);

/* One warning line on stderr, unless DRAFTMETA_LOG=0. */
__attribute__((format(printf, 1, 2))) void dm_warn(const char *format, ...);

#endif
