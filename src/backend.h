/* What a backend is. With formula.h, all of the core that a backend sees. */
#ifndef DRAFTMETA_BACKEND_H
#define DRAFTMETA_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "draftmeta.h"
#include "job.h"

/* Stores the message for dm_last_error and returns status. */
__attribute__((format(printf, 2, 3))) dm_status dm_fail(dm_status status, const char *format, ...);

/* What dm_open was asked for. */
typedef struct dm_open_args {
    const char *library; /* driver library to open instead of the system's, or NULL */
    int32_t device;
    int32_t threads;
    bool graphs; /* launches may be made as graphs */
} dm_open_args;

/* The core checks every argument before it calls; all slots are there in every backend. state is what open made. */
typedef struct dm_backend {
    const char *name;
    const char *library_variable; /* names the environment variable behind dm_open_args.library; NULL: none */

    /* Finds out what is here, without creating a device context. Writes info but for size, name and device. */
    void (*probe)(const char *library, dm_backend_info *info);
    /* Called where probe said ready and the device exists. */
    dm_status (*open)(const dm_open_args *args, void **state);
    void (*close)(void *state);

    dm_status (*device_name)(void *state, char *name, size_t size);
    dm_status (*alloc)(void *state, size_t bytes, void **ptr);
    dm_status (*free)(void *state, void *ptr);
    /* Both are ordered after the stream's work and have finished on return. */
    dm_status (*upload)(void *state, void *dst, const void *src, size_t bytes, dm_stream stream);
    dm_status (*download)(void *state, void *dst, const void *src, size_t bytes, dm_stream stream);
    dm_status (*sync)(void *state, dm_stream stream);
    dm_status (*is_capturing)(void *state, dm_stream stream, bool *capturing);
    /* DM_ERR_POINTER, with a message that begins with field, unless bytes from ptr are this device's to use. */
    dm_status (*check_range)(void *state, const char *field, const void *ptr, size_t bytes);
    /* Enqueues 1 .. DM_FILL_MANY_MAX jobs as one launch. */
    dm_status (*fill)(void *state, const dm_job *jobs, int count, dm_stream stream);
} dm_backend;

extern const dm_backend dm_backend_cuda, dm_backend_hip, dm_backend_cpu;

#endif
