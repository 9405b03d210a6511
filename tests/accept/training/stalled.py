"""A server that takes every connection and never answers: stalled.py ADDRESS-FILE"""

import socket
import sys
from pathlib import Path

with socket.create_server(("127.0.0.1", 0)) as server:
    Path(sys.argv[1]).write_text(f"http://127.0.0.1:{server.getsockname()[1]}")
    taken = []
    while True:
        taken.append(server.accept())
