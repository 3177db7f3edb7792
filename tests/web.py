"""A web server on this machine: files by path, how they are answered, and what was asked."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def ranges(request: BaseHTTPRequestHandler, body: bytes) -> None:
    first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
    piece = body[int(first) : int(last) + 1]
    if not piece:
        request.send_error(416)
        return
    request.send_response(206)
    end = int(first) + len(piece) - 1
    request.send_header("Content-Range", f"bytes {first}-{end}/{len(body)}")
    request.send_header("Content-Length", str(len(piece)))
    request.end_headers()
    request.wfile.write(piece)


@contextmanager
def serving(server: ThreadingHTTPServer) -> Generator[None]:
    """The server answers in a thread of its own until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Server:
    """Files by path, how they are answered, and what was asked."""

    def __init__(self, answer: Answer = ranges) -> None:
        self.files: dict[str, bytes] = {}
        self.answer = answer
        self.seen: list[tuple[str, str | None]] = []  # path and token
        self.address = ""

    @contextmanager
    def running(self) -> Generator["Server"]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append((self.path, self.headers.get("Authorization")))
                if self.path not in outer.files:
                    self.send_error(404)
                    return
                outer.answer(self, outer.files[self.path])

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{server.server_port}"
        with serving(server):
            yield self
