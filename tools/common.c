/* Helpers of the draftmeta command: messages, options, contexts, statistics, JSON.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools.h"

/* ---- Messages ------------------------------------------------------------------------------------------------- */

void tool_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("draftmeta: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

int tool_failed(const char *what, dm_status status)
{
    tool_error("%s: %s: %s", what, dm_status_string(status), dm_last_error());
    /* An unknown backend name or a bad environment variable is a mistake of the command line, not of the machine. */
    return status == DM_ERR_ARGUMENT || status == DM_ERR_CONFIG ? TOOL_USAGE : TOOL_NO_BACKEND;
}

/* ---- Options -------------------------------------------------------------------------------------------------- */

static void print_option(const tool_option *o)
{
    static const char *const value_names[] = {
        [TOOL_FLAG] = "", [TOOL_STRING] = " NAME", [TOOL_INT] = " N", [TOOL_REAL] = " X"};
    char left[64];
    snprintf(left, sizeof left, "--%s%s", o->name, value_names[o->kind]);
    printf("  %-20s %s\n", left, o->help);
}

static void print_help(const tool_command *c)
{
    printf("usage: draftmeta %s [options]%s%s\n\n%s\n\noptions:\n", c->name, c->arguments[0] ? " " : "", c->arguments,
           c->summary);
    for (size_t i = 0; i < c->num_options; i++)
        print_option(&c->options[i]);
    printf("  %-20s %s\n", "--help", "print this and exit");
}

static bool bad_usage(const tool_command *c, const char *what, const char *argument)
{
    tool_error("%s: %s \"%s\"; see draftmeta %s --help", c->name, what, argument, c->name);
    return false;
}

static bool parse_int(const tool_option *o, const char *text)
{
    char *end;
    errno = 0;
    const long long n = strtoll(text, &end, 10);
    const bool is_number = (text[0] == '-' || (text[0] >= '0' && text[0] <= '9')) && end != text && *end == '\0';
    if (!is_number || errno != 0 || (double)n < o->min || (double)n > o->max) {
        tool_error("--%s: expected an integer from %.0f to %.0f, got \"%s\"", o->name, o->min, o->max, text);
        return false;
    }
    *(int64_t *)o->value = n;
    return true;
}

static bool parse_real(const tool_option *o, const char *text)
{
    char *end;
    const double x = strtod(text, &end);
    const bool is_decimal = text[0] != '\0' && text[strspn(text, "0123456789.-+eE")] == '\0' && *end == '\0';
    if (!is_decimal || end == text || !(x >= o->min && x <= o->max)) {
        tool_error("--%s: expected a number from %g to %g, got \"%s\"", o->name, o->min, o->max, text);
        return false;
    }
    *(double *)o->value = x;
    return true;
}

static bool parse_value(const tool_option *o, const char *text)
{
    switch (o->kind) {
    case TOOL_INT:
        return parse_int(o, text);
    case TOOL_REAL:
        return parse_real(o, text);
    case TOOL_STRING:
        if (text[0] == '\0') {
            tool_error("--%s: expected a name, got \"\"", o->name);
            return false;
        }
        *(const char **)o->value = text;
        return true;
    case TOOL_FLAG:
        break;
    }
    tool_error("--%s takes no value, got \"%s\"", o->name, text);
    return false;
}

static const tool_option *find_option(const tool_command *c, const char *name, size_t length)
{
    for (size_t i = 0; i < c->num_options; i++) {
        if (strlen(c->options[i].name) == length && strncmp(c->options[i].name, name, length) == 0)
            return &c->options[i];
    }
    return NULL;
}

/* Parses the option at argv[*i], moving *i to its value if that is an argument of its own. */
static bool parse_option(const tool_command *c, int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2;
    const size_t length = strcspn(name, "=");
    const tool_option *o = find_option(c, name, length);
    if (o == NULL)
        return bad_usage(c, "unknown option", argv[*i]);
    if (name[length] == '=')
        return parse_value(o, name + length + 1);
    if (o->kind == TOOL_FLAG) {
        *(bool *)o->value = true;
        return true;
    }
    if (*i + 1 >= argc)
        return bad_usage(c, "no value given for", argv[*i]);
    *i += 1;
    return parse_value(o, argv[*i]);
}

static bool take_positional(const tool_command *c, const char *argument, size_t *count)
{
    if (*count == c->num_positional)
        return bad_usage(c, "unexpected argument", argument);
    c->positional[(*count)++] = argument;
    return true;
}

bool tool_parse(const tool_command *c, int argc, char **argv, int *status)
{
    size_t positional = 0;
    bool options_ended = false;
    *status = TOOL_USAGE;
    for (int i = 1; i < argc; i++) {
        const bool is_option = !options_ended && argv[i][0] == '-' && argv[i][1] != '\0';
        if (is_option && strcmp(argv[i], "--") == 0) {
            options_ended = true;
        } else if (is_option && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            print_help(c);
            *status = TOOL_GOOD;
            return false;
        } else if (is_option && argv[i][1] != '-') {
            return bad_usage(c, "unknown option", argv[i]);
        } else if (!(is_option ? parse_option(c, argc, argv, &i) : take_positional(c, argv[i], &positional))) {
            return false;
        }
    }
    if (positional < c->num_positional)
        return bad_usage(c, "missing argument", c->arguments);
    *status = TOOL_GOOD;
    return true;
}

/* ---- Contexts ------------------------------------------------------------------------------------------------- */

int tool_open(const char *backend, int64_t device, dm_context **ctx)
{
    const dm_options options = {.size = sizeof options, .backend = backend, .device = (int32_t)device};
    const dm_status status = dm_open(&options, ctx);
    return status == DM_OK ? TOOL_GOOD : tool_failed("opening a backend", status);
}

const char *tool_state_name(dm_backend_state state)
{
    switch (state) {
    case DM_BACKEND_READY:
        return "ready";
    case DM_BACKEND_NO_DRIVER:
        return "no driver";
    case DM_BACKEND_NO_DEVICE:
        return "no device";
    case DM_BACKEND_NO_DEVICE_CODE:
        return "no device code";
    case DM_BACKEND_DRIVER_TOO_OLD:
        return "driver too old";
    case DM_BACKEND_DRIVER_FAILED:
        return "driver failed";
    }
    return "unknown state";
}

/* ---- Memory, time, statistics --------------------------------------------------------------------------------- */

static void *check_memory(void *p)
{
    if (p == NULL) {
        tool_error("out of host memory");
        exit(TOOL_NO_BACKEND);
    }
    return p;
}

void *tool_calloc(size_t count, size_t bytes)
{
    return check_memory(calloc(count ? count : 1, bytes ? bytes : 1));
}

double tool_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

void tool_samples_add(tool_samples *s, double value)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 1024;
        s->values = check_memory(realloc(s->values, s->capacity * sizeof *s->values));
    }
    s->values[s->count++] = value;
    s->sorted = false;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double tool_samples_percentile(tool_samples *s, double percent)
{
    if (s->count == 0)
        return 0;
    if (!s->sorted)
        qsort(s->values, s->count, sizeof *s->values, compare_doubles);
    s->sorted = true;
    const double rank = percent / 100 * (double)s->count;
    size_t index = (size_t)rank;
    if (index > 0 && rank == (double)index)
        index--;
    return s->values[index < s->count ? index : s->count - 1];
}

