"""What test_two_processes.py compares, as JSON: shards on two processes against one device.

Run as ``python -m tests.sharding.two_processes FOLDER``.
"""

import json
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from tests.sharding import sharded_fits, sharded_functions

if __name__ == "__main__":
    torch.set_num_threads(1)
    found = sharded_fits.all_of_them(Path(sys.argv[1]))
    found |= sharded_functions.all_of_them(init_device_mesh("cpu", (2,)))
    if distributed.get_rank() == 0:
        sys.stdout.write(json.dumps(found) + "\n")
