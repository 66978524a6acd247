/* draftmeta bench: chooses the rows that fit the backend; what these have in common.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include <string.h>

int bench_check(dm_context *ctx, const workload *w, const image *img)
{
    checker *check = checker_new(ctx);
    mismatch wrong = {0};
    const dm_status status = checker_run(check, img, NULL, &wrong, NULL);
    checker_free(check);
    if (status != DM_OK)
        return tool_failed(w->name, status);
    if (wrong.found)
        tool_error("%s, %d requests: %s", w->name, w->requests, wrong.text);
    return wrong.found ? TOOL_MISMATCH : TOOL_GOOD;
}

static int cannot_write(const char *path)
{
    tool_error("--json: cannot write %s", path);
    return TOOL_USAGE;
}

int bench_report_open(tool_json *j, const char *path, const dm_backend_info *info)
{
    *j = (tool_json){.out = fopen(path, "w")};
    if (!j->out)
        return cannot_write(path);
    tool_json_open(j, NULL, '{');
    tool_json_string(j, "version", dm_version());
    tool_json_string(j, "backend", info->name);
    tool_json_string(j, "device", info->device_name);
    tool_json_string(j, "driver", info->driver_version);
    tool_json_open(j, "rows", '[');
    return TOOL_GOOD;
}

void bench_report_row(tool_json *j, const workload *w)
{
    tool_json_open(j, NULL, '{');
    tool_json_string(j, "name", w->name);
    tool_json_int(j, "requests", w->requests);
    tool_json_int(j, "tokens", w->tokens);
    tool_json_bool(j, "variable", w->variable);
    tool_json_int(j, "context", w->context);
    tool_json_int(j, "width", w->width ? w->width : w->context);
}

int bench_report_close(tool_json *j, const char *path)
{
    tool_json_close(j, ']');
    tool_json_close(j, '}');
    const bool failed = ferror(j->out);
    return fclose(j->out) == 0 && !failed ? TOOL_GOOD : cannot_write(path);
}

static int run(dm_context *ctx, const bench_options *options)
{
    dm_backend_info info = {.size = sizeof info};
    const dm_status status = dm_context_info(ctx, &info);
    if (status != DM_OK)
        return tool_failed("dm_context_info", status);
    if (strcmp(info.name, "cpu") != 0)
        return bench_gpu(ctx, options);
    if (!options->beside)
        return bench_cpu(ctx, options);
    tool_error("--beside is for GPU backends");
    return TOOL_USAGE;
}

int cmd_bench(int argc, char **argv)
{
    const char *backend = NULL, *beside = NULL;
    bench_options o = {.seed = 1, .match = "", .samples = 200};
    const tool_option options[] = {
        {"backend", TOOL_STRING, &backend, 0, 0, "cuda, hip or cpu [the first that works]"},
        {"beside", TOOL_STRING, &beside, 0, 0, "another GPU backend on the same GPU, to compare with [none]"},
        {"json", TOOL_STRING, &o.json, 0, 0, "also write the rows to this file"},
        {"seed", TOOL_INT, &o.seed, 0, 9007199254740992.0, "of the inputs [1]"},
        {"samples", TOOL_INT, &o.samples, 10, 100000, "of a row and column, on a GPU [200]"},
        {"cupti", TOOL_STRING, &o.cupti, 0, 0, "the libcupti that times kernels on NVIDIA GPUs, or none [looked for]"},
        {"strict", TOOL_FLAG, &o.strict, 0, 0, "on a GPU: exit with 1 if a bar is missed or cannot be judged"},
        {"match", TOOL_STRING, &o.match, 0, 0, "only the rows whose names contain NAME [all]"},
    };
    const tool_command command = {.name = "bench",
                                  .arguments = "",
                                  .summary = "Times fills of fixed shapes, each checked against the oracle first.",
                                  .options = options,
                                  .num_options = sizeof options / sizeof *options};
    int status;
    if (!tool_parse(&command, argc, argv, &status))
        return status;
    dm_context *ctx;
    status = tool_open(backend, 0, &ctx);
    if (status != TOOL_GOOD)
        return status;
    if (beside)
        status = tool_open(beside, 0, &o.beside);
    if (status == TOOL_GOOD)
        status = run(ctx, &o);
    dm_close(o.beside);
    dm_close(ctx);
    return status;
}
