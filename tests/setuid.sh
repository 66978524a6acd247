#!/usr/bin/env bash
# In a set-user-ID program no variable names a library to load: its caller sets the environment.
# Usage: setuid.sh LIBRARY INCLUDE_FOLDER
set -euo pipefail
library=$1 include=$2
unprivileged=(setpriv --reuid=65534 --clear-groups)
[ "$(id -u)" = 0 ] && "${unprivileged[@]}" true 2>/dev/null || { echo "SKIP: needs root and setpriv"; exit 77; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp "$library" "$folder/libdraftmeta.so.0"
cd "$folder"
cat >driver.c <<'C'
#include <stdio.h>
__attribute__((constructor)) static void loaded(void) { puts("driver loaded"); }
C
cat >program.c <<'C'
#include <draftmeta.h>
#include <stdio.h>
#include <unistd.h>
int main(void)
{
    dm_context *ctx = NULL;
    printf("effective user %d\n", (int)geteuid());
    if (dm_open(&(dm_options){.size = sizeof(dm_options)}, &ctx) == DM_OK)
        dm_close(ctx);
}
C
gcc -shared -fPIC driver.c -o driver.so
gcc -I "$include" program.c libdraftmeta.so.0 -Wl,-rpath,"$folder" -o program
chmod -R a+rX "$folder"

output() { # of the program, as an unprivileged user runs it
    "${unprivileged[@]}" env DRAFTMETA_HIP_LIBRARY="$folder/driver.so" DRAFTMETA_LOG=0 ./program
}
grep -q "driver loaded" <<<"$(output)" || { echo "a plain program did not load the driver" >&2; exit 1; }
chmod u+s program
seen=$(output)
grep -q "effective user 0" <<<"$seen" || { echo "SKIP: $folder is mounted nosuid"; exit 77; }
! grep -q "driver loaded" <<<"$seen" || { echo "a set-user-ID program loaded the driver" >&2; exit 1; }
echo "loaded by a plain program, not by a set-user-ID one"
