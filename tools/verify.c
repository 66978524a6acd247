/* draftmeta verify: seeded cases on a backend, held against the oracle, against a recorded file, against each other. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "tools.h"

enum { MOST_CASES = 100000000, MOST_TOLD = 10, NOT_GIVEN = -1 };

typedef struct verify_options {
    const char *backend, *record, *golden, *commit;
    int64_t cases, seed, first;
} verify_options;

/* What is to be run, and what became of it. */
typedef struct verify_run {
    uint64_t seed, first, cases;
    uint64_t *golden;  /* the recorded digests; NULL: none */
    uint64_t *digests; /* one per case */
    uint64_t mismatches;
} verify_run;

/* ---- Golden files ---------------------------------------------------------------------------------------------
 * Lines "# key value" say where it was recorded; then "seed S", "cases N" and N lines "INDEX DIGEST". */

/* A reader of lines that knows where it is, for messages. */
typedef struct golden_reader {
    FILE *in;
    const char *path;
    uint64_t line;
    char text[256];
} golden_reader;

/* The next line that is no comment, without its newline; at the end of the file "". */
static const char *next_line(golden_reader *g)
{
    do {
        g->line++;
        if (fgets(g->text, sizeof g->text, g->in) == NULL)
            g->text[0] = '\0';
    } while (g->text[0] == '#');
    g->text[strcspn(g->text, "\n")] = '\0';
    return g->text;
}

static bool bad_line(const golden_reader *g, const char *expected)
{
    if (g->text[0] == '\0' && feof(g->in))
        tool_error("%s:%" PRIu64 ": the file ends where %s is expected", g->path, g->line, expected);
    else
        tool_error("%s:%" PRIu64 ": expected %s, got \"%s\"", g->path, g->line, expected, g->text);
    return false;
}

/* Reads digits only, in base, up to most. */
static bool read_number(const char *text, const char **end, int base, uint64_t most, uint64_t *number)
{
    const char *digits = base == 16 ? "0123456789abcdef" : "0123456789";
    const size_t length = strspn(text, digits);
    errno = 0;
    *number = strtoull(text, NULL, base);
    *end = text + length;
    return length > 0 && errno == 0 && *number <= most;
}

/* "key N" and nothing else. */
static bool read_field(golden_reader *g, const char *key, uint64_t most, uint64_t *number)
{
    char expected[64];
    const char *text = next_line(g), *end;
    const size_t length = strlen(key);
    snprintf(expected, sizeof expected, "\"%s N\", N at most %" PRIu64, key, most);
    if (strncmp(text, key, length) != 0 || text[length] != ' ' ||
        !read_number(text + length + 1, &end, 10, most, number) || *end != '\0')
        return bad_line(g, expected);
    return true;
}

/* "INDEX DIGEST", the digest in 16 hexadecimal digits. */
static bool read_digest(golden_reader *g, uint64_t index, uint64_t *digest)
{
    char expected[64];
    uint64_t found;
    const char *text = next_line(g), *end, *last;
    snprintf(expected, sizeof expected, "\"%" PRIu64 " DIGEST\" in 16 hexadecimal digits", index);
    if (!read_number(text, &end, 10, UINT64_MAX, &found) || found != index || *end != ' ' ||
        !read_number(end + 1, &last, 16, UINT64_MAX, digest) || *last != '\0' || last - end != 17)
        return bad_line(g, expected);
    return true;
}

static bool read_golden_lines(golden_reader *g, verify_run *run)
{
    if (!read_field(g, "seed", INT64_MAX, &run->seed) || !read_field(g, "cases", MOST_CASES, &run->cases))
        return false;
    run->golden = tool_calloc((size_t)run->cases, sizeof *run->golden);
    for (uint64_t i = 0; i < run->cases; i++)
        if (!read_digest(g, i, &run->golden[i]))
            return false;
    next_line(g);
    return (g->text[0] == '\0' && feof(g->in)) || bad_line(g, "the end of the file");
}

/* Sets the run's seed, cases and golden digests. */
static bool read_golden(const char *path, verify_run *run)
{
    golden_reader g = {.in = fopen(path, "r"), .path = path};
    if (g.in == NULL) {
        tool_error("--golden: %s: %s", path, strerror(errno));
        return false;
    }
    const bool good = read_golden_lines(&g, run);
    fclose(g.in);
    return good;
}

static void write_golden_lines(FILE *out, const verify_run *run, const dm_backend_info *info, const char *commit)
{
    fprintf(out, "# backend %s\n# device %s\n# driver %s\n# commit %s\n", info->name, info->device_name,
            info->driver_version, commit);
    fprintf(out, "seed %" PRIu64 "\ncases %" PRIu64 "\n", run->seed, run->cases);
    for (uint64_t i = 0; i < run->cases; i++)
        fprintf(out, "%" PRIu64 " %016" PRIx64 "\n", i, run->digests[i]);
}

