// The header is C++17 without a warning.
#include <draftmeta.h>

int main()
{
    dm_options options{};
    options.size = sizeof options;
    options.backend = "cpu";
    dm_context *ctx = nullptr;
    dm_status status = dm_open(&options, &ctx);

    dm_fill_desc desc{};
    desc.size = sizeof desc;
    if (status == DM_OK)
        status = dm_fill(ctx, &desc, nullptr);
    dm_close(ctx);
    return status;
}
