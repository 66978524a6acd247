/* The draftmeta command: picks the subcommand.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "tools.h"

typedef struct subcommand {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} subcommand;

static const subcommand subcommands[] = {
    {"info", cmd_info, "what is here: backends, devices, drivers, and what dm_open would take"},
    {"replay", cmd_replay, "run a serving trace through the library and check every byte of every fill"},
    {"verify", cmd_verify, "check a backend against the oracle on seeded cases"},
    {"bench", cmd_bench, "measure fills"},
};

enum { NUM_SUBCOMMANDS = sizeof subcommands / sizeof subcommands[0] };

static void print_usage(FILE *out)
{
    fprintf(out, "usage: draftmeta COMMAND [options]\n\n"
                 "The per-step metadata of sparse-attention inference, filled in place, in one launch.\n\n"
                 "commands:\n");
    for (size_t i = 0; i < NUM_SUBCOMMANDS; i++)
        fprintf(out, "  %-10s %s\n", subcommands[i].name, subcommands[i].summary);
    fprintf(out, "\n  draftmeta COMMAND --help   the options of a command\n"
                 "  draftmeta --version        the version of the library\n\n"
                 "exit status: 0 good, 1 mismatch, 2 wrong usage or bad input, 3 backend not available\n");
}

static int dispatch(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < NUM_SUBCOMMANDS; i++) {
        if (strcmp(name, subcommands[i].name) == 0)
            return subcommands[i].run(argc - 1, argv + 1);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_usage(stdout);
        return TOOL_GOOD;
    }
    if (strcmp(name, "--version") == 0) {
        printf("draftmeta %s\n", dm_version());
        return TOOL_GOOD;
    }
    if (argc > 1)
        tool_error("unknown command \"%s\"", name);
    print_usage(stderr);
    return TOOL_USAGE;
}

int main(int argc, char **argv)
{
    const int status = dispatch(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) { /* a full disk must not look like success */
        tool_error("cannot write the output: %s", strerror(errno));
        return status == TOOL_GOOD ? TOOL_USAGE : status;
    }
    return status;
}
