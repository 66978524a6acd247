/* Reading serving traces: strict, and every complaint has the file, the line and what was expected.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "trace.h"

#define HEADER "arrival_ms,input_tokens,output_tokens"
#define EXPECTED_LINE HEADER ": three non-negative integers"

enum { LINE_BYTES = 128 }; /* three numbers need far less */

typedef struct reader {
    FILE *in;
    const char *name;
    int64_t max_tokens;
    size_t line_number;
    char line[LINE_BYTES]; /* without its end */
    char *error;
    size_t error_bytes;
} reader;

typedef enum line_state { LINE_READ, LINE_NONE, LINE_BAD } line_state;

static bool complain(reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool complain(reader *r, const char *format, ...)
{
    const int used = snprintf(r->error, r->error_bytes, "%s:%zu: ", r->name, r->line_number);
    if (used >= 0 && (size_t)used < r->error_bytes) {
        va_list args;
        va_start(args, format);
        vsnprintf(r->error + used, r->error_bytes - (size_t)used, format, args);
        va_end(args);
    }
    return false;
}

static bool complain_line(reader *r, const char *expected)
{
    for (char *c = r->line; *c != '\0'; c++)
        *c = *c >= ' ' && *c <= '~' ? *c : '?'; /* a binary file must not reach the terminal */
    return complain(r, "expected %s, got \"%s\"", expected, r->line);
}

/* Reads the next line. The last one may lack its newline; lines may end in CR LF. */
static line_state next_line(reader *r, const char *expected)
{
    r->line_number++;
    if (fgets(r->line, sizeof r->line, r->in) == NULL) {
        if (!ferror(r->in))
            return LINE_NONE;
        complain(r, "cannot read: %s", strerror(errno));
        return LINE_BAD;
    }
    const size_t length = strcspn(r->line, "\n");
    if (r->line[length] == '\0' && !feof(r->in)) {
        complain(r, "expected %s, got a line of more than %d bytes, or with a NUL", expected, LINE_BYTES - 2);
        return LINE_BAD;
    }
    r->line[length] = '\0';
    if (length > 0 && r->line[length - 1] == '\r')
        r->line[length - 1] = '\0';
    return LINE_READ;
}

/* Parses digits and the character end behind them; values above TRACE_MAX_ARRIVAL_MS become one more than that. */
static bool parse_number(const char **text, char end, int64_t *value)
{
    const char *c = *text;
    int64_t n = 0;
    for (; *c >= '0' && *c <= '9'; c++) {
        if (n <= TRACE_MAX_ARRIVAL_MS)
            n = n * 10 + (*c - '0');
    }
    if (c == *text || *c != end)
        return false;
    *text = c + 1;
    *value = n <= TRACE_MAX_ARRIVAL_MS ? n : TRACE_MAX_ARRIVAL_MS + 1;
    return true;
}

/* Parses the line into *request, which holds the request before. */
static bool parse_request(reader *r, trace_request *request)
{
    const int64_t last_arrival = request->arrival_ms;
    const char *text = r->line;
    int64_t arrival, input, output;
    if (!parse_number(&text, ',', &arrival) || !parse_number(&text, ',', &input) || !parse_number(&text, '\0', &output))
        return complain_line(r, EXPECTED_LINE);
    if (arrival > TRACE_MAX_ARRIVAL_MS)
        return complain_line(r, "an arrival_ms of at most 1000000000000");
    if (arrival < last_arrival)
        return complain(r, "expected an arrival_ms of at least %" PRId64 ", that of the line before, got %" PRId64,
                        last_arrival, arrival);
    if (input == 0 || output == 0)
        return complain_line(r, "at least one input token and one output token");
    if (input + output > r->max_tokens)
        return complain(r, "expected at most %" PRId64 " input and output tokens together, got \"%s\"", r->max_tokens,
                        r->line);
    *request = (trace_request){arrival, (int32_t)input, (int32_t)output};
    return true;
}

static bool read_header(reader *r)
{
    const char *expected = "the header " HEADER;
    switch (next_line(r, expected)) {
    case LINE_READ:
        return strcmp(r->line, HEADER) == 0 || complain_line(r, expected);
    case LINE_NONE:
        return complain(r, "expected %s, got an empty file", expected);
    case LINE_BAD:
        break;
    }
    return false;
}

static bool append(reader *r, trace *t, size_t *capacity, trace_request request)
{
    if (t->count == *capacity) {
        const size_t larger = *capacity ? 2 * *capacity : 1024;
        trace_request *requests = realloc(t->requests, larger * sizeof *requests);
        if (requests == NULL)
            return complain(r, "out of memory");
        t->requests = requests;
        *capacity = larger;
    }
    t->requests[t->count++] = request;
    return true;
}

static bool read_requests(reader *r, trace *t)
{
    size_t capacity = 0;
    trace_request request = {0};
    line_state state;
    while ((state = next_line(r, EXPECTED_LINE)) == LINE_READ) {
        if (!parse_request(r, &request) || !append(r, t, &capacity, request))
            return false;
    }
    if (state == LINE_BAD)
        return false;
    return t->count > 0 || complain(r, "expected " EXPECTED_LINE ", got the end of the file");
}

bool trace_read(FILE *in, const char *name, int64_t max_tokens, trace *t, char *error, size_t error_bytes)
{
    /* Tokens are counted in int32. */
    const int64_t limit = max_tokens < INT32_MAX ? max_tokens : INT32_MAX;
    reader r = {.in = in, .name = name, .max_tokens = limit, .error = error, .error_bytes = error_bytes};
    *t = (trace){0};
    if (read_header(&r) && read_requests(&r, t))
        return true;
    trace_free(t);
    return false;
}

bool trace_load(const char *path, int64_t max_tokens, trace *t, char *error, size_t error_bytes)
{
    *t = (trace){0};
    FILE *in = fopen(path, "r");
    if (in == NULL) {
        snprintf(error, error_bytes, "%s: cannot open: %s", path, strerror(errno));
        return false;
    }
    const bool good = trace_read(in, path, max_tokens, t, error, error_bytes);
    fclose(in);
    return good;
}

void trace_free(trace *t)
{
    free(t->requests);
    *t = (trace){0};
}
