/* Serving traces: CSV files with the header arrival_ms,input_tokens,output_tokens and a line for each request.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_TRACE_H
#define DRAFTMETA_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct trace_request {
    int64_t arrival_ms;
    int32_t input_tokens, output_tokens; /* at least 1 */
} trace_request;

/* At least one request, in order of arrival. */
typedef struct trace {
    trace_request *requests;
    size_t count;
} trace;

#define TRACE_MAX_ARRIVAL_MS INT64_C(1000000000000) /* 31 years: arrivals in microseconds stay far from overflow */

/* Reads a trace whose requests have at most max_tokens input and output tokens together. On failure false, *t is empty
 * and error says "name:line: what was expected, what was there". */
bool trace_read(FILE *in, const char *name, int64_t max_tokens, trace *t, char *error, size_t error_bytes);

/* trace_read of the file at path. */
bool trace_load(const char *path, int64_t max_tokens, trace *t, char *error, size_t error_bytes);

void trace_free(trace *t);

#endif
