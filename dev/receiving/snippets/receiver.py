import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from with_library import Unverified, verify

SECRET, DATABASE, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
BODY_MAX = 64 * 1024


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        if size > BODY_MAX:
            self._answer(413)
            return
        body = self.rfile.read(size)
        try:
            event = verify(SECRET, self.headers, body)
        except Unverified:
            self._answer(400)
            return
        # Stored before the answer, and once: a repetition has the same id. A worker of yours takes
        # the rows from the table.
        with sqlite3.connect(DATABASE) as database:
            database.execute("INSERT OR IGNORE INTO received VALUES (?, ?)", (event["id"], body))
        self._answer(204)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()


with sqlite3.connect(DATABASE) as database:
    database.execute("CREATE TABLE IF NOT EXISTS received (id TEXT PRIMARY KEY, body BLOB)")
server = ThreadingHTTPServer(("127.0.0.1", PORT), Receiver)
print(f"listening on {server.server_port}", flush=True)
server.serve_forever()
