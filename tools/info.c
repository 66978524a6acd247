/* draftmeta info: what is here.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tools.h"

/* What dm_open takes here if nobody names a backend: it is opened, which is the only answer that cannot be wrong. */
typedef struct choice {
    dm_status status;
    dm_backend_info info;
} choice;

static choice find_choice(void)
{
    choice c = {.info.size = sizeof c.info};
    dm_context *ctx;
    c.status = dm_open(NULL, &ctx);
    if (c.status == DM_OK)
        c.status = dm_context_info(ctx, &c.info);
    dm_close(ctx);
    return c;
}

static void print_backend(const dm_backend_info *b)
{
    printf("%-6s %s", b->name, tool_state_name(b->state));
    if (b->device_count > 0)
        printf(", %d device%s", b->device_count, b->device_count == 1 ? "" : "s");
    putchar('\n');
    if (b->device_name[0] != '\0')
        printf("       device         %s\n", b->device_name);
    if (b->driver_version[0] != '\0')
        printf("       driver         %s\n", b->driver_version);
    if (b->oldest_driver[0] != '\0')
        printf("       oldest driver  %s\n", b->oldest_driver);
    if (b->reason[0] != '\0')
        printf("       reason         %s\n", b->reason);
}

static void print_choice(const choice *c)
{
    if (c->status == DM_OK)
        printf("\ndm_open takes %s, device %d: %s\n", c->info.name, c->info.device, c->info.device_name);
    else
        printf("\ndm_open fails: %s\n", dm_status_string(c->status));
}

static void write_backend(tool_json *j, const dm_backend_info *b)
{
    tool_json_open(j, NULL, '{');
    tool_json_string(j, "name", b->name);
    tool_json_bool(j, "ready", b->state == DM_BACKEND_READY);
    tool_json_string(j, "state", tool_state_name(b->state));
    tool_json_int(j, "devices", b->device_count);
    tool_json_string(j, "device_name", b->device_name);
    tool_json_string(j, "driver_version", b->driver_version);
    tool_json_string(j, "oldest_driver", b->oldest_driver);
    tool_json_string(j, "reason", b->reason);
    tool_json_close(j, '}');
}

/* Describes every backend; j: as JSON, else as text. */
static dm_status show_backends(tool_json *j)
{
    for (int32_t i = 0; i < dm_backend_count(); i++) {
        dm_backend_info b = {.size = sizeof b};
        const dm_status status = dm_backend_query(i, &b);
        if (status != DM_OK)
            return status;
        if (j != NULL)
            write_backend(j, &b);
        else
            print_backend(&b);
    }
    return DM_OK;
}

static dm_status show_text(void)
{
    printf("draftmeta %s\n\n", dm_version());
    const dm_status status = show_backends(NULL);
    if (status != DM_OK)
        return status;
    const choice c = find_choice();
    print_choice(&c);
    return c.status;
}

static dm_status show_json(void)
{
    choice c = {0};
    tool_json j = {.out = stdout};
    tool_json_open(&j, NULL, '{');
    tool_json_string(&j, "version", dm_version());
    tool_json_open(&j, "backends", '[');
    dm_status status = show_backends(&j);
    tool_json_close(&j, ']');
    if (status == DM_OK) {
        c = find_choice();
        status = c.status;
    }
    tool_json_string(&j, "default_backend", status == DM_OK ? c.info.name : "");
    tool_json_close(&j, '}');
    return status;
}

int cmd_info(int argc, char **argv)
{
    bool json = false;
    const tool_option options[] = {{"json", TOOL_FLAG, &json, 0, 0, "print it as JSON"}};
    const tool_command command = {
        .name = "info",
        .arguments = "",
        .summary =
            "Says which backends work here, on which devices and drivers, why others do not, and which one dm_open\n"
            "takes. A backend that is missing is no error.",
        .options = options,
        .num_options = 1,
    };
    int exit_status;
    if (!tool_parse(&command, argc, argv, &exit_status))
        return exit_status;
    const dm_status status = json ? show_json() : show_text();
    return status == DM_OK ? TOOL_GOOD : tool_failed("info", status);
}
