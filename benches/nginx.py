#!/usr/bin/env python3
"""nginx as a server for `http_load.py`: `nginx.py MODE PORT FOLDER`, with the page and the file of `server.rs`.

It is set as for a site whose files do not change: sendfile, open files kept, gzip made once, no access log.
"""

import gzip
import os
import pathlib
import sys

CONF = """
worker_processes auto;
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    types {{ text/html html; text/css css; }}
    access_log off;
    sendfile on;
    tcp_nopush on;
    gzip_static on;
    keepalive_requests 1000000000;
    open_file_cache max=100;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {folder}/www;
        location = /page {{ try_files /page.html =404; }}
        location = /bench.css {{ add_header Cache-Control "public, max-age=31536000, immutable"; }}
    }}
}}
"""


def main():
    _, port, folder = sys.argv[-3:]
    www = pathlib.Path(folder) / "www"
    www.mkdir()
    # As in server.rs.
    css = b"".join(b".c%04d { margin: %02dpx; }\n" % (i, i * 7 % 100) for i in range(800))
    (www / "bench.css").write_bytes(css)
    (www / "bench.css.gz").write_bytes(gzip.compress(css, 9))
    (www / "page.html").write_text("<p>It has thirty-two bytes.</p>\n" * 32)
    (www / "where").write_text("/bench.css")
    # Its workers are another user's, if this one is root.
    for path in (pathlib.Path(folder), www, *www.iterdir()):
        path.chmod(0o755)
    conf = pathlib.Path(folder) / "nginx.conf"
    conf.write_text(CONF.format(port=port, folder=folder))
    os.execvp("nginx", ["nginx", "-p", folder, "-c", str(conf)])


if __name__ == "__main__":
    main()
