"""`python -m gateway.runtime.worker LINK_FD`: one worker, as the supervisor calls it."""

import sys

from gateway.runtime.worker.worker import main

if __name__ == "__main__":
    sys.exit(main())
