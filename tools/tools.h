/* What the subcommands of the draftmeta command share.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_TOOLS_H
#define DRAFTMETA_TOOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "draftmeta.h"

/* ---- Subcommands: argv[0] is the subcommand's name; they return an exit status -------------------------------- */

enum tool_exit {
    TOOL_GOOD = 0,
    TOOL_MISMATCH = 1,  /* the library and the oracle, or two backends, disagree; a bar is missed that must not be */
    TOOL_USAGE = 2,     /* a wrong option, a bad input file, an output that cannot be written */
    TOOL_NO_BACKEND = 3 /* the backend is not available, or failed */
};

int cmd_info(int argc, char **argv);
int cmd_replay(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_bench(int argc, char **argv);

/* ---- Messages ------------------------------------------------------------------------------------------------- */

/* "draftmeta: ..." and a newline on stderr. */
void tool_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Says on stderr that what failed, with the status and dm_last_error; returns the exit status to give. */
int tool_failed(const char *what, dm_status status);

/* ---- Options -------------------------------------------------------------------------------------------------- */

typedef enum tool_option_kind {
    TOOL_FLAG,   /* bool: given or not */
    TOOL_STRING, /* const char *: not empty */
    TOOL_INT,    /* int64_t in [min, max] */
    TOOL_REAL    /* double in [min, max] */
} tool_option_kind;

/* One option, "--name" or "--name VALUE" or "--name=VALUE". *value holds the default and receives what is given. */
typedef struct tool_option {
    const char *name; /* without the dashes */
    tool_option_kind kind;
    void *value;
    double min, max;
    const char *help; /* what it means, with the default */
} tool_option;

typedef struct tool_command {
    const char *name;
    const char *arguments; /* names of the arguments that are not options, "TRACE.csv"; "" for none */
    const char *summary;   /* one or more lines for --help */
    const tool_option *options;
    size_t num_options;
    const char **positional; /* receives exactly num_positional arguments */
    size_t num_positional;
} tool_command;

/* Parses argv[1..]. True: go on. False: --help was printed (*status TOOL_GOOD), or an error (TOOL_USAGE). Options may
 * stand before and after the arguments; "--" ends them. */
bool tool_parse(const tool_command *command, int argc, char **argv, int *status);

/* ---- Contexts ------------------------------------------------------------------------------------------------- */

/* Opens backend (NULL: dm_open's own choice), device. On failure says why on stderr and returns the exit status. */
int tool_open(const char *backend, int64_t device, dm_context **ctx);

/* "no driver" and the like, for people. */
const char *tool_state_name(dm_backend_state state);

/* ---- Memory, time, statistics --------------------------------------------------------------------------------- */

/* Zeroed memory; leaves the program with a message if there is none. */
void *tool_calloc(size_t count, size_t bytes);

/* A monotonic clock, in microseconds. */
double tool_now_us(void);

/* Numbers that were measured. Zero-initialise it. */
typedef struct tool_samples {
    double *values;
    size_t count, capacity;
    bool sorted;
} tool_samples;

void tool_samples_add(tool_samples *s, double value);
/* The smallest sample that percent of them do not exceed (nearest rank); 0 without samples. Sorts them. */
double tool_samples_percentile(tool_samples *s, double percent);
void tool_samples_free(tool_samples *s);

/* ---- JSON: writes nested objects and arrays, one member to a line ----------------------------------------------- */

typedef struct tool_json {
    FILE *out;
    int depth;
    bool has_members; /* of what is open now */
} tool_json;

/* key: NULL in arrays and for the outermost object. A bracket is '{' or '['; give tool_json_close its partner. */
void tool_json_open(tool_json *j, const char *key, char bracket);
void tool_json_close(tool_json *j, char bracket);
void tool_json_string(tool_json *j, const char *key, const char *value);
void tool_json_int(tool_json *j, const char *key, int64_t value);
/* Three decimals; null if it is not finite. */
void tool_json_real(tool_json *j, const char *key, double value);
void tool_json_bool(tool_json *j, const char *key, bool value);

#endif