/* Writes beside the file and renames, so that the file is old or new and never half. */
static int write_golden(const verify_options *o, const verify_run *run, const dm_backend_info *info)
{
    char temporary[4096];
    if (snprintf(temporary, sizeof temporary, "%s.tmp", o->record) >= (int)sizeof temporary) {
        tool_error("--record: the path is too long");
        return TOOL_USAGE;
    }
    FILE *out = fopen(temporary, "w");
    bool good = out != NULL;
    if (good) {
        write_golden_lines(out, run, info, o->commit);
        good = !ferror(out);
        good = fclose(out) == 0 && good && rename(temporary, o->record) == 0;
    }
    if (good)
        return TOOL_GOOD;
    tool_error("--record: %s: %s", temporary, strerror(errno));
    remove(temporary);
    return TOOL_USAGE;
}

/* ---- Running cases -------------------------------------------------------------------------------------------- */

static void tell_mismatch(verify_run *run, const char *backend, uint64_t index, const char *title, const char *text)
{
    if (run->mismatches++ >= MOST_TOLD)
        return;
    printf("case %" PRIu64 " (%s): %s\n", index, title, text);
    printf("  draftmeta verify --backend %s --seed %" PRIu64 " --first %" PRIu64 " --cases 1\n", backend, run->seed,
           index);
}

/* Runs case number first + i. Only a backend that fails ends the run. */
static dm_status verify_case(verify_run *run, checker *c, const char *backend, uint64_t i)
{
    mismatch m;
    const uint64_t index = run->first + i;
    image *img = case_make(run->seed, index, NULL);
    const dm_status status = checker_run(c, img, NULL, &m, &run->digests[i]);
    if (status == DM_OK && !m.found && run->golden != NULL && run->golden[i] != run->digests[i]) {
        m.found = true;
        snprintf(m.text, sizeof m.text, "its digest is %016" PRIx64 ", the recorded one %016" PRIx64, run->digests[i],
                 run->golden[i]);
    }
    if (m.found || status != DM_OK)
        tell_mismatch(run, backend, index, case_title(img), m.text);
    case_free(img);
    return status == DM_ERR_DRIVER || status == DM_ERR_OUT_OF_MEMORY ? status : DM_OK;
}

static int verify_context(verify_run *run, dm_context *ctx, dm_backend_info *info)
{
    dm_status status = dm_context_info(ctx, info);
    if (status != DM_OK)
        return tool_failed("dm_context_info", status);
    checker *c = checker_new(ctx);
    for (uint64_t i = 0; i < run->cases && status == DM_OK; i++)
        status = verify_case(run, c, info->name, i);
    checker_free(c);
    if (status != DM_OK)
        return tool_failed(info->name, status);
    printf("verify: backend %s (device %s), %" PRIu64 " cases, seed %" PRIu64 ", mismatches %" PRIu64 "\n", info->name,
           info->device_name, run->cases, run->seed, run->mismatches);
    return run->mismatches == 0 ? TOOL_GOOD : TOOL_MISMATCH;
}

/* Opens the backend (NULL: dm_open's choice) and runs all cases on it. */
static int verify_backend(verify_run *run, const char *backend, dm_backend_info *info)
{
    dm_context *ctx;
    *info = (dm_backend_info){.size = sizeof *info};
    int status = tool_open(backend, 0, &ctx);
    if (status != TOOL_GOOD)
        return status;
    status = verify_context(run, ctx, info);
    dm_close(ctx);
    return status;
}

/* ---- All backends --------------------------------------------------------------------------------------------- */

/* One of the contexts that are open at the same time. */
typedef struct rival {
    dm_context *ctx;
    dm_backend_info info;
    verify_run run;
} rival;

static bool same_digests(const rival *a, const rival *b)
{
    for (uint64_t i = 0; i < a->run.cases; i++)
        if (a->run.digests[i] != b->run.digests[i]) {
            printf("case %" PRIu64 ": the digests of %s and %s differ: %016" PRIx64 ", %016" PRIx64 "\n",
                   a->run.first + i, a->info.name, b->info.name, a->run.digests[i], b->run.digests[i]);
            return false;
        }
    return true;
}

/* Opens every backend that is ready here; returns an exit status. */
static int open_rivals(const verify_run *run, rival *rivals, int *count)
{
    for (int32_t i = 0; i < dm_backend_count(); i++) {
        rival *r = &rivals[*count];
        r->info.size = sizeof r->info;
        const dm_status queried = dm_backend_query(i, &r->info);
        if (queried != DM_OK)
            return tool_failed("dm_backend_query", queried);
        if (r->info.state != DM_BACKEND_READY) {
            printf("verify: backend %s is left out: %s\n", r->info.name, r->info.reason);
            continue;
        }
        const int status = tool_open(r->info.name, 0, &r->ctx);
        if (status != TOOL_GOOD)
            return status;
        r->run = *run;
        r->run.digests = tool_calloc((size_t)run->cases, sizeof *r->run.digests);
        ++*count;
    }
    if (*count > 0)
        return TOOL_GOOD;
    tool_error("verify: no backend is ready here");
    return TOOL_NO_BACKEND;
}

