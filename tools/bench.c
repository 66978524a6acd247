/* draftmeta bench: chooses the rows that fit the backend.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include <string.h>

#include "tools.h"

static int run(dm_context *ctx, const bench_options *options)
{
    dm_backend_info info = {.size = sizeof info};
    const dm_status status = dm_context_info(ctx, &info);
    if (status != DM_OK)
        return tool_failed("dm_context_info", status);
    return strcmp(info.name, "cpu") == 0 ? bench_cpu(ctx, options) : bench_gpu(ctx, options);
}

int cmd_bench(int argc, char **argv)
{
    const char *backend = NULL;
    bench_options o = {.seed = 1, .match = ""};
    const tool_option options[] = {
        {"backend", TOOL_STRING, &backend, 0, 0, "cuda, hip or cpu [the first that works]"},
        {"json", TOOL_STRING, &o.json, 0, 0, "also write the rows to this file"},
        {"seed", TOOL_INT, &o.seed, 0, 9007199254740992.0, "of the inputs [1]"},
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
    status = run(ctx, &o);
    dm_close(ctx);
    return status;
}
