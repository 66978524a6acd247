/* Names of statuses, and each thread's last error. */
#include <stdarg.h>
#include <stdio.h>

#include "backend.h"

static _Thread_local char last_error[512];

const char *dm_last_error(void)
{
    return last_error;
}

dm_status dm_fail(dm_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    return status;
}

const char *dm_status_string(dm_status status)
{
    switch (status) {
    case DM_OK:
        return "DM_OK";
    case DM_ERR_ARGUMENT:
        return "DM_ERR_ARGUMENT";
    case DM_ERR_STRUCT_SIZE:
        return "DM_ERR_STRUCT_SIZE";
    case DM_ERR_TYPE:
        return "DM_ERR_TYPE";
    case DM_ERR_SHAPE:
        return "DM_ERR_SHAPE";
    case DM_ERR_RANGE:
        return "DM_ERR_RANGE";
    case DM_ERR_MISSING:
        return "DM_ERR_MISSING";
    case DM_ERR_CONFLICT:
        return "DM_ERR_CONFLICT";
    case DM_ERR_ALIGNMENT:
        return "DM_ERR_ALIGNMENT";
    case DM_ERR_OVERLAP:
        return "DM_ERR_OVERLAP";
    case DM_ERR_POINTER:
        return "DM_ERR_POINTER";
    case DM_ERR_CAPACITY:
        return "DM_ERR_CAPACITY";
    case DM_ERR_CAPTURE:
        return "DM_ERR_CAPTURE";
    case DM_ERR_NO_BACKEND:
        return "DM_ERR_NO_BACKEND";
    case DM_ERR_DRIVER:
        return "DM_ERR_DRIVER";
    case DM_ERR_OUT_OF_MEMORY:
        return "DM_ERR_OUT_OF_MEMORY";
    case DM_ERR_CONFIG:
        return "DM_ERR_CONFIG";
    }
    return "unknown status";
}