/* One number for all cases' digests. */
static uint64_t digest_of_all(const verify_run *run)
{
    uint64_t digest = 0;
    for (uint64_t i = 0; i < run->cases; i++)
        digest = (digest ^ run->digests[i]) * 0x9e3779b97f4a7c15u;
    return digest;
}

/* Every backend that is ready here, with the contexts of all of them open. The worst exit status wins. */
static int verify_all(const verify_run *run)
{
    rival *rivals = tool_calloc((size_t)dm_backend_count(), sizeof *rivals);
    int count = 0, worst = open_rivals(run, rivals, &count);
    for (int i = 0; i < count && worst <= TOOL_MISMATCH; i++) {
        const int status = verify_context(&rivals[i].run, rivals[i].ctx, &rivals[i].info);
        worst = status > worst ? status : worst;
    }
    for (int i = 0; i < count && worst <= TOOL_MISMATCH; i++) {
        printf("verify: digest %016" PRIx64 " on %s (contexts open: %d)\n", digest_of_all(&rivals[i].run),
               rivals[i].info.name, count);
        if (!same_digests(&rivals[0], &rivals[i]))
            worst = TOOL_MISMATCH;
    }
    for (int i = 0; i < count; i++) {
        dm_close(rivals[i].ctx);
        free(rivals[i].run.digests);
    }
    free(rivals);
    return worst;
}

static int verify_one(const verify_options *o, verify_run *run)
{
    dm_backend_info info;
    run->digests = tool_calloc((size_t)run->cases, sizeof *run->digests);
    int status = verify_backend(run, o->backend, &info);
    if (status == TOOL_GOOD && o->record != NULL)
        status = write_golden(o, run, &info);
    free(run->digests);
    return status;
}

/* ---- The command ---------------------------------------------------------------------------------------------- */

static bool options_agree(const verify_options *o)
{
    const bool numbers = o->cases != NOT_GIVEN || o->seed != NOT_GIVEN || o->first != NOT_GIVEN;
    if (o->golden != NULL && numbers)
        tool_error("--golden: the file has the seed and the cases; leave out --seed, --cases and --first");
    else if (o->golden != NULL && o->record != NULL)
        tool_error("--record and --golden exclude each other");
    else if (o->record != NULL && o->first != NOT_GIVEN)
        tool_error("--record begins with case 0; leave out --first");
    else if (o->record != NULL && o->backend != NULL && strcmp(o->backend, "all") == 0)
        tool_error("--record is for one backend; name it with --backend");
    else
        return true;
    return false;
}

int cmd_verify(int argc, char **argv)
{
    verify_options o = {.commit = "unknown", .cases = NOT_GIVEN, .seed = NOT_GIVEN, .first = NOT_GIVEN};
    const tool_option options[] = {
        {.name = "backend",
         .kind = TOOL_STRING,
         .value = &o.backend,
         .help = "cuda, hip, cpu or all; default: dm_open's"},
        {.name = "cases", .kind = TOOL_INT, .value = &o.cases, .min = 1, .max = MOST_CASES, .help = "default 2000"},
        {.name = "seed", .kind = TOOL_INT, .value = &o.seed, .max = 1e15, .help = "default 1"},
        {.name = "first", .kind = TOOL_INT, .value = &o.first, .max = 1e15, .help = "the first case; default 0"},
        {.name = "record", .kind = TOOL_STRING, .value = &o.record, .help = "a file to write the digests to"},
        {.name = "golden", .kind = TOOL_STRING, .value = &o.golden, .help = "a file of digests to compare with"},
        {.name = "commit",
         .kind = TOOL_STRING,
         .value = &o.commit,
         .help = "what --record says of the source; default unknown"}};
    const tool_command command = {.name = "verify",
                                  .arguments = "",
                                  .summary = "Runs seeded fills and holds every byte against an independent oracle.",
                                  .options = options,
                                  .num_options = sizeof options / sizeof *options};
    int status;
    if (!tool_parse(&command, argc, argv, &status))
        return status;
    verify_run run = {.seed = o.seed == NOT_GIVEN ? 1 : (uint64_t)o.seed,
                      .first = o.first == NOT_GIVEN ? 0 : (uint64_t)o.first,
                      .cases = o.cases == NOT_GIVEN ? 2000 : (uint64_t)o.cases};
    if (!options_agree(&o) || (o.golden != NULL && !read_golden(o.golden, &run)))
        status = TOOL_USAGE;
    else if (o.backend != NULL && strcmp(o.backend, "all") == 0)
        status = verify_all(&run);
    else
        status = verify_one(&o, &run);
    free(run.golden);
    return status;
}
