"""python -m draftmeta [--json]: what "draftmeta info" prints."""

import sys

from ._core import command_info

if __name__ == "__main__":
    sys.exit(command_info(*sys.argv[1:]))