void tool_samples_free(tool_samples *s)
{
    free(s->values);
    *s = (tool_samples){0};
}

/* ---- JSON ----------------------------------------------------------------------------------------------------- */

static void json_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(out, "\\%c", *c);
        else if (*c < 0x20)
            fprintf(out, "\\u%04x", *c);
        else
            fputc(*c, out);
    }
    fputc('"', out);
}

/* The comma, the new line and the key before a member. */
static void json_member(tool_json *j, const char *key)
{
    if (j->has_members)
        fputc(',', j->out);
    if (j->depth > 0)
        fprintf(j->out, "\n%*s", 2 * j->depth, "");
    j->has_members = true;
    if (key != NULL) {
        json_text(j->out, key);
        fputs(": ", j->out);
    }
}

void tool_json_open(tool_json *j, const char *key, char bracket)
{
    json_member(j, key);
    fputc(bracket, j->out);
    j->depth++;
    j->has_members = false;
}

void tool_json_close(tool_json *j, char bracket)
{
    j->depth--;
    if (j->has_members)
        fprintf(j->out, "\n%*s", 2 * j->depth, "");
    fputc(bracket, j->out);
    if (j->depth == 0)
        fputc('\n', j->out);
    j->has_members = true;
}

void tool_json_string(tool_json *j, const char *key, const char *value)
{
    json_member(j, key);
    json_text(j->out, value);
}

void tool_json_int(tool_json *j, const char *key, int64_t value)
{
    json_member(j, key);
    fprintf(j->out, "%" PRId64, value);
}

void tool_json_real(tool_json *j, const char *key, double value)
{
    json_member(j, key);
    if (isfinite(value))
        fprintf(j->out, "%.3f", value);
    else
        fputs("null", j->out);
}

void tool_json_bool(tool_json *j, const char *key, bool value)
{
    json_member(j, key);
    fputs(value ? "true" : "false", j->out);
}
