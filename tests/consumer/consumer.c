/* Opens the backend that works anywhere, and checks that header and library are of one version. */
#include <draftmeta.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    dm_options options = {.size = sizeof options, .backend = "cpu"};
    dm_context *ctx;
    if (dm_open(&options, &ctx) != DM_OK) {
        fprintf(stderr, "%s\n", dm_last_error());
        return 1;
    }
    dm_close(ctx);

    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", DM_VERSION_MAJOR, DM_VERSION_MINOR, DM_VERSION_PATCH);
    return strcmp(version, dm_version()) != 0;
}
